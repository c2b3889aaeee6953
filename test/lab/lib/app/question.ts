/**
 * One question to a server, and what came back in one word or two: `NAME SOURCE` from a whoami server, which tells the path
 * taken and the source address; `NAME` from a DNS server; otherwise the name of the errno, or `silence`.
 */
import { KernelError } from '../../../../src/model/errors.js';
import { NativeSocket, type Transport } from './native-socket.js';

export interface Question {
  /** `dns-udp` and `dns-tcp` ask for a TXT record. */
  transport: Transport | 'dns-udp' | 'dns-tcp';
  address: string;
  /** Default 7, for DNS 53. */
  port?: number;
  /** UDP without connect(2): the source is chosen anew for each datagram. */
  unconnected?: boolean;
  /** A local address to bind to first. */
  from?: string;
  timeoutMs?: number;
}

/** Header, one question for TXT IN of `who.test`. */
const QUERY = Buffer.concat([
  Buffer.from([0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
  Buffer.from('\x03who\x04test\0\0\x10\0\x01', 'latin1'),
]);
/** Behind the question in the answer: a pointer, type, class, TTL, lengths of data and of text. */
const TEXT_AT = QUERY.length + 13;

export async function ask(question: Question): Promise<string> {
  const transport = question.transport.endsWith('udp') ? 'udp' : 'tcp';
  const socket = new NativeSocket(question.address.includes(':') ? 2 : 1, transport);
  try {
    if (question.from !== undefined) socket.bind(question.from);
    return await askOn(socket, question);
  } catch (error) {
    return reason(error);
  } finally {
    socket.close();
  }
}

/** The same with a socket that is there already and stays. Connects it, where the question says nothing else. */
export async function askOn(socket: NativeSocket, question: Question & { isConnected?: boolean }): Promise<string> {
  const { address, timeoutMs, unconnected = false, isConnected = false } = question;
  const isDns = question.transport.startsWith('dns');
  const port = question.port ?? (isDns ? 53 : 7);
  try {
    if (!unconnected && !isConnected) await socket.connect(address, port, timeoutMs);
    const tcp = socket.transport === 'tcp';
    if (!tcp || isDns) {
      const query = isDns ? QUERY : Buffer.from('?');
      const data = tcp ? Buffer.concat([Buffer.from([0, query.length]), query]) : query;
      socket.send(data, unconnected ? { address, port } : undefined);
    } else if (isConnected) {
      socket.send(Buffer.from('again'));
    }
    const answer = await socket.receive(timeoutMs);
    if (!isDns) return answer.toString().split(' ').slice(0, 2).join(' ');
    return answer.subarray(TEXT_AT + (tcp ? 2 : 0)).toString();
  } catch (error) {
    return reason(error);
  }
}

function reason(error: unknown): string {
  if (error instanceof KernelError) return error.errnoName;
  throw error;
}

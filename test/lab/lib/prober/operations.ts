/** What a prober does beyond app/operations.ts: asks past the routing, keeps sessions, listens, puts frames on a link. */
import { checked, errnoName } from '../../../../src/kernel/errno.js';
import { errno, libc } from '../../../../src/kernel/ffi.js';
import { ifindexOf } from '../../../../src/kernel/ifindex.js';
import { KernelError } from '../../../../src/model/errors.js';
import { NativeSocket, type Transport } from '../app/native-socket.js';
import { askOn } from '../app/question.js';
import { serveWhoami } from '../servers/whoami.js';
import { ping } from './ping.js';

export interface Probe {
  protocol: 'tcp' | 'udp' | 'icmp' | 'dns-udp' | 'dns-tcp';
  target: string;
  /** Default 7, for DNS 53. */
  port?: number;
  /** A device: SO_BINDTODEVICE. */
  bindTo?: string;
  /** A local address: bind(2). */
  source?: string;
  /** A datagram without connect(2). */
  unconnected?: boolean;
  /** Default 10000, for an answer that is to come. Who is blocked by a drop only notices silence: then a short one is enough. */
  timeoutMs?: number;
}

/** Which host answered and whom it saw; or the errno, or `silence`. DNS servers do not say whom they saw. */
export type Answer = { side: string; source?: string } | { error: string };

export interface SessionState {
  /** Who is at the other end. */
  side: string;
  /** The last number that came back. */
  echoed: number;
  /** The errno, or `silence`, that ended it. */
  error?: string;
}

const SOL_SOCKET = 1;
const SO_BINDTODEVICE = 25;
const SOCK_NONBLOCK = 0o4000;
const AF_PACKET = 17;
const SOCK_RAW = 3;
/** Nothing shorter than what a connection may stand still for while 100 VPNs come and go beside it. */
const SESSION_PATIENCE_MS = 20_000;

const sessions: (SessionState & { socket: NativeSocket })[] = [];
const heard: string[][] = [];

export const probeOperations = {
  probe: async (probe: Probe): Promise<Answer> => {
    try {
      return answerOf(await sendProbe(probe));
    } catch (error) {
      return { error: reason(error) };
    }
  },

  /** A TCP connection on which a counter goes to a whoami server and back, for as long as it works. Returns its number. */
  openSession: async (probe: Pick<Probe, 'target' | 'port' | 'bindTo' | 'source'>): Promise<number> => {
    const { target, port = 7 } = probe;
    const socket = openSocket('tcp', probe);
    await socket.connect(target, port, SESSION_PATIENCE_MS);
    const greeting = await socket.receive(SESSION_PATIENCE_MS);
    const session = { side: greeting.toString().split(' ')[0] ?? '', echoed: 0, socket };
    const number = sessions.push(session) - 1;
    void count(session);
    return number;
  },
  session: async (number: number): Promise<SessionState> => {
    const { socket: _, ...state } = at(sessions, number);
    return state;
  },
  closeSession: async (number: number): Promise<void> => at(sessions, number).socket.close(),

  /** Receives whatever comes: what was sent in each datagram, `connection` for TCP. Returns the listener's number. */
  listen: async (transport: Transport, address: string, port: number, device?: string): Promise<number> => {
    const socket = openSocket(transport, { target: address, ...(device !== undefined && { bindTo: device }) });
    socket.bind(address, port);
    if (transport === 'tcp') checked(libc.listen(socket.fd, 16), 'listen', address);
    const messages: string[] = [];
    void receiveAll(socket, messages);
    return heard.push(messages) - 1;
  },
  heard: async (number: number): Promise<string[]> => at(heard, number),
  /** The first word of each message, each once: where there are many and long ones. */
  heardWords: async (number: number): Promise<string[]> => [
    ...new Set(at(heard, number).map((message) => message.split(' ')[0] ?? '')),
  ],

  /** A whoami server on all addresses: an inbound service of this user's. */
  serve: (name: string, port: number): Promise<void> => serveWhoami({ kind: 'whoami', name, port }),

  /** A whole Ethernet frame in hexadecimal, by AF_PACKET, which no IP hook sees. `ok` or the errno's name. */
  sendFrame: async (device: string, frame: string): Promise<string> => {
    const data = Buffer.from(frame, 'hex');
    // sockaddr_ll: the interface at 4.
    const link = Buffer.alloc(20);
    link.writeUInt16LE(AF_PACKET, 0);
    link.writeInt32LE(ifindexOf(device) ?? 0, 4);
    const fd = libc.socket(AF_PACKET, SOCK_RAW, 0);
    if (fd < 0) return errnoName(errno());
    const result = libc.sendto(fd, data, data.length, 0, link, link.length) < 0 ? errnoName(errno()) : 'ok';
    libc.close(fd);
    return result;
  },
};

export type ProbeOperations = typeof probeOperations;

async function sendProbe(probe: Probe): Promise<string> {
  const { protocol, target, timeoutMs = 10_000, source } = probe;
  if (protocol === 'icmp') {
    return ping({
      target,
      timeoutMs,
      ...(source !== undefined && { source }),
      prepare: (fd) => bindToDevice(fd, probe),
    });
  }
  const socket = openSocket(protocol.endsWith('udp') ? 'udp' : 'tcp', probe);
  try {
    const { port, unconnected } = probe;
    const more = { ...(port !== undefined && { port }), ...(unconnected !== undefined && { unconnected }) };
    return await askOn(socket, { transport: protocol, address: target, timeoutMs, ...more });
  } finally {
    socket.close();
  }
}

function openSocket(transport: Transport, probe: Pick<Probe, 'target' | 'bindTo' | 'source'>): NativeSocket {
  const socket = new NativeSocket(probe.target.includes(':') ? 2 : 1, transport);
  try {
    bindToDevice(socket.fd, probe);
    if (probe.source !== undefined) socket.bind(probe.source);
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

function bindToDevice(fd: number, { bindTo }: Pick<Probe, 'bindTo'>): void {
  if (bindTo === undefined) return;
  const name = Buffer.from(`${bindTo}\0`, 'latin1');
  checked(libc.setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, name.length), 'SO_BINDTODEVICE', bindTo);
}

async function count(session: SessionState & { socket: NativeSocket }): Promise<void> {
  try {
    for (let number = 1; ; number++) {
      session.socket.send(Buffer.from(`${number}\n`));
      for (let text = ''; text !== `${number}\n`; ) {
        const some = await session.socket.receive(SESSION_PATIENCE_MS);
        if (some.length === 0) throw new KernelError('recv', 'session', 'EPIPE');
        text += some.toString();
      }
      session.echoed = number;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  } catch (error) {
    session.error = reason(error);
  }
}

async function receiveAll(socket: NativeSocket, messages: string[]): Promise<void> {
  for (;;) {
    if (socket.transport === 'tcp') {
      if (libc.accept4(socket.fd, null, null, SOCK_NONBLOCK) >= 0) messages.push('connection');
      await new Promise((resolve) => setTimeout(resolve, 4));
    } else {
      const datagram = await socket.receive(1000).catch((error) => reason(error));
      if (typeof datagram !== 'string') messages.push(datagram.toString());
    }
  }
}

function answerOf(text: string): Answer {
  if (text === 'silence' || /^E[A-Z0-9]+$/.test(text)) return { error: text };
  const [side = '', source] = text.split(' ');
  return source === undefined ? { side } : { side, source };
}

function reason(error: unknown): string {
  if (error instanceof KernelError) return error.errnoName;
  throw error;
}

function at<T>(list: readonly T[], number: number): T {
  const found = list[number];
  if (found === undefined) throw new Error(`number ${number} was not given out here`);
  return found;
}

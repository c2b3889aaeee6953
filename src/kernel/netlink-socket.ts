/**
 * A netlink socket: many requests in one send, answers matched by sequence number, dumps. The kernel works a request off
 * inside the send, so the send is what takes time (with NETLINK_ROUTE it waits for the RTNL lock): it runs in the thread
 * pool, and the answers are then there to be read at once. One batch or dump at a time per socket; callers queue behind
 * each other.
 */
import type { KernelError } from '../model/errors.js';
import { checked, lastError } from './errno.js';
import { errno, libc, libcAsync } from './ffi.js';
import { Lane } from './lane.js';
import {
  acknowledgementError,
  NetlinkWriter,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
  readAcknowledgement,
  readMessages,
} from './netlink.js';
import { netlinkPort } from './netlink-port.js';

const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const PROTOCOLS = { NETLINK_ROUTE: 0, NETLINK_SOCK_DIAG: 4, NETLINK_NETFILTER: 12 } as const;
const SOL_SOCKET = 1;
const SO_RCVBUFFORCE = 33;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;
const MSG_DONTWAIT = 0x40;
const EAGAIN = 11;
const EAFNOSUPPORT = 97;

/** Requests in one send. The kernel holds the RTNL lock for each message alone, so this bounds memory, not latency. */
const BATCH = 500;
/** Some 100 small requests, 0.3 ms in the kernel: the thread pool and back would cost half as much again. */
const SHORT_SEND_BYTES = 8 * 1024;
const RECEIVE_BYTES = 64 * 1024;
/** Room for an error answer to every request of a batch. */
const RECEIVE_QUEUE_BYTES = 4 * 1024 * 1024;

/** One request of a batch: writes its message, and says in words what it is about. */
export interface NetlinkRequest {
  readonly call: string;
  describe(): string;
  write(writer: NetlinkWriter, flags: number, sequence: number): void;
}

/** What became of a batch: the requests that failed, by their place. All others were done. */
export interface BatchFailure {
  index: number;
  error: KernelError;
}

/** The messages of one send; the sequence number of the first tells which answer is whose. */
interface Send {
  requests: readonly NetlinkRequest[];
  first: number;
  bytes: Buffer;
}

export class NetlinkSocket {
  readonly #isQuick: () => boolean;
  readonly #protocol: keyof typeof PROTOCOLS;
  readonly #fd: number;
  readonly #receive = Buffer.alloc(RECEIVE_BYTES);
  #sequence = 1;
  readonly #lane = new Lane();

  /** `isQuick`: whether a short send may be made on this thread, as nothing is known to hold the kernel's lock for long. */
  constructor(isQuick: () => boolean = () => false, protocol: keyof typeof PROTOCOLS = 'NETLINK_ROUTE') {
    this.#isQuick = isQuick;
    this.#protocol = protocol;
    this.#fd = checked(libc.socket(AF_NETLINK, SOCK_RAW_CLOEXEC, PROTOCOLS[protocol]), 'socket', protocol);
    const one = Buffer.from([1, 0, 0, 0]);
    for (const option of [NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK]) {
      libc.setsockopt(this.#fd, SOL_NETLINK, option, one, 4);
    }
    const size = Buffer.alloc(4);
    size.writeUInt32LE(RECEIVE_QUEUE_BYTES);
    libc.setsockopt(this.#fd, SOL_SOCKET, SO_RCVBUFFORCE, size, 4);
  }

  /**
   * Sends all requests in order and goes on behind one that fails. Only the last of each send asks for an ack. While the
   * kernel works one send off, the next is made, so `requests` are best made on demand.
   */
  async batch(requests: Iterable<NetlinkRequest>): Promise<BatchFailure[]> {
    return this.#lane.run(async () => {
      const failures: BatchFailure[] = [];
      const source = requests[Symbol.iterator]();
      let offset = 0;
      let next = this.#nextSend(source);
      while (next.requests.length > 0) {
        const current = next;
        const sent = this.#send(current.bytes, `${current.requests.length} requests`);
        next = this.#nextSend(source);
        await sent;
        this.#readAnswers(current, offset, failures);
        offset += current.requests.length;
      }
      return failures;
    });
  }

  /** The one answer to a question that is no dump. Throws KernelError with what the kernel says instead. */
  async ask(request: NetlinkRequest): Promise<Buffer> {
    return this.#lane.run(async () => {
      const sequence = this.#sequence++;
      const writer = new NetlinkWriter();
      request.write(writer, NLM_F_REQUEST, sequence);
      await this.#send(writer.bytes(), request.describe());
      for (;;) {
        for (const message of readMessages(this.#receiveDatagram(request.describe()))) {
          if (message.sequence !== sequence) continue;
          if (message.type !== NLMSG_ERROR) return Buffer.from(message.payload);
          throw acknowledgementError(request.call, request.describe(), readAcknowledgement(message));
        }
      }
    });
  }

  /** All answers to a dump request. `header` may have attributes behind it. None when the kernel lacks the address family. */
  async dump(type: number, header: Uint8Array, object: string): Promise<Buffer[]> {
    return this.#lane.run(async () => {
      const sequence = this.#sequence++;
      const writer = new NetlinkWriter();
      writer.begin(type, NLM_F_REQUEST | NLM_F_DUMP, sequence, header);
      writer.end();
      await this.#send(writer.bytes(), object);
      const payloads: Buffer[] = [];
      for (;;) {
        for (const message of readMessages(this.#receiveDatagram(object))) {
          if (message.sequence !== sequence) continue;
          if (message.type === NLMSG_DONE) {
            const error = readDumpErrno(message.payload);
            if (error === 0 || error === EAFNOSUPPORT) return payloads;
            throw acknowledgementError('dump', object, { errno: error });
          }
          if (message.type === NLMSG_ERROR) throw acknowledgementError('dump', object, readAcknowledgement(message));
          payloads.push(Buffer.from(message.payload));
        }
      }
    });
  }

  /** By which the kernel's notifications name this socket as the cause of a change. */
  get portId(): number {
    return netlinkPort(this.#fd);
  }

  close(): void {
    libc.close(this.#fd);
  }

  #nextSend(source: Iterator<NetlinkRequest>): Send {
    const requests: NetlinkRequest[] = [];
    while (requests.length < BATCH) {
      const { value, done } = source.next();
      if (done) break;
      requests.push(value);
    }
    const writer = new NetlinkWriter();
    const first = this.#sequence;
    for (const [index, request] of requests.entries()) {
      const last = index === requests.length - 1;
      request.write(writer, NLM_F_REQUEST | (last ? NLM_F_ACK : 0), first + index);
    }
    this.#sequence += requests.length;
    return { requests, first, bytes: writer.bytes() };
  }

  #readAnswers({ requests, first }: Send, offset: number, failures: BatchFailure[]): void {
    const last = first + requests.length - 1;
    for (;;) {
      for (const message of readMessages(this.#receiveDatagram('acknowledgement'))) {
        if (message.type !== NLMSG_ERROR || message.sequence < first || message.sequence > last) continue;
        const ack = readAcknowledgement(message);
        const index = message.sequence - first;
        const request = requests[index];
        if (ack.errno !== 0 && request) {
          failures.push({ index: offset + index, error: acknowledgementError(request.call, request.describe(), ack) });
        }
        if (message.sequence === last) return;
      }
    }
  }

  async #send(bytes: Buffer, object: string): Promise<void> {
    const atOnce = bytes.length <= SHORT_SEND_BYTES && this.#isQuick();
    const sent = await (atOnce ? libc : libcAsync).send(this.#fd, bytes, bytes.length, 0);
    if (sent !== bytes.length) throw lastError('send', `${this.#protocol} ${object}`);
  }

  /** The answers are queued by the time the send returns: never waits. */
  #receiveDatagram(object: string): Buffer {
    const length = libc.recv(this.#fd, this.#receive, RECEIVE_BYTES, MSG_DONTWAIT);
    if (length < 0) {
      const why = errno() === EAGAIN ? 'no answer' : 'recv';
      throw lastError(why, `${this.#protocol} ${object}`);
    }
    return this.#receive.subarray(0, length);
  }
}

/** NLMSG_DONE has what a dump ended with, negative, or nothing. */
function readDumpErrno(payload: Buffer): number {
  return payload.length < 4 ? 0 : Math.abs(payload.readInt32LE(0));
}

/**
 * A tunnel's UDP socket in batches (udp(7)): datagrams of equal size for one destination leave in one sendmsg with
 * UDP_SEGMENT, and up to 64 KiB that came from one source arrive in one recvmsg with UDP_GRO. All structures are laid out
 * once in the arena.
 *
 *   struct msghdr (LP64)   0 name  8 namelen  16 iov  24 iovlen  32 control  40 controllen  48 flags
 *   struct iovec           0 base  8 length
 *   struct cmsghdr         0 length  8 level  12 type  16 data
 */
import type { Arena } from '../kernel/arena.js';
import { errno, libcAt } from '../kernel/ffi.js';
import type { TunnelCounters } from './counters.js';
import { type Endpoint, SOCKADDR_BYTES } from './wireguard/endpoint.js';

const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const UDP_GRO = 104;
const MSG_DONTWAIT = 0x40;
const EINTR = 4;
const EIO = 5;
const EAGAIN = 11;
const EINVAL = 22;
const EMSGSIZE = 90;
const ENOBUFS = 105;

const MSGHDR_BYTES = 56;
const IOVEC_BYTES = 16;
const CMSG_SPACE = 24;
const CONTROL_BYTES = 64;
/** What an IPv4 datagram can carry; one more byte, and the whole send fails. */
export const MAX_DATAGRAM_BYTES = 65_507;
/** UDP_MAX_SEGMENTS of the oldest kernels that have it. */
const MAX_SEGMENTS = 64;

class Message {
  readonly #view: DataView;
  readonly #header: number;
  readonly #iovec: number;
  readonly control: number;
  readonly name: number;
  /** The address to hand to sendmsg or recvmsg. */
  readonly address: number;

  constructor(arena: Arena) {
    this.#view = arena.view;
    this.#header = arena.reserve(MSGHDR_BYTES);
    this.#iovec = arena.reserve(IOVEC_BYTES);
    this.control = arena.reserve(CONTROL_BYTES);
    this.name = arena.reserve(SOCKADDR_BYTES);
    this.address = arena.address + this.#header;
    this.#pointer(this.#header, arena.address + this.name);
    this.#view.setUint32(this.#header + 8, SOCKADDR_BYTES, true);
    this.#pointer(this.#header + 16, arena.address + this.#iovec);
    this.#view.setUint32(this.#header + 24, 1, true);
    this.#pointer(this.#header + 32, arena.address + this.control);
  }

  data(address: number, bytes: number, controlBytes: number): void {
    this.#pointer(this.#iovec, address);
    this.#view.setUint32(this.#iovec + 8, bytes, true);
    this.#view.setUint32(this.#header + 40, controlBytes, true);
  }

  get controlBytes(): number {
    return this.#view.getUint32(this.#header + 40, true);
  }

  #pointer(at: number, address: number): void {
    this.#view.setUint32(at, address % 0x100000000, true);
    this.#view.setUint32(at + 4, Math.floor(address / 0x100000000), true);
  }
}

export type Sent = 'sent' | 'full';

/** Datagrams one behind the other in memory, all for one destination, all of one size but a shorter last one. */
export class Sender {
  readonly #arena: Arena;
  readonly #message: Message;
  readonly #counters: TunnelCounters;
  #fd: number;
  #endpoint: Endpoint | undefined;
  /** Datagrams of this size and above go alone: the path, or the device, does not take them in one piece. */
  #segmentBelow = Number.POSITIVE_INFINITY;

  constructor(arena: Arena, fd: number, canSegment: boolean, counters: TunnelCounters) {
    this.#arena = arena;
    this.#fd = fd;
    this.#counters = counters;
    this.#message = new Message(arena);
    if (!canSegment) this.#segmentBelow = 0;
  }

  replace(fd: number, canSegment: boolean): void {
    this.#fd = fd;
    this.#segmentBelow = canSegment ? Number.POSITIVE_INFINITY : 0;
  }

  /** How many datagrams of `bytes` go into one batch. */
  capacity(bytes: number): number {
    if (bytes >= this.#segmentBelow) return 1;
    return Math.max(1, Math.min(MAX_SEGMENTS, Math.floor(MAX_DATAGRAM_BYTES / bytes)));
  }

  /** 'full': nothing was sent, and the same is to be tried again when the socket has room. Any other failure drops them. */
  send(endpoint: Endpoint, from: number, length: number, segmentBytes: number): Sent {
    this.#address(endpoint);
    const isSegmented = length > segmentBytes;
    const error = this.#sendmsg(from, length, isSegmented ? segmentBytes : 0);
    if (error === 0) {
      this.#counters.datagramsOut += Math.ceil(length / segmentBytes);
      return 'sent';
    }
    if (error === EAGAIN) return 'full';
    if (isSegmented && (error === EINVAL || error === EIO || error === EMSGSIZE)) {
      this.#segmentBelow = error === EIO ? 0 : segmentBytes;
      for (let done = 0; done < length; done += segmentBytes) {
        const bytes = Math.min(segmentBytes, length - done);
        // What does not fit into the socket is lost, as on any link; this happens once, then batches are of one.
        this.#counters[this.#sendmsg(from + done, bytes, 0) === 0 ? 'datagramsOut' : 'unsent']++;
      }
      return 'sent';
    }
    this.#counters.unsent += Math.ceil(length / segmentBytes);
    return 'sent';
  }

  /** 0, or the errno. */
  #sendmsg(from: number, length: number, segmentBytes: number): number {
    this.#message.data(this.#arena.address + from, length, segmentBytes > 0 ? CMSG_SPACE : 0);
    if (segmentBytes > 0) this.#writeControl(segmentBytes);
    this.#counters.socketWrites++;
    for (;;) {
      if (libcAt.sendmsg(this.#fd, this.#message.address, MSG_DONTWAIT) >= 0) return 0;
      const error = errno();
      if (error === ENOBUFS) return EAGAIN;
      if (error !== EINTR) return error;
    }
  }

  #writeControl(segmentBytes: number): void {
    const { view } = this.#arena;
    const at = this.#message.control;
    view.setUint32(at, 18, true);
    view.setUint32(at + 8, SOL_UDP, true);
    view.setUint32(at + 12, UDP_SEGMENT, true);
    view.setUint16(at + 16, segmentBytes, true);
  }

  #address(endpoint: Endpoint): void {
    if (this.#endpoint === endpoint) return;
    this.#endpoint = endpoint;
    this.#arena.memory.set(endpoint.sockaddr, this.#message.name);
  }
}

export class Receiver {
  /** Where what came is, and the sockaddr_in6 of whom it came from. */
  readonly at: number;
  readonly source: number;
  /** Of each datagram but the last, which may be shorter. */
  segmentBytes = 0;
  readonly #arena: Arena;
  readonly #message: Message;
  readonly #capacity: number;
  #fd: number;

  constructor(arena: Arena, fd: number) {
    this.#arena = arena;
    this.#fd = fd;
    this.#message = new Message(arena);
    this.#capacity = 65_536;
    this.at = arena.reserve(this.#capacity);
    this.source = this.#message.name;
  }

  replace(fd: number): void {
    this.#fd = fd;
  }

  /** Bytes that came; 0: an empty datagram; −1: nothing is there. Errors that ICMP left on the socket are passed over. */
  receive(): number {
    this.#message.data(this.#arena.address + this.at, this.#capacity, CONTROL_BYTES);
    const length = libcAt.recvmsg(this.#fd, this.#message.address, MSG_DONTWAIT);
    if (length < 0) return errno() === EINTR ? 0 : -1;
    this.segmentBytes = length;
    const { view } = this.#arena;
    const at = this.#message.control;
    if (this.#message.controlBytes < 20) return length;
    if (view.getUint32(at + 8, true) === SOL_UDP && view.getUint32(at + 12, true) === UDP_GRO) {
      this.segmentBytes = view.getInt32(at + 16, true) || length;
    }
    return length;
  }
}

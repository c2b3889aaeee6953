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
import { type Endpoint, LOCAL_BYTES, LOCAL_OFFSET, SOCKADDR_BYTES } from './wireguard/endpoint.js';

const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const UDP_GRO = 104;
const IPPROTO_IPV6 = 41;
const IPV6_PKTINFO = 50;
const MSG_DONTWAIT = 0x40;
const EINTR = 4;
const EIO = 5;
const EAGAIN = 11;
const EINVAL = 22;
const EMSGSIZE = 90;
const ENOBUFS = 105;

const MSGHDR_BYTES = 56;
const IOVEC_BYTES = 16;
const CMSG_HEADER_BYTES = 16;
const SEGMENT_SPACE = 24;
const LOCAL_SPACE = 40;
const CONTROL_BYTES = 128;
/** What an IPv4 datagram can carry; one more byte, and the whole send fails. */
export const MAX_DATAGRAM_BYTES = 65_507;
/** So many datagrams go alone before they are tried in one piece again: a few seconds of a slow transfer. */
const ALONE_BEFORE_RETRY = 8192;
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
    this.name = arena.reserve(LOCAL_OFFSET + LOCAL_BYTES);
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
  #hasLocal = false;
  readonly #withoutLocal = new WeakSet<Endpoint>();
  #canSegment: boolean;
  /** Datagrams of this size and above go alone to there: the path does not take them in one piece. */
  readonly #tooLarge = new WeakMap<Endpoint, { bytes: number; left: number }>();

  constructor(arena: Arena, fd: number, canSegment: boolean, counters: TunnelCounters) {
    this.#arena = arena;
    this.#fd = fd;
    this.#counters = counters;
    this.#message = new Message(arena);
    this.#canSegment = canSegment;
  }

  replace(fd: number, canSegment: boolean): void {
    this.#fd = fd;
    this.#canSegment = canSegment;
  }

  /** How many datagrams of `bytes` go into one batch to there. */
  capacity(endpoint: Endpoint, bytes: number): number {
    if (!this.#canSegment || this.#isTooLarge(endpoint, bytes)) return 1;
    return Math.max(1, Math.min(MAX_SEGMENTS, Math.floor(MAX_DATAGRAM_BYTES / bytes)));
  }

  /** Also counts: the way to a peer changes, and what was too large for one may not be for the next. */
  #isTooLarge(endpoint: Endpoint, bytes: number): boolean {
    const limit = this.#tooLarge.get(endpoint);
    if (limit === undefined || bytes < limit.bytes) return false;
    if (limit.left-- > 0) return true;
    this.#tooLarge.delete(endpoint);
    return false;
  }

  /** 'full': nothing was sent, and the same is to be tried again when the socket has room. Any other failure drops them. */
  send(endpoint: Endpoint, from: number, length: number, segmentBytes: number): Sent {
    this.#address(endpoint);
    const isSegmented = length > segmentBytes;
    let error = this.#sendmsg(from, length, isSegmented ? segmentBytes : 0);
    if (error !== 0 && error !== EAGAIN && this.#hasLocal) {
      error = this.#sendWithoutLocal(endpoint, from, length, isSegmented ? segmentBytes : 0) ?? error;
    }
    if (error === 0) {
      this.#counters.datagramsOut += Math.ceil(length / segmentBytes);
      return 'sent';
    }
    if (error === EAGAIN) return 'full';
    if (isSegmented && (error === EINVAL || error === EIO || error === EMSGSIZE)) {
      // EIO: the device cannot do checksums, and so no segments.
      if (error === EIO) this.#canSegment = false;
      else this.#tooLarge.set(endpoint, { bytes: segmentBytes, left: ALONE_BEFORE_RETRY });
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
    const localSpace = this.#hasLocal ? LOCAL_SPACE : 0;
    this.#message.data(this.#arena.address + from, length, localSpace + (segmentBytes > 0 ? SEGMENT_SPACE : 0));
    if (segmentBytes > 0) this.#writeSegment(this.#message.control + localSpace, segmentBytes);
    this.#counters.socketWrites++;
    for (;;) {
      if (libcAt.sendmsg(this.#fd, this.#message.address, MSG_DONTWAIT) >= 0) return 0;
      const error = errno();
      if (error === ENOBUFS) return EAGAIN;
      if (error !== EINTR) return error;
    }
  }

  #writeSegment(at: number, segmentBytes: number): void {
    const { view } = this.#arena;
    view.setUint32(at, 18, true);
    view.setUint32(at + 8, SOL_UDP, true);
    view.setUint32(at + 12, UDP_SEGMENT, true);
    view.setUint16(at + 16, segmentBytes, true);
  }

  #address(endpoint: Endpoint): void {
    if (this.#endpoint === endpoint) return;
    this.#endpoint = endpoint;
    const { memory, view } = this.#arena;
    memory.set(endpoint.sockaddr, this.#message.name);
    const { local } = endpoint;
    this.#hasLocal = local !== undefined && !this.#withoutLocal.has(endpoint);
    if (local === undefined || !this.#hasLocal) return;
    const at = this.#message.control;
    view.setUint32(at, CMSG_HEADER_BYTES + LOCAL_BYTES, true);
    view.setUint32(at + 8, IPPROTO_IPV6, true);
    view.setUint32(at + 12, IPV6_PKTINFO, true);
    memory.set(local, at + CMSG_HEADER_BYTES);
  }

  /**
   * Our address that the peer writes to may be ours no more (EINVAL or ENETUNREACH, by kernel version and family): then the kernel
   * chooses another from now on. Undefined when that changes nothing: the failure was not the address's.
   */
  #sendWithoutLocal(endpoint: Endpoint, from: number, length: number, segmentBytes: number): number | undefined {
    this.#hasLocal = false;
    const error = this.#sendmsg(from, length, segmentBytes);
    if (error === 0 || error === EAGAIN) {
      this.#withoutLocal.add(endpoint);
      return error;
    }
    this.#endpoint = undefined;
    this.#address(endpoint);
    return undefined;
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
    this.#readControl(length);
    return length;
  }

  #readControl(length: number): void {
    const { view, memory } = this.#arena;
    const local = this.source + LOCAL_OFFSET;
    memory.fill(0, local, local + LOCAL_BYTES);
    const start = this.#message.control;
    const end = start + Math.min(this.#message.controlBytes, CONTROL_BYTES);
    for (let at = start; at + CMSG_HEADER_BYTES < end; ) {
      const bytes = view.getUint32(at, true);
      if (bytes <= CMSG_HEADER_BYTES || at + bytes > end) return;
      const level = view.getUint32(at + 8, true);
      const type = view.getUint32(at + 12, true);
      const data = at + CMSG_HEADER_BYTES;
      if (level === SOL_UDP && type === UDP_GRO) this.segmentBytes = view.getInt32(data, true) || length;
      if (level === IPPROTO_IPV6 && type === IPV6_PKTINFO) memory.copyWithin(local, data, data + LOCAL_BYTES);
      at += (bytes + 7) & ~7;
    }
  }
}

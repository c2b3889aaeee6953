/**
 * The road of packets: from the TUN through the protocol to the UDP socket and back, in one thread that waits in poll(2) for
 * both, for the protocol's next deadline and for its owner. Up to 64 KiB go by each system call; nothing is allocated for
 * a packet.
 *
 *   TUN ─read─▶ Segmenter ─▶ seal ─▶ Sender ─sendmsg─▶ UDP      while the socket is full the TUN is not read: its own queue
 *   TUN ◀write─ Coalescer ◀─ open ◀─ Receiver ◀recvmsg─ UDP      fills, and TCP slows down as on any slow link
 */
import type { Arena } from '../kernel/arena.js';
import type { BootClock } from '../kernel/boot-clock.js';
import { errno, libcAt } from '../kernel/ffi.js';
import { VIRTIO_NET_HDR_GSO_NONE, VNET_HEADER_BYTES } from '../kernel/tun-offload.js';
import type { SumBlocks } from './checksum-simd.js';
import { Coalescer, RUN_BYTES } from './coalescer.js';
import type { TunnelCounters } from './counters.js';
import { type Destination, MAX_OVERHEAD, type TunnelProtocol } from './protocol.js';
import { Segmenter } from './segmenter.js';
import { MAX_DATAGRAM_BYTES, Receiver, Sender } from './socket-io.js';
import { canSegment } from './tunnel-socket.js';
import type { Endpoint } from './wireguard/endpoint.js';

const POLLIN = 1;
const POLLOUT = 4;
const POLLERR = 8;
const POLLNVAL = 0x20;
const EINTR = 4;
const EIO = 5;
const EAGAIN = 11;
const MAX_PACKET_BYTES = 65_535;
/** What the datagrams of one super-packet take: 64 KiB, their headers, and what a protocol adds, down to segments of 536 bytes. */
const SUPER_PACKET_BYTES = 80 * 1024;
/** A batch is sent when there is no room for one more super-packet: what was read must not be lost when the socket is full. */
const BATCH_BYTES = 192 * 1024;
/** Reads in a row from one side before the other gets its turn: a few hundred microseconds of work. */
const READS_A_TURN = 8;
/** poll(2) takes no more, and a deadline may be Infinity. */
const MAX_WAIT_MS = 0x7fffffff;

export interface DataPathOptions {
  arena: Arena;
  clock: BootClock;
  tunFd: number;
  socketFd: number;
  /** Readable when `onWake` is to run. */
  wakeFd: number;
  /** The TUN has IFF_VNET_HDR; and the kernel joins UDP datagrams as well. */
  offload: { vnetHeader: boolean; udp: boolean };
  counters: TunnelCounters;
  /** Adds up bytes of the arena for checksums. */
  sumBlocks?: SumBlocks | undefined;
}

export class DataPath {
  readonly #arena: Arena;
  readonly #clock: BootClock;
  readonly #tunFd: number;
  #socketFd: number;
  readonly #counters: TunnelCounters;
  readonly #protocol: TunnelProtocol;
  readonly #vnetBytes: number;
  readonly #segmenter: Segmenter;
  readonly #coalescer: Coalescer;
  readonly #sender: Sender;
  readonly #receiver: Receiver;
  readonly #pollFds: number;
  readonly #packet: number;
  /** The batch: where it may be, where it begins and ends; its datagrams' size and how many more it takes. */
  readonly #batch: number;
  #batchStart: number;
  #batchEnd: number;
  #batchEndpoint: Endpoint | undefined;
  #batchSegmentBytes = 0;
  #batchRoom = 0;
  /** Batches that the socket had no room for, in order. Empty unless it is full. */
  readonly #waiting: { endpoint: Endpoint; batch: number; length: number; segmentBytes: number }[] = [];
  #isFull = false;
  #isTunGone = false;
  #isEnding = false;
  readonly #ready: [tun: number, socket: number, wake: number] = [0, 0, 0];

  constructor(options: DataPathOptions, protocol: TunnelProtocol) {
    const { arena, tunFd, socketFd, wakeFd, offload, counters, sumBlocks } = options;
    this.#arena = arena;
    this.#clock = options.clock;
    this.#tunFd = tunFd;
    this.#socketFd = socketFd;
    this.#counters = counters;
    this.#protocol = protocol;
    this.#vnetBytes = offload.vnetHeader ? VNET_HEADER_BYTES : 0;
    this.#segmenter = new Segmenter(arena.memory, sumBlocks);
    const runs = [arena.reserve(RUN_BYTES), arena.reserve(RUN_BYTES)] as const;
    this.#coalescer = new Coalescer(
      arena.memory,
      { runs },
      offload,
      (at, length) => this.#writeTun(at, length),
      sumBlocks,
    );
    this.#sender = new Sender(arena, socketFd, canSegment(socketFd), counters);
    this.#receiver = new Receiver(arena, socketFd);
    // 64 bytes in front for the vnet header: the packet itself is aligned. Behind, room for a protocol's padding.
    this.#packet = arena.reserve(64 + MAX_PACKET_BYTES + MAX_OVERHEAD) + 64;
    this.#batch = arena.reserve(BATCH_BYTES);
    this.#batchStart = this.#batch;
    this.#batchEnd = this.#batch;
    this.#pollFds = arena.reserve(24);
    for (const [index, fd] of [tunFd, socketFd, wakeFd].entries()) {
      arena.view.setInt32(this.#pollFds + index * 8, fd, true);
      arena.view.setInt16(this.#pollFds + index * 8 + 4, POLLIN, true);
    }
  }

  /** Until the TUN is gone or end() was called. `onWake` runs between two turns when wakeFd is readable. */
  run(onWake: () => void): void {
    while (!this.#isTunGone && !this.#isEnding) {
      const now = this.#clock.now();
      if (now >= this.#protocol.nextDeadlineMs) this.#protocol.tick(now);
      this.#sendOutbox();
      this.#flush();
      const [tun, socket, wake] = this.#wait(this.#protocol.nextDeadlineMs - now);
      if (wake) onWake();
      if (socket & POLLOUT) this.#sendWaiting();
      if (socket & (POLLIN | POLLERR)) this.#takeDatagrams();
      // No packet waits behind an error: the device is no more.
      if (tun & POLLERR) this.#isTunGone = true;
      else if (tun !== 0 && !this.#isFull) this.#takePackets();
    }
    this.#flush();
  }

  end(): void {
    this.#isEnding = true;
  }

  replaceSocket(fd: number): void {
    this.#flush();
    this.#socketFd = fd;
    this.#arena.view.setInt32(this.#pollFds + 8, fd, true);
    this.#sender.replace(fd, canSegment(fd));
    this.#receiver.replace(fd);
    this.#sendWaiting();
  }

  #wait(timeoutMs: number): readonly [tun: number, socket: number, wake: number] {
    const { view } = this.#arena;
    const at = this.#pollFds;
    view.setInt16(at + 4, this.#isFull ? 0 : POLLIN, true);
    view.setInt16(at + 12, this.#isFull ? POLLIN | POLLOUT : POLLIN, true);
    // Rounded up: a wake-up before the deadline would be one for nothing.
    const timeout = timeoutMs > MAX_WAIT_MS ? -1 : Math.max(0, Math.ceil(timeoutMs));
    const count = libcAt.poll(this.#arena.address + at, 3, timeout);
    for (let index = 0; index < 3; index++) {
      this.#ready[index] = count > 0 ? view.getInt16(at + index * 8 + 6, true) : 0;
    }
    if (this.#ready[1] & POLLNVAL) throw new Error(`fd ${this.#socketFd} is no socket any more`);
    return this.#ready;
  }

  #takePackets(): void {
    const now = this.#clock.now();
    this.#rewind();
    for (let reads = 0; reads < READS_A_TURN && this.#hasRoom(); reads++) {
      const start = this.#packet - this.#vnetBytes;
      const length = libcAt.read(this.#tunFd, this.#arena.address + start, this.#vnetBytes + MAX_PACKET_BYTES);
      if (length <= 0) {
        const error = length === 0 ? 0 : errno();
        if (error === EINTR) continue;
        // EIO: the link is down. Everything else but "nothing there": EBADFD, EFAULT or ENODEV, the VPN was destroyed.
        if (error !== EAGAIN && error !== EIO) this.#isTunGone = true;
        break;
      }
      this.#counters.tunReads++;
      this.#sealPackets(length - this.#vnetBytes, now);
    }
    this.#flush();
  }

  /** For one more super-packet. False: the socket is full. */
  #hasRoom(): boolean {
    if (!this.#isFull && this.#batchEnd > this.#batch + BATCH_BYTES - SUPER_PACKET_BYTES) {
      this.#flush();
      this.#rewind();
    }
    return !this.#isFull;
  }

  #sealPackets(length: number, now: number): void {
    const segmenter = this.#segmenter;
    const protocol = this.#protocol;
    const destination = length > 0 ? protocol.route(this.#packet, length) : undefined;
    const isPacket =
      this.#vnetBytes > 0
        ? segmenter.begin(this.#packet - VNET_HEADER_BYTES, this.#packet, length)
        : segmenter.whole(this.#packet, length);
    if (destination === undefined || !isPacket) {
      this.#counters.unroutable++;
      return;
    }
    while (segmenter.next()) {
      this.#counters.packetsOut++;
      this.#counters.bytesOut += segmenter.length;
      if (segmenter.length + MAX_OVERHEAD > MAX_DATAGRAM_BYTES) this.#counters.unsent++;
      else this.#seal(destination, segmenter.at, segmenter.length, now);
    }
  }

  #seal(destination: Destination, from: number, length: number, now: number): void {
    if (!this.#makeRoom(length + MAX_OVERHEAD)) {
      this.#counters.unsent++;
      return;
    }
    const at = this.#batchEnd;
    const bytes = this.#protocol.seal(destination, from, length, at, now);
    if (bytes > 0) {
      const { endpoint } = destination;
      if (endpoint === undefined) this.#counters.unsent++;
      else this.#append(endpoint, at, bytes);
    } else if (this.#protocol.outbox.length > 0) {
      this.#sendOutbox();
    }
  }

  /** A datagram has been written behind the batch. It joins it, or begins the next. */
  #append(endpoint: Endpoint, at: number, bytes: number): void {
    if (this.#batchRoom > 0 && endpoint === this.#batchEndpoint && bytes <= this.#batchSegmentBytes) {
      this.#batchEnd = at + bytes;
      this.#batchRoom = bytes < this.#batchSegmentBytes ? 0 : this.#batchRoom - 1;
      return;
    }
    this.#flush();
    this.#batchStart = at;
    this.#batchEnd = at + bytes;
    this.#batchEndpoint = endpoint;
    this.#batchSegmentBytes = bytes;
    this.#batchRoom = this.#sender.capacity(endpoint, bytes) - 1;
  }

  /** Sends the batch; while the socket is full it waits behind those that wait already. */
  #flush(): void {
    const length = this.#batchEnd - this.#batchStart;
    const endpoint = this.#batchEndpoint;
    if (length === 0 || endpoint === undefined) return;
    const batch = this.#batchStart;
    const segmentBytes = this.#batchSegmentBytes;
    if (this.#isFull || this.#sender.send(endpoint, batch, length, segmentBytes) === 'full') {
      if (!this.#isFull) this.#counters.waits++;
      this.#isFull = true;
      this.#waiting.push({ endpoint, batch, length, segmentBytes });
    }
    this.#batchRoom = 0;
    this.#batchStart = this.#batchEnd;
  }

  /** The socket has room again. */
  #sendWaiting(): void {
    for (let next = this.#waiting[0]; next; next = this.#waiting[0]) {
      if (this.#sender.send(next.endpoint, next.batch, next.length, next.segmentBytes) === 'full') return;
      this.#waiting.shift();
    }
    this.#isFull = false;
  }

  /** For one more datagram behind the batch. False: the socket is full and so is the room to wait in. */
  #makeRoom(bytes: number): boolean {
    const end = this.#batch + BATCH_BYTES;
    if (this.#batchEnd + bytes <= end) return true;
    this.#flush();
    this.#rewind();
    return this.#batchEnd + bytes <= end;
  }

  /** Uses the same memory again, which the processor's cache still has, when none of it waits to be sent. */
  #rewind(): void {
    if (this.#waiting.length > 0 || this.#batchEnd > this.#batchStart) return;
    this.#batchStart = this.#batch;
    this.#batchEnd = this.#batch;
  }

  #sendOutbox(): void {
    const { outbox } = this.#protocol;
    if (outbox.length === 0) return;
    for (const { datagram, endpoint } of outbox) {
      if (!this.#makeRoom(datagram.length)) {
        this.#counters.unsent++;
        continue;
      }
      const at = this.#batchEnd;
      this.#arena.memory.set(datagram, at);
      this.#append(endpoint, at, datagram.length);
    }
    outbox.length = 0;
  }

  #takeDatagrams(): void {
    const now = this.#clock.now();
    for (let reads = 0; reads < READS_A_TURN; reads++) {
      const length = this.#receiver.receive();
      if (length < 0) break;
      this.#counters.socketReads++;
      this.#openDatagrams(length, now);
    }
    this.#coalescer.flush();
    this.#sendOutbox();
    this.#flush();
  }

  #openDatagrams(length: number, now: number): void {
    const { at, source, segmentBytes } = this.#receiver;
    const coalescer = this.#coalescer;
    const protocol = this.#protocol;
    const counters = this.#counters;
    for (let start = 0; start < length; start += segmentBytes) {
      const bytes = Math.min(segmentBytes, length - start);
      counters.datagramsIn++;
      const opened = protocol.open(at + start, bytes, coalescer.place(bytes), source, now);
      if (opened > 0) {
        counters.packetsIn++;
        counters.bytesIn += opened;
        coalescer.add(opened);
      } else {
        coalescer.discard();
      }
    }
  }

  #writeTun(at: number, length: number): void {
    if (this.#write(at, length)) return;
    const isJoined = this.#vnetBytes > 0 && this.#arena.memory[at + 1] !== VIRTIO_NET_HDR_GSO_NONE;
    if (isJoined) this.#writeApart(at, length);
    else this.#counters.undelivered++;
  }

  /** What the kernel does not take in one piece, as for want of memory, it may take as it came. */
  #writeApart(at: number, length: number): void {
    const segmenter = this.#segmenter;
    const vnetBytes = this.#vnetBytes;
    if (!segmenter.begin(at, at + vnetBytes, length - vnetBytes)) {
      this.#counters.undelivered++;
      return;
    }
    while (segmenter.next()) {
      // Over the end of the packet before, which has been written.
      const start = segmenter.at - vnetBytes;
      this.#arena.memory.fill(0, start, segmenter.at);
      if (!this.#write(start, vnetBytes + segmenter.length)) this.#counters.undelivered++;
    }
  }

  #write(at: number, length: number): boolean {
    this.#counters.tunWrites++;
    return libcAt.write(this.#tunFd, this.#arena.address + at, length) >= 0;
  }
}

/**
 * Packets that follow one another in a TCP stream, or equal UDP datagrams of one flow, joined into one of up to 64 KiB for a
 * TUN with a vnet header: the kernel then goes through its stack once for all of them. The rules are those of the kernel's own
 * GRO (tcp_gro_receive): same addresses, ports, options, window and acknowledgement, the next sequence number, the same
 * size but for the last. Every checksum of a joined packet is verified first: the kernel looks at none of them any more, and
 * what was damaged between its sender and the peer must not pass for right. A packet that stays alone is left to the kernel.
 *
 * Nothing is copied as long as a run goes on. Each packet is written (opened) so that its payload lands behind the payload
 * before it, its header over that one's end; these bytes are kept aside meanwhile and put back.
 *
 *   run:  [vnet header][header][payload 0][payload 1][payload 2]
 *                                                 [header]^ the next packet is written here, payload first free byte
 */
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
  VNET_HEADER_BYTES,
} from '../kernel/tun-offload.js';
import { fold, sum, swap16, Words } from './checksum.js';
import type { SumBlocks } from './checksum-simd.js';
import { IPPROTO_TCP, IPPROTO_UDP, TCP_ACK, TCP_PSH } from './transport-header.js';

/** An IP packet's length field. */
const MAX_RUN_BYTES = 65_535;
/** UDP_MAX_SEGMENTS of every kernel that takes them. */
const MAX_UDP_PACKETS = 64;
const MAX_HEADER_BYTES = 100;
/** IPv4's flag, in the field of the fragment offset. */
const DONT_FRAGMENT = 0x4000;
/** In front of a run's packet; that one is aligned to 4, as its payload then is. */
const HEADROOM = 64;
/** What one of the two places for runs needs: the run, and one more packet before it is known not to belong to it. */
export const RUN_BYTES = HEADROOM + 2 * (MAX_RUN_BYTES + 1);

export interface CoalescerPlaces {
  /** Two places of RUN_BYTES, aligned to 4. */
  runs: readonly [number, number];
}

export class Coalescer {
  readonly #words: Words;
  readonly #write: (at: number, length: number) => void;
  readonly #vnetBytes: number;
  readonly #canJoinUdp: boolean;
  readonly #aside = new Words(new Uint8Array(MAX_HEADER_BYTES));
  #run: number;
  #other: number;
  /** Of the run's first packet; 0 with no run. */
  #count = 0;
  #end = 0;
  #headerBytes = 0;
  #transport = 0;
  #isTcp = false;
  #isIpv4 = false;
  #segmentBytes = 0;
  #nextSequence = 0;
  #isClosed = false;
  #isFirstVerified = false;
  #hasPush = false;
  #isAside = false;

  /** `write` gets what is to be written to the TUN, vnet header included; `vnetHeader` false: nothing is joined. */
  constructor(
    memory: Uint8Array,
    { runs }: CoalescerPlaces,
    { vnetHeader, udp }: { vnetHeader: boolean; udp: boolean },
    write: (at: number, length: number) => void,
    sumBlocks?: SumBlocks,
  ) {
    this.#words = new Words(memory, sumBlocks);
    this.#write = write;
    this.#vnetBytes = vnetHeader ? VNET_HEADER_BYTES : 0;
    this.#canJoinUdp = udp;
    this.#run = runs[0] + HEADROOM;
    this.#other = runs[1] + HEADROOM;
  }

  /** Where the next packet, of at most `maxBytes`, is to be written. Then add() or discard() must follow. */
  place(maxBytes: number): number {
    if (this.#count === 0) return this.#run;
    if (this.#isClosed || this.#end + maxBytes - this.#headerBytes - this.#run > MAX_RUN_BYTES) {
      this.flush();
      return this.#run;
    }
    const at = this.#end - this.#headerBytes;
    this.#putAside(at);
    return at;
  }

  /** Nothing valid was written at place(). */
  discard(): void {
    if (this.#isAside) this.#putBack(this.#end - this.#headerBytes);
  }

  /** A packet of `length` bytes was written at place(). */
  add(length: number): void {
    if (this.#count === 0) return this.#begin(length);
    const at = this.#end - this.#headerBytes;
    if (this.#join(at, length)) return this.#putBack(at);
    // It begins a run of its own in the other place.
    this.#words.bytes.copyWithin(this.#other, at, at + length);
    this.#putBack(at);
    this.flush();
    const run = this.#run;
    this.#run = this.#other;
    this.#other = run;
    this.#begin(length);
  }

  /** Writes what there is. */
  flush(): void {
    if (this.#count === 0) return;
    const vnetAt = this.#run - this.#vnetBytes;
    if (this.#vnetBytes > 0) this.#words.bytes.fill(0, vnetAt, this.#run);
    if (this.#count > 1) this.#describe(vnetAt);
    this.#count = 0;
    this.#write(vnetAt, this.#end - vnetAt);
  }

  #begin(length: number): void {
    const at = this.#run;
    this.#count = 1;
    this.#end = at + length;
    if (this.#vnetBytes === 0 || !this.#isCandidate(at, length)) this.#isClosed = true;
  }

  /** Whether others may be joined to the packet; what they must have in common with it is read on the way. */
  #isCandidate(at: number, length: number): boolean {
    const { bytes, view } = this.#words;
    if (length < 28) return false;
    this.#isIpv4 = (bytes[at] ?? 0) >> 4 === 4;
    const isPlain = this.#isIpv4
      ? bytes[at] === 0x45 && view.getUint16(at + 2) === length && (view.getUint16(at + 6) & 0x3fff) === 0
      : (bytes[at] ?? 0) >> 4 === 6 && length >= 48 && view.getUint16(at + 4) === length - 40;
    if (!isPlain) return false;
    this.#transport = this.#isIpv4 ? 20 : 40;
    const transport = at + this.#transport;
    const protocol = bytes[at + (this.#isIpv4 ? 9 : 6)];
    this.#isTcp = protocol === IPPROTO_TCP;
    if (!this.#isTcp && !(protocol === IPPROTO_UDP && this.#canJoinUdp)) return false;
    if (this.#isTcp && length < this.#transport + 20) return false;
    const transportBytes = this.#isTcp ? ((bytes[transport + 12] ?? 0) >> 4) * 4 : 8;
    this.#headerBytes = this.#transport + transportBytes;
    this.#segmentBytes = length - this.#headerBytes;
    this.#isFirstVerified = false;
    this.#isClosed = false;
    this.#hasPush = false;
    if (this.#headerBytes > MAX_HEADER_BYTES) return false;
    // The next packet's header goes over the end of this payload; it must not reach into this header.
    if (this.#segmentBytes < this.#headerBytes) return false;
    if (!this.#isTcp) return view.getUint16(transport + 4) === length - this.#transport && this.#hasUdpChecksum(at);
    this.#nextSequence = (view.getUint32(transport + 4) + this.#segmentBytes) >>> 0;
    // Only the last of a run may say PSH, and other flags are the kernel's to see alone.
    return transportBytes >= 20 && bytes[transport + 13] === TCP_ACK;
  }

  #join(at: number, length: number): boolean {
    const payloadBytes = length - this.#headerBytes;
    if (payloadBytes <= 0 || payloadBytes > this.#segmentBytes || !this.#isSameFlow(at, length)) return false;
    if (!this.#isFirstVerified) {
      if (!this.#isFirstRight(at)) return false;
      this.#isFirstVerified = true;
    }
    if (!this.#isRight(at, length, sum(this.#words, at + this.#transport, length - this.#transport))) return false;
    if (this.#isTcp) {
      this.#nextSequence = (this.#nextSequence + payloadBytes) >>> 0;
      this.#hasPush = ((this.#words.bytes[at + this.#transport + 13] ?? 0) & TCP_PSH) !== 0;
    }
    this.#count++;
    this.#end += payloadBytes;
    this.#isClosed =
      payloadBytes < this.#segmentBytes || this.#hasPush || (!this.#isTcp && this.#count === MAX_UDP_PACKETS);
    return true;
  }

  #isSameFlow(at: number, length: number): boolean {
    const { bytes, view } = this.#words;
    const run = this.#run;
    if (this.#isIpv4) {
      // Version and type of service; the length; no fragment, and DF alike; time to live and protocol; addresses.
      if (view.getUint16(run) !== view.getUint16(at) || view.getUint16(at + 2) !== length) return false;
      if (!this.#isEqual(at, 6, 10) || !this.#isEqual(at, 12, 20)) return false;
      // Cut again, the packets are numbered one after the other; where none may be a fragment the numbers mean nothing.
      const number = (view.getUint16(run + 4) + this.#count) & 0xffff;
      if ((view.getUint16(at + 6) & DONT_FRAGMENT) === 0 && view.getUint16(at + 4) !== number) return false;
    } else {
      // Version, class and flow label; the length; next header and hop limit; addresses.
      if (!this.#isEqual(at, 0, 4) || view.getUint16(at + 4) !== length - 40) return false;
      if (!this.#isEqual(at, 6, 40)) return false;
    }
    const transport = this.#transport;
    if (!this.#isEqual(at, transport, transport + 4)) return false;
    if (!this.#isTcp) return view.getUint16(at + transport + 4) === length - transport && this.#hasUdpChecksum(at);
    // The next sequence number; acknowledgement; data offset; flags; window; options.
    if (view.getUint32(at + transport + 4) !== this.#nextSequence) return false;
    if (((bytes[at + transport + 13] ?? 0) & ~TCP_PSH) !== TCP_ACK) return false;
    if (bytes[at + transport + 12] !== bytes[run + transport + 12]) return false;
    if (!this.#isEqual(at, transport + 8, transport + 12)) return false;
    if (!this.#isEqual(at, transport + 14, transport + 16)) return false;
    return this.#isEqual(at, transport + 20, this.#headerBytes);
  }

  /** Whether the packet's bytes from `start` to `end`, an even number, are those of the run's. */
  #isEqual(at: number, start: number, end: number): boolean {
    const { view } = this.#words;
    const run = this.#run;
    let offset = start;
    for (; offset + 4 <= end; offset += 4) {
      if (view.getInt32(run + offset, true) !== view.getInt32(at + offset, true)) return false;
    }
    return offset === end || view.getUint16(run + offset) === view.getUint16(at + offset);
  }

  /** Zero means that its sender made none, and nobody can verify it. */
  #hasUdpChecksum(at: number): boolean {
    return this.#words.view.getUint16(at + this.#transport + 6) !== 0;
  }

  /** The first packet's, whose end is kept aside: the packet at `at` was written over it. */
  #isFirstRight(at: number): boolean {
    const transport = this.#run + this.#transport;
    const end = fold(sum(this.#aside, 0, this.#headerBytes));
    const total = sum(this.#words, transport, at - transport) + (((at - transport) & 1) === 0 ? end : swap16(end));
    return this.#isRight(this.#run, this.#headerBytes + this.#segmentBytes, total);
  }

  /** `total` is the sum from the transport header on. */
  #isRight(at: number, length: number, total: number): boolean {
    if (this.#isIpv4 && fold(sum(this.#words, at, 20)) !== 0xffff) return false;
    return fold(this.#pseudoHeader(at, length) + total) === 0xffff;
  }

  #pseudoHeader(at: number, length: number): number {
    const addresses = this.#isIpv4 ? sum(this.#words, at + 12, 8) : sum(this.#words, at + 8, 32);
    return addresses + swap16(this.#isTcp ? IPPROTO_TCP : IPPROTO_UDP) + swap16(length - this.#transport);
  }

  /** The run's header and vnet header, as of one packet whose checksum is to be completed. */
  #describe(vnetAt: number): void {
    const { bytes, view } = this.#words;
    const run = this.#run;
    const length = this.#end - run;
    const transport = run + this.#transport;
    if (this.#isIpv4) {
      view.setUint16(run + 2, length);
      view.setUint16(run + 10, 0);
      view.setUint16(run + 10, ~fold(sum(this.#words, run, 20)) & 0xffff, true);
    } else {
      view.setUint16(run + 4, length - 40);
    }
    if (this.#isTcp && this.#hasPush) bytes[transport + 13] = TCP_ACK | TCP_PSH;
    if (!this.#isTcp) view.setUint16(transport + 4, length - this.#transport);
    const checksumOffset = this.#isTcp ? 16 : 6;
    view.setUint16(transport + checksumOffset, fold(this.#pseudoHeader(run, length)), true);
    bytes[vnetAt] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    bytes[vnetAt + 1] = this.#isTcp
      ? this.#isIpv4
        ? VIRTIO_NET_HDR_GSO_TCPV4
        : VIRTIO_NET_HDR_GSO_TCPV6
      : VIRTIO_NET_HDR_GSO_UDP_L4;
    view.setUint16(vnetAt + 2, this.#headerBytes, true);
    view.setUint16(vnetAt + 4, this.#segmentBytes, true);
    view.setUint16(vnetAt + 6, this.#transport, true);
    view.setUint16(vnetAt + 8, checksumOffset, true);
  }

  #putAside(at: number): void {
    this.#isAside = true;
    if ((at & 3) !== 0) {
      this.#aside.bytes.set(this.#words.bytes.subarray(at, at + this.#headerBytes));
      return;
    }
    const { i32 } = this.#words;
    const words = this.#headerBytes >> 2;
    for (let index = 0, from = at >> 2; index < words; index++, from++) this.#aside.i32[index] = i32[from] as number;
  }

  #putBack(at: number): void {
    this.#isAside = false;
    if ((at & 3) !== 0) {
      this.#words.bytes.set(this.#aside.bytes.subarray(0, this.#headerBytes), at);
      return;
    }
    const { i32 } = this.#words;
    const words = this.#headerBytes >> 2;
    for (let index = 0, to = at >> 2; index < words; index++, to++) i32[to] = this.#aside.i32[index] as number;
  }
}

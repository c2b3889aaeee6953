/**
 * Packets as a TUN with segmentation offload gives them: up to 64 KiB of a TCP stream, or of equal UDP datagrams, behind one
 * header (linux/virtio_net.h), cut into the packets that the network takes, with right lengths, sequence numbers and
 * checksums; as the kernel does it (tcp_gso_segment, __udp_gso_segment).
 *
 * Nothing is copied: the header of a packet is written over the end of the one before, which must have been dealt with.
 */
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from '../kernel/tun-offload.js';
import { fold, sum, sum32, swap16, Words } from './checksum.js';
import type { SumBlocks } from './checksum-simd.js';
import { IPPROTO_TCP, IPPROTO_UDP, TCP_CWR, TCP_FIN, TCP_PSH } from './transport-header.js';

/** IPv4 or IPv6 with extension headers, and TCP with options. */
const MAX_HEADER_BYTES = 256;

export class Segmenter {
  readonly #words: Words;
  /** The header of all packets, as the first has it. */
  readonly #header = new Words(new Uint8Array(MAX_HEADER_BYTES));
  /** Where the packet of the last next() is. */
  at = 0;
  length = 0;

  #left = 0;
  #index = 0;
  #isWhole = false;
  #isTcp = false;
  #isIpv4 = false;
  #headerBytes = 0;
  #transport = 0;
  #segmentBytes = 0;
  #payload = 0;
  #payloadEnd = 0;
  #transportSum = 0;
  #ipv4Sum = 0;
  #ipv4Id = 0;
  #sequence = 0;
  #flags = 0;

  constructor(memory: Uint8Array, sumBlocks?: SumBlocks) {
    this.#words = new Words(memory, sumBlocks);
  }

  /** A packet of `length` bytes at `at` with its header at `vnetAt`. False: it is none that can be cut; drop it. */
  begin(vnetAt: number, at: number, length: number): boolean {
    const { bytes, view } = this.#words;
    const flags = bytes[vnetAt] ?? 0;
    const type = (bytes[vnetAt + 1] ?? 0) & ~VIRTIO_NET_HDR_GSO_ECN;
    const start = view.getUint16(vnetAt + 6, true);
    const offset = view.getUint16(vnetAt + 8, true);
    if (type === VIRTIO_NET_HDR_GSO_NONE) {
      if ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0 && !this.#complete(at, length, start, offset)) return false;
      return this.whole(at, length);
    }
    this.#isTcp = type === VIRTIO_NET_HDR_GSO_TCPV4 || type === VIRTIO_NET_HDR_GSO_TCPV6;
    if (!this.#isTcp && type !== VIRTIO_NET_HDR_GSO_UDP_L4) return false;
    const transportBytes = this.#isTcp ? ((bytes[at + start + 12] ?? 0) >> 4) * 4 : 8;
    this.#isIpv4 = (bytes[at] ?? 0) >> 4 === 4;
    this.#transport = start;
    this.#headerBytes = start + transportBytes;
    this.#segmentBytes = view.getUint16(vnetAt + 4, true);
    if (start < (this.#isIpv4 ? 20 : 40) || this.#headerBytes > Math.min(length, MAX_HEADER_BYTES)) return false;
    if (this.#segmentBytes === 0 || (this.#isTcp && transportBytes < 20)) return false;
    this.#isWhole = false;
    this.#payload = at + this.#headerBytes;
    this.#payloadEnd = at + length;
    this.#left = Math.max(1, Math.ceil((length - this.#headerBytes) / this.#segmentBytes));
    this.#index = 0;
    this.#takeHeader(at);
    return true;
  }

  /** A packet that needs nothing. */
  whole(at: number, length: number): boolean {
    this.#isWhole = true;
    this.#left = 1;
    this.at = at;
    this.length = length;
    return true;
  }

  /** The next packet is at `at`; false when there is none. The one before is overwritten. */
  next(): boolean {
    if (this.#left === 0) return false;
    this.#left--;
    if (!this.#isWhole) this.#writePacket();
    return true;
  }

  #complete(at: number, length: number, start: number, offset: number): boolean {
    if (start + offset + 2 > length) return false;
    const checksum = ~fold(sum(this.#words, at + start, length - start)) & 0xffff;
    // UDP's 0 would mean "no checksum"; for TCP the two zeros are the same.
    this.#words.view.setUint16(at + start + offset, checksum || 0xffff, true);
    return true;
  }

  /** What is the same in all packets is summed up once. */
  #takeHeader(at: number): void {
    const header = this.#header;
    const { bytes, view } = header;
    const transport = this.#transport;
    bytes.set(this.#words.bytes.subarray(at, at + this.#headerBytes));
    if (this.#isIpv4) {
      this.#ipv4Id = view.getUint16(4);
      view.setUint16(2, 0);
      view.setUint16(4, 0);
      view.setUint16(10, 0);
      this.#ipv4Sum = sum(header, 0, ((bytes[0] ?? 0) & 15) * 4);
    }
    const addresses = this.#isIpv4 ? sum(header, 12, 8) : sum(header, 8, 32);
    if (this.#isTcp) {
      this.#sequence = view.getUint32(transport + 4);
      this.#flags = bytes[transport + 13] ?? 0;
      view.setUint32(transport + 4, 0);
      bytes[transport + 13] = 0;
      view.setUint16(transport + 16, 0);
    } else {
      view.setUint16(transport + 4, 0);
      view.setUint16(transport + 6, 0);
    }
    const protocol = this.#isTcp ? IPPROTO_TCP : IPPROTO_UDP;
    this.#transportSum = addresses + swap16(protocol) + sum(header, transport, this.#headerBytes - transport);
  }

  #writePacket(): void {
    const words = this.#words;
    const { view } = words;
    const payload = this.#payload;
    const payloadBytes = Math.min(this.#segmentBytes, this.#payloadEnd - payload);
    const at = payload - this.#headerBytes;
    const transport = at + this.#transport;
    const transportBytes = this.#headerBytes - this.#transport + payloadBytes;
    this.#putHeader(at);
    this.at = at;
    this.length = this.#headerBytes + payloadBytes;
    let checksum = this.#transportSum + swap16(transportBytes) + sum(words, payload, payloadBytes);
    if (this.#isTcp) {
      const sequence = (this.#sequence + this.#index * this.#segmentBytes) >>> 0;
      let flags = this.#flags;
      if (this.#left > 0) flags &= ~(TCP_FIN | TCP_PSH);
      if (this.#index > 0) flags &= ~TCP_CWR;
      view.setUint32(transport + 4, sequence);
      view.setUint8(transport + 13, flags);
      checksum += sum32(sequence) + (flags << 8);
      view.setUint16(transport + 16, ~fold(checksum) & 0xffff, true);
    } else {
      view.setUint16(transport + 4, transportBytes);
      checksum += swap16(transportBytes);
      view.setUint16(transport + 6, ~fold(checksum) & 0xffff || 0xffff, true);
    }
    if (this.#isIpv4) {
      const id = (this.#ipv4Id + this.#index) & 0xffff;
      view.setUint16(at + 2, this.length);
      view.setUint16(at + 4, id);
      const ipv4Sum = this.#ipv4Sum + swap16(this.length) + swap16(id);
      view.setUint16(at + 10, ~fold(ipv4Sum) & 0xffff, true);
    } else {
      view.setUint16(at + 4, this.length - 40);
    }
    this.#payload += payloadBytes;
    this.#index++;
  }

  #putHeader(at: number): void {
    if ((at & 3) !== 0) {
      this.#words.bytes.set(this.#header.bytes.subarray(0, this.#headerBytes), at);
      return;
    }
    const from = this.#header.i32;
    const to = this.#words.i32;
    const words = this.#headerBytes >> 2;
    for (let index = 0, target = at >> 2; index < words; index++, target++) to[target] = from[index] as number;
  }
}

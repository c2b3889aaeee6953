/**
 * What leaves a device: the sealing of packets into transport messages (WireGuard paper, section 5.4.6), and the outbox for
 * messages that nobody's packet is the reason of.
 *
 *   0 type 4 (4) │ 4 receiver index (4) │ 8 counter (8) │ 16 packet, zeros up to a multiple of 16 │ tag (16)
 */
import { type CipherSuite, TAG_BYTES } from './cipher-suite.js';
import { MESSAGE_TRANSPORT, PADDING_BYTES, TRANSPORT_HEADER_BYTES } from './constants.js';
import type { Endpoint } from './endpoint.js';
import type { Peer } from './peer.js';
import type { Session } from './session.js';

/** The longest UDP payload that IPv4 can carry, without our header and tag. */
export const MAX_PACKET_BYTES = 65_507 - TRANSPORT_HEADER_BYTES - TAG_BYTES;
/** Room for one whole datagram. */
export const SCRATCH_BYTES = 65_536;
const TWO_TO_32 = 0x1_0000_0000;

export interface Outgoing {
  readonly datagram: Uint8Array;
  readonly endpoint: Endpoint;
}

export class Outbound {
  /** In the order in which they are to be sent; whoever sends them empties it. */
  readonly outbox: Outgoing[] = [];
  /** Padding makes no packet longer than this. */
  mtu: number;
  readonly #memory: Uint8Array;
  readonly #view: DataView;
  readonly #scratch: number;
  readonly #saved = new Uint8Array(PADDING_BYTES);

  /** `scratch`: where SCRATCH_BYTES of the memory are for packets that are in no buffer of the caller's. */
  constructor(ciphers: CipherSuite, scratch: number, mtu: number) {
    const { memory } = ciphers;
    if (scratch < 0 || scratch + SCRATCH_BYTES > memory.length)
      throw new RangeError('scratch is outside of the memory');
    this.#memory = memory;
    this.#view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
    this.#scratch = scratch;
    this.mtu = mtu;
  }

  /**
   * Writes the transport message for `length` bytes at `from` to `to` and returns its length. `to` + 16 may be `from`; no other
   * overlap. What is behind the packet stays as it is, but up to 15 bytes there must be memory.
   */
  seal(session: Session<Peer>, from: number, length: number, to: number): number {
    const counter = session.sendCounter++;
    const low = counter >>> 0;
    const high = counter < TWO_TO_32 ? 0 : Math.floor(counter / TWO_TO_32);
    const view = this.#view;
    view.setUint32(to, MESSAGE_TRANSPORT, true);
    view.setInt32(to + 4, session.remoteIndex, true);
    view.setUint32(to + 8, low, true);
    view.setUint32(to + 12, high, true);
    const body = to + TRANSPORT_HEADER_BYTES;
    const padded = this.#paddedLength(length);
    if (padded === length) {
      session.sealer.seal(low, high, from, length, body);
    } else {
      const memory = this.#memory;
      const saved = this.#saved;
      const end = from + padded;
      for (let at = from + length; at < end; at++) {
        saved[end - at] = memory[at] as number;
        memory[at] = 0;
      }
      session.sealer.seal(low, high, from, padded, body);
      if (body !== from) for (let at = from + length; at < end; at++) memory[at] = saved[end - at] as number;
    }
    return TRANSPORT_HEADER_BYTES + padded + TAG_BYTES;
  }

  /** An empty packet, which says that we live and are where we are. */
  sendKeepalive(peer: Peer, session: Session<Peer>, nowMs: number): void {
    const bytes = this.seal(session, this.#scratch + TRANSPORT_HEADER_BYTES, 0, this.#scratch);
    this.send(peer, this.#memory.slice(this.#scratch, this.#scratch + bytes), nowMs);
  }

  /** What waited for this session. False when nothing did, or had waited too long. */
  sendStaged(peer: Peer, session: Session<Peer>, nowMs: number): boolean {
    let sent = 0;
    for (let packet = peer.staged.take(nowMs); packet; packet = peer.staged.take(nowMs)) {
      const from = this.#scratch + TRANSPORT_HEADER_BYTES;
      this.#memory.set(packet, from);
      const bytes = this.seal(session, from, packet.length, this.#scratch);
      this.send(peer, this.#memory.slice(this.#scratch, this.#scratch + bytes), nowMs);
      peer.timers.dataSent(nowMs);
      sent++;
    }
    return sent > 0;
  }

  /** Anything authentic. Dropped, as by a network, while nobody knows where the peer is. */
  send(peer: Peer, datagram: Uint8Array, nowMs: number): void {
    const endpoint = peer.endpoint;
    if (!endpoint) return;
    peer.timers.anySent(nowMs);
    peer.sentBytes += datagram.length;
    this.outbox.push({ datagram, endpoint });
  }

  #paddedLength(length: number): number {
    const padded = (length + PADDING_BYTES - 1) & ~(PADDING_BYTES - 1);
    if (padded <= this.mtu) return padded;
    return length > this.mtu ? length : this.mtu;
  }
}

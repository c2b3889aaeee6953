/**
 * Packets that wait for a session of their peer: the first ones of a conversation, so worth keeping, but never many. Bounded
 * for each peer and for the whole device in packets and bytes; the oldest goes first.
 */
import { REKEY_ATTEMPT_TIME_MS } from './constants.js';

/** As many as the Linux implementation keeps. */
const MAX_PACKETS = 128;
const MAX_BYTES = 256 * 1024;

/** What all peers of a device may keep together, so that thousands of dead peers cannot fill the memory. */
export class StagingRoom {
  readonly maxBytes: number;
  bytes = 0;

  constructor(maxBytes = 8 * 1024 * 1024) {
    this.maxBytes = maxBytes;
  }
}

export class StagedPackets {
  readonly #room: StagingRoom;
  #packets: { bytes: Uint8Array; sinceMs: number }[] = [];
  #bytes = 0;

  constructor(room: StagingRoom) {
    this.#room = room;
  }

  get length(): number {
    return this.#packets.length;
  }

  /** Keeps a copy. Returns how many packets were dropped for it; the packet itself, when all the room is others'. */
  push(memory: Uint8Array, from: number, length: number, nowMs: number): number {
    let dropped = 0;
    while (this.#isFull(length) && this.#packets.length > 0) {
      this.#shift();
      dropped++;
    }
    if (this.#isFull(length)) return dropped + 1;
    this.#packets.push({ bytes: memory.slice(from, from + length), sinceMs: nowMs });
    this.#count(length);
    return dropped;
  }

  /** The oldest that is not older than an attempt to get a session lasts; who has waited longer does not wait any more. */
  take(nowMs: number): Uint8Array | undefined {
    for (let packet = this.#shift(); packet; packet = this.#shift()) {
      if (nowMs - packet.sinceMs < REKEY_ATTEMPT_TIME_MS) return packet.bytes;
    }
    return undefined;
  }

  /** Returns how many there were. */
  clear(): number {
    const count = this.#packets.length;
    this.#count(-this.#bytes);
    this.#packets = [];
    return count;
  }

  #isFull(length: number): boolean {
    const { bytes, maxBytes } = this.#room;
    return this.#packets.length >= MAX_PACKETS || this.#bytes + length > MAX_BYTES || bytes + length > maxBytes;
  }

  #shift(): { bytes: Uint8Array; sinceMs: number } | undefined {
    const packet = this.#packets.shift();
    if (packet) this.#count(-packet.bytes.length);
    return packet;
  }

  #count(bytes: number): void {
    this.#bytes += bytes;
    this.#room.bytes += bytes;
  }
}

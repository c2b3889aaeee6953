/**
 * Token buckets: one for what the device does in all, and one for every source address, as in wireguard-go (20 handshakes a
 * second, 5 at once). A source is an IPv4 address or an IPv6 /64, because whoever has one address of a /64 has them all.
 */
import type { Endpoint } from './endpoint.js';

export const SOURCE_PER_SECOND = 20;
export const SOURCE_BURST = 5;
/** A few hundred kilobytes. */
export const MAX_SOURCES = 4096;
/** After that long an untouched bucket is full again, and as good as none. */
const REFILLED_AFTER_MS = (SOURCE_BURST / SOURCE_PER_SECOND) * 1000;

export class TokenBucket {
  readonly capacity: number;
  readonly #perMs: number;
  #tokens: number;
  #sinceMs: number;

  constructor(perSecond: number, capacity: number, nowMs = Number.NEGATIVE_INFINITY) {
    this.capacity = capacity;
    this.#perMs = perSecond / 1000;
    this.#tokens = capacity;
    this.#sinceMs = nowMs;
  }

  /** Takes one token if more than `reserve` are left. */
  take(nowMs: number, reserve = 0): boolean {
    if (this.tokens(nowMs) < reserve + 1) return false;
    this.#tokens--;
    return true;
  }

  tokens(nowMs: number): number {
    if (nowMs > this.#sinceMs) {
      this.#tokens = Math.min(this.capacity, this.#tokens + (nowMs - this.#sinceMs) * this.#perMs);
      this.#sinceMs = nowMs;
    }
    return this.#tokens;
  }

  get sinceMs(): number {
    return this.#sinceMs;
  }
}

/** At most MAX_SOURCES buckets. A source that finds no room is refused, as is one whose bucket is empty. */
export class SourceLimiter {
  /** The one used longest ago comes first. */
  readonly #buckets = new Map<number | string, TokenBucket>();

  get size(): number {
    return this.#buckets.size;
  }

  allow(source: Endpoint, nowMs: number): boolean {
    const key = keyOf(source);
    let bucket = this.#buckets.get(key);
    if (bucket) this.#buckets.delete(key);
    else if (!this.#hasRoom(nowMs)) return false;
    bucket ??= new TokenBucket(SOURCE_PER_SECOND, SOURCE_BURST, nowMs);
    this.#buckets.set(key, bucket);
    return bucket.take(nowMs);
  }

  /** Removes what is full again, a few at a time: no more than two for every one that comes. */
  #hasRoom(nowMs: number): boolean {
    let removed = 0;
    for (const [key, bucket] of this.#buckets) {
      if (removed === 2 || nowMs - bucket.sinceMs < REFILLED_AFTER_MS) break;
      this.#buckets.delete(key);
      removed++;
    }
    return this.#buckets.size < MAX_SOURCES;
  }
}

/** Of a sockaddr_in6: the last four bytes of an IPv4 address as a number, the first eight of an IPv6 address as text. */
function keyOf({ sockaddr, isIpv4 }: Endpoint): number | string {
  const bytes = Buffer.from(sockaddr.buffer, sockaddr.byteOffset, sockaddr.byteLength);
  return isIpv4 ? bytes.readInt32BE(20) : bytes.toString('latin1', 8, 16);
}

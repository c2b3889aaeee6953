/**
 * How much of the machine handshakes may cost (WireGuard paper, section 5.3). Whoever knows our public key can send initiations
 * with a right mac1 from made-up addresses, as fast as the line takes them; packets of established sessions must not wait for
 * that. Three budgets, each for one step of the work, in the order of the steps:
 *
 *   reading     mac1 is compared; about a microsecond
 *   cookies     under load: the answer to those without mac2
 *   handshakes  Diffie-Hellman and what follows
 *
 * Of each budget a part is kept for sources that are the endpoint of a peer, so that a flood from elsewhere cannot keep an
 * established peer from renewing its session.
 */
import type { Endpoint } from './endpoint.js';
import { SourceLimiter, TokenBucket } from './rate-limit.js';

// On one core of 2024 some 1, 12 and 80 µs each, and 440 more for the answer to a true peer: together under a third of it. A
// peer from a place not known before, or one whose place is known to the attacker as well, has to get one of the cookies: of
// 25,000 strangers a second a tenth has one.
const READING = { perSecond: 50_000, burst: 5_000, kept: 1_000 };
const COOKIES = { perSecond: 2_500, burst: 200, kept: 50 };
const HANDSHAKES = { perSecond: 400, burst: 120, kept: 20 };
/** With fewer handshakes than this left, strangers must show that they receive at their address. */
const LOAD_BELOW = 60;
/** It is wanted for this long after it was last necessary, as in wireguard-go. */
const LOAD_LASTS_MS = 1000;

export class Admission {
  readonly known: KnownSources;
  readonly #reading = new TokenBucket(READING.perSecond, READING.burst);
  readonly #cookies = new TokenBucket(COOKIES.perSecond, COOKIES.burst);
  readonly #handshakes = new TokenBucket(HANDSHAKES.perSecond, HANDSHAKES.burst);
  readonly #sources = new SourceLimiter();
  #loadUntilMs = Number.NEGATIVE_INFINITY;

  /** `seed`: 32 random bits. */
  constructor(seed: number) {
    this.known = new KnownSources(seed);
  }

  /** May the macs of a message from there be checked? */
  mayRead(source: Endpoint, nowMs: number): boolean {
    return this.#reading.take(nowMs, this.known.has(source) ? 0 : READING.kept);
  }

  /** Is mac2 wanted? */
  isUnderLoad(nowMs: number): boolean {
    if (this.#handshakes.tokens(nowMs) < LOAD_BELOW) this.#loadUntilMs = nowMs + LOAD_LASTS_MS;
    return nowMs < this.#loadUntilMs;
  }

  maySendCookie(source: Endpoint, nowMs: number): boolean {
    return this.#cookies.take(nowMs, this.known.has(source) ? 0 : COOKIES.kept);
  }

  /** Of a source that has shown mac2 under load: may it have one more handshake? */
  maySource(source: Endpoint, nowMs: number): boolean {
    return this.#sources.allow(source, nowMs);
  }

  mayShakeHands(source: Endpoint, nowMs: number): boolean {
    return this.#handshakes.take(nowMs, this.known.has(source) ? 0 : HANDSHAKES.kept);
  }
}

const SLOTS = 1 << 16;

/**
 * The endpoints of peers, as counts by a seeded hash: fixed memory and a few nanoseconds, at the price that a stranger is taken
 * for a peer with a probability of peers / 65536, which only gives him a share of what is kept for peers.
 */
export class KnownSources {
  readonly #seed: number;
  readonly #counts = new Uint16Array(SLOTS);

  constructor(seed: number) {
    this.#seed = seed;
  }

  add(endpoint: Endpoint): void {
    const slot = this.#slotOf(endpoint);
    const count = this.#counts[slot] as number;
    // A count that has reached its limit stays: it can then only be too high.
    if (count < 0xffff) this.#counts[slot] = count + 1;
  }

  delete(endpoint: Endpoint): void {
    const slot = this.#slotOf(endpoint);
    const count = this.#counts[slot] as number;
    if (count > 0 && count < 0xffff) this.#counts[slot] = count - 1;
  }

  has(endpoint: Endpoint): boolean {
    return this.#counts[this.#slotOf(endpoint)] !== 0;
  }

  /** FNV-1a over port and address, from a start that nobody else knows, and mixed so that the low bits depend on all. */
  #slotOf({ sockaddr }: Endpoint): number {
    let hash = this.#seed ^ 0x811c9dc5;
    for (let at = 2; at < 24; at++) hash = Math.imul(hash ^ (sockaddr[at] as number), 0x01000193);
    hash = Math.imul(hash ^ (hash >>> 15), 0x85ebca6b);
    return (hash ^ (hash >>> 16)) & (SLOTS - 1);
  }
}

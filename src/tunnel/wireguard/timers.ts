/**
 * The timers of one peer (WireGuard paper, section 6; names and moments as in the implementations, timers.c). They say when
 * something is due; what is then done is the device's business. Time comes in as `nowMs`.
 *
 *   retransmit   an initiation had no answer for REKEY_TIMEOUT: another one, until REKEY_ATTEMPT_TIME is over
 *   keepalive    we received and had nothing to say for KEEPALIVE_TIMEOUT: an empty packet, so that the peer knows we live
 *   silence      we sent and heard nothing for KEEPALIVE_TIMEOUT + REKEY_TIMEOUT: a new handshake
 *   zeroKeys     no new session for 3 × REJECT_AFTER_TIME: the keys go
 *   persistent   nothing came or went for as long as the owner says: an empty packet, for the NAT in between
 */
import {
  KEEPALIVE_TIMEOUT_MS,
  REJECT_AFTER_TIME_MS,
  REKEY_ATTEMPT_TIME_MS,
  REKEY_TIMEOUT_JITTER_MS,
  REKEY_TIMEOUT_MS,
} from './constants.js';
import type { Schedule, Timed } from './schedule.js';

const NEVER = Number.POSITIVE_INFINITY;

/** Spreads the retries of peers that began at the same moment (section 6.1). Xorshift: it is no secret, and asked often. */
export class Jitter {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 1;
  }

  /** From 0 to REKEY_TIMEOUT_JITTER_MS. */
  next(): number {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state;
    return (state >>> 0) % (REKEY_TIMEOUT_JITTER_MS + 1);
  }
}

export class PeerTimers<Owner = unknown> implements Timed {
  readonly owner: Owner;
  /** When each is due; Infinity: not set. */
  retransmitMs = NEVER;
  keepaliveMs = NEVER;
  silenceMs = NEVER;
  zeroKeysMs = NEVER;
  persistentMs = NEVER;
  /** 0: off. */
  persistentIntervalMs = 0;
  /** For the schedule. */
  keyMs = NEVER;
  place = -1;
  /** While `keepalive` runs more was received: when it is over it runs again. */
  #keepaliveAgain = false;
  /** When what made us want a session was asked for last. */
  #attemptSinceMs = Number.NEGATIVE_INFINITY;
  readonly #schedule: Schedule<PeerTimers<Owner>>;
  readonly #jitter: Jitter;

  constructor(owner: Owner, schedule: Schedule<PeerTimers<Owner>>, jitter: Jitter) {
    this.owner = owner;
    this.#schedule = schedule;
    this.#jitter = jitter;
  }

  get dueMs(): number {
    let due = this.retransmitMs;
    if (this.keepaliveMs < due) due = this.keepaliveMs;
    if (this.silenceMs < due) due = this.silenceMs;
    if (this.zeroKeysMs < due) due = this.zeroKeysMs;
    return this.persistentMs < due ? this.persistentMs : due;
  }

  /** A packet that is not empty was sent. */
  dataSent(nowMs: number): void {
    this.anySent(nowMs);
    if (this.silenceMs !== NEVER) return;
    this.silenceMs = nowMs + KEEPALIVE_TIMEOUT_MS + REKEY_TIMEOUT_MS + this.#jitter.next();
    this.#schedule.set(this, this.silenceMs);
  }

  /** A packet that is not empty was received. */
  dataReceived(nowMs: number): void {
    if (this.keepaliveMs !== NEVER) {
      this.#keepaliveAgain = true;
      return;
    }
    this.keepaliveMs = nowMs + KEEPALIVE_TIMEOUT_MS;
    this.#schedule.set(this, this.keepaliveMs);
  }

  /** Something authentic was sent: data, a keepalive, a handshake message. */
  anySent(nowMs: number): void {
    this.keepaliveMs = NEVER;
    if (this.persistentIntervalMs !== 0) this.#restartPersistent(nowMs);
  }

  /** Something authentic was received: data, a keepalive, a handshake message. */
  anyReceived(nowMs: number): void {
    this.silenceMs = NEVER;
    if (this.persistentIntervalMs !== 0) this.#restartPersistent(nowMs);
  }

  /** The keepalive went out; what was received meanwhile is answered by another. */
  keepaliveSent(nowMs: number): void {
    if (!this.#keepaliveAgain) return;
    this.#keepaliveAgain = false;
    this.dataReceived(nowMs);
  }

  /** A session is wanted: from now on REKEY_ATTEMPT_TIME is counted. */
  sessionWanted(nowMs: number): void {
    this.#attemptSinceMs = nowMs;
  }

  mayRetransmit(nowMs: number): boolean {
    return nowMs - this.#attemptSinceMs < REKEY_ATTEMPT_TIME_MS;
  }

  /** An initiation goes out, or is to wait because one went out at `nowMs`: the next comes after REKEY_TIMEOUT. */
  handshakeInitiated(nowMs: number): void {
    this.retransmitMs = nowMs + REKEY_TIMEOUT_MS + this.#jitter.next();
    this.#schedule.set(this, this.retransmitMs);
  }

  /** Both sides have the new keys, and we know it. */
  handshakeComplete(): void {
    this.retransmitMs = NEVER;
  }

  /** There is a session with new keys. */
  sessionDerived(nowMs: number): void {
    this.zeroKeysMs = nowMs + 3 * REJECT_AFTER_TIME_MS;
    this.#schedule.set(this, this.zeroKeysMs);
  }

  gaveUp(): void {
    this.keepaliveMs = NEVER;
    this.#keepaliveAgain = false;
  }

  /** There is no session any more, and nothing to retransmit. Persistent keepalives go on. */
  sessionsEnded(): void {
    this.gaveUp();
    this.silenceMs = NEVER;
    this.zeroKeysMs = NEVER;
  }

  /** 0 turns it off. The first is due at once, as a sign of life; after that a change counts from now. */
  setPersistent(seconds: number, nowMs: number): void {
    const before = this.persistentIntervalMs;
    this.persistentIntervalMs = seconds * 1000;
    if (this.persistentIntervalMs === before) return;
    this.persistentMs = NEVER;
    if (before === 0) this.persistentNow(nowMs);
    else if (seconds !== 0) this.#restartPersistent(nowMs);
  }

  persistentNow(nowMs: number): void {
    this.persistentMs = nowMs;
    this.#schedule.set(this, nowMs);
  }

  /** Nothing is due ever again. */
  end(): void {
    this.#schedule.remove(this);
  }

  #restartPersistent(nowMs: number): void {
    this.persistentMs = nowMs + this.persistentIntervalMs;
    this.#schedule.set(this, this.persistentMs);
  }
}

/**
 * One session: a pair of keys that a handshake has made, the counter of what was sent with them and the window of what was
 * received (WireGuard paper, sections 5.4.5 and 5.4.6). It belongs to a peer, which has up to three (peer.ts).
 */
import type { CipherSuite, DataCipher } from './cipher-suite.js';
import { REJECT_AFTER_TIME_MS, REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME_MS } from './constants.js';
import { type TransportKeys, wipe } from './noise.js';
import { ReplayWindow } from './replay-window.js';

/**
 * The send counter is a double, so it ends before REJECT_AFTER_MESSAGES, and a new session is wanted early enough before.
 * Neither can be reached in the 180 s a session may be sent with.
 */
export const LAST_SEND_COUNTER = Number.MAX_SAFE_INTEGER - 1;
export const REKEY_AFTER_COUNTER = Math.min(REKEY_AFTER_MESSAGES, 2 ** 52);

/** Where a session comes from: ours is the initiation, or the response. */
export type Role = 'initiator' | 'responder';

export class Session<Owner = unknown> {
  readonly owner: Owner;
  /** What the peer writes into its datagrams and we into ours, as signed 32-bit numbers. */
  readonly localIndex: number;
  readonly remoteIndex: number;
  readonly isInitiator: boolean;
  readonly createdMs: number;
  /** From then on neither side sends with it or takes what was sent with it. */
  readonly rejectAtMs: number;
  /** From then on whoever sends asks for a new one; only the initiator, so that not both do. */
  readonly rekeyAtMs: number;
  readonly sealer: DataCipher;
  readonly opener: DataCipher;
  readonly replay = new ReplayWindow();
  /** Of the next packet. */
  sendCounter = 0;

  /** Zeroes `keys`: the ciphers have copies. */
  constructor(
    owner: Owner,
    ciphers: CipherSuite,
    keys: TransportKeys,
    role: Role,
    localIndex: number,
    remoteIndex: number,
    nowMs: number,
  ) {
    this.owner = owner;
    this.localIndex = localIndex | 0;
    this.remoteIndex = remoteIndex | 0;
    this.isInitiator = role === 'initiator';
    this.createdMs = nowMs;
    this.rejectAtMs = nowMs + REJECT_AFTER_TIME_MS;
    this.rekeyAtMs = this.isInitiator ? nowMs + REKEY_AFTER_TIME_MS : Number.POSITIVE_INFINITY;
    this.sealer = ciphers.forKey(keys.sending, 'seal');
    this.opener = ciphers.forKey(keys.receiving, 'open');
    wipe(keys);
  }

  canSend(nowMs: number): boolean {
    return nowMs < this.rejectAtMs && this.sendCounter <= LAST_SEND_COUNTER;
  }

  /** Is it time for the next session? Asked by the sender after every packet. */
  isWorn(nowMs: number): boolean {
    return nowMs >= this.rekeyAtMs || this.sendCounter > REKEY_AFTER_COUNTER;
  }

  destroy(): void {
    this.sealer.destroy();
    this.opener.destroy();
  }
}

/**
 * A peer: its keys, where it is, and its sessions (WireGuard paper, sections 6.2 and 6.3). Three at most:
 *
 *   current   what we send with
 *   previous  the one before; packets that were on their way when the keys changed still come with it
 *   next      made as responder; becomes current when the first packet comes with it, because only then it is sure that the
 *             initiator has it too
 *
 * What leaves one of the three places is destroyed, keys and all.
 */
import type { KnownSources } from './admission.js';
import { KEY_BYTES, TIMESTAMP_BYTES } from './constants.js';
import { MacSender } from './cookie.js';
import type { Endpoint } from './endpoint.js';
import type { IndexTable } from './index-table.js';
import { type InitiatorState, wipe } from './noise.js';
import type { Schedule } from './schedule.js';
import type { Session } from './session.js';
import { StagedPackets, type StagingRoom } from './staged-packets.js';
import { TimestampSource } from './tai64n.js';
import { type Jitter, PeerTimers } from './timers.js';

const NEVER_YET = Number.NEGATIVE_INFINITY;

/** What the peers of a device share. */
export interface PeerSurroundings {
  readonly indexes: IndexTable<Peer>;
  readonly schedule: Schedule<PeerTimers<Peer>>;
  readonly jitter: Jitter;
  readonly stagingRoom: StagingRoom;
  readonly known: KnownSources;
}

export class Peer {
  readonly publicKey: Uint8Array;
  readonly timers: PeerTimers<Peer>;
  readonly staged: StagedPackets;
  current: Session<Peer> | undefined = undefined;
  previous: Session<Peer> | undefined = undefined;
  next: Session<Peer> | undefined = undefined;
  receivedBytes = 0;
  sentBytes = 0;
  /** Wall clock; 0: never. */
  lastHandshakeMs = 0;

  /** All zero: none. */
  readonly presharedKey = new Uint8Array(KEY_BYTES);
  /** DH of our static key and the peer's; undefined while we have no key. */
  staticSecret: Uint8Array | undefined = undefined;
  readonly macs: MacSender;
  readonly timestamps = new TimestampSource();
  /** Ours, that waits for its response. */
  initiation: InitiatorState | undefined = undefined;
  /** When an initiation or a response was last sent. */
  lastSentHandshakeMs = NEVER_YET;
  /** Of the peer's last initiation. */
  lastTimestamp = new Uint8Array(TIMESTAMP_BYTES);
  lastInitiationMs = NEVER_YET;
  isRemoved = false;

  #endpoint: Endpoint | undefined;
  readonly #surroundings: PeerSurroundings;

  constructor(publicKey: Uint8Array, surroundings: PeerSurroundings) {
    this.publicKey = publicKey.slice();
    this.#surroundings = surroundings;
    this.timers = new PeerTimers<Peer>(this, surroundings.schedule, surroundings.jitter);
    this.staged = new StagedPackets(surroundings.stagingRoom);
    this.macs = new MacSender(publicKey);
  }

  get endpoint(): Endpoint | undefined {
    return this.#endpoint;
  }

  /** Something authentic came from there: answers go there (section 2.1). Also how an endpoint is configured. */
  roam(endpoint: Endpoint): void {
    if (this.isRemoved || this.#endpoint?.equals(endpoint)) return;
    if (this.#endpoint) this.#surroundings.known.delete(this.#endpoint);
    this.#surroundings.known.add(endpoint);
    this.#endpoint = endpoint;
  }

  /** A session of a handshake that is over for us: both sides have the keys when we began it, else only we do for sure. */
  adopt(session: Session<Peer>): void {
    this.#surroundings.indexes.addSession(session);
    const { previous, current, next } = this;
    if (session.isInitiator) {
      // A next that was never confirmed is newer than current: the peer may send with it.
      this.previous = next ?? current;
      if (next) this.#drop(current);
      this.#drop(previous);
      this.current = session;
      this.next = undefined;
    } else {
      this.#drop(next);
      this.#drop(previous);
      this.previous = undefined;
      this.next = session;
    }
    this.timers.sessionDerived(session.createdMs);
  }

  /** A packet came with this session. True when that is what `next` waited for. */
  confirm(session: Session<Peer>): boolean {
    if (session !== this.next) return false;
    this.#drop(this.previous);
    this.previous = this.current;
    this.current = session;
    this.next = undefined;
    return true;
  }

  /** Both sides have the new keys, and we know it. */
  handshakeDone(wallClockMs: number): void {
    this.dropInitiation();
    this.timers.handshakeComplete();
    this.lastHandshakeMs = wallClockMs;
  }

  dropInitiation(): void {
    if (!this.initiation) return;
    this.#surroundings.indexes.removeInitiation(this.initiation.localIndex | 0);
    wipe(this.initiation);
    this.initiation = undefined;
  }

  dropSessions(): void {
    for (const session of [this.previous, this.current, this.next]) this.#drop(session);
    this.previous = undefined;
    this.current = undefined;
    this.next = undefined;
    this.timers.sessionsEnded();
  }

  /** Our key changes: nothing that was made with the old one is of use. `staticSecret`: with the new one. */
  setStaticSecret(staticSecret: Uint8Array | undefined): void {
    this.staticSecret?.fill(0);
    this.staticSecret = staticSecret;
    this.dropInitiation();
    this.dropSessions();
    this.timers.handshakeComplete();
    this.lastSentHandshakeMs = NEVER_YET;
  }

  /** The peer is no longer one. Whoever still has the object gets nothing sent with it. */
  remove(): void {
    this.setStaticSecret(undefined);
    this.timers.end();
    this.staged.clear();
    this.presharedKey.fill(0);
    this.macs.wipe();
    if (this.#endpoint) this.#surroundings.known.delete(this.#endpoint);
    this.#endpoint = undefined;
    this.isRemoved = true;
  }

  #drop(session: Session<Peer> | undefined): void {
    if (!session) return;
    this.#surroundings.indexes.removeSession(session);
    session.destroy();
  }
}

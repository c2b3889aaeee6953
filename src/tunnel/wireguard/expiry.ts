/** What is done when a peer's timer has run out (WireGuard paper, sections 6.2 to 6.5; timers.ts says which there are). */
import type { Counters } from './counters.js';
import type { Handshakes } from './handshakes.js';
import type { Outbound } from './outbound.js';
import type { Peer } from './peer.js';
import type { Schedule } from './schedule.js';
import type { PeerTimers } from './timers.js';

const NEVER = Number.POSITIVE_INFINITY;
/** Not more at once, so that packets need not wait for thousands of peers. What is left stays due. */
const MAX_PEERS_AT_ONCE = 32;

export class Expiry {
  readonly #schedule: Schedule<PeerTimers<Peer>>;
  readonly #handshakes: Handshakes;
  readonly #outbound: Outbound;
  readonly #counters: Counters;

  constructor(schedule: Schedule<PeerTimers<Peer>>, handshakes: Handshakes, outbound: Outbound, counters: Counters) {
    this.#schedule = schedule;
    this.#handshakes = handshakes;
    this.#outbound = outbound;
    this.#counters = counters;
  }

  tick(nowMs: number): void {
    for (let count = 0; count < MAX_PEERS_AT_ONCE; count++) {
      const timers = this.#schedule.firstDue(nowMs);
      if (!timers) return;
      this.#expire(timers.owner, nowMs);
    }
  }

  /** Each timer that is due is stopped before it acts, because acting may set it again. */
  #expire(peer: Peer, nowMs: number): void {
    const { timers } = peer;
    if (timers.zeroKeysMs <= nowMs) peer.dropSessions();
    if (timers.retransmitMs <= nowMs) {
      timers.retransmitMs = NEVER;
      this.#retransmit(peer, nowMs);
    }
    if (timers.silenceMs <= nowMs) {
      timers.silenceMs = NEVER;
      this.#handshakes.begin(peer, nowMs);
    }
    if (timers.keepaliveMs <= nowMs) {
      timers.keepaliveMs = NEVER;
      this.#keepalive(peer, nowMs);
      timers.keepaliveSent(nowMs);
    }
    if (timers.persistentMs <= nowMs) {
      timers.persistentMs = NEVER;
      this.#keepalive(peer, nowMs);
    }
  }

  #retransmit(peer: Peer, nowMs: number): void {
    if (peer.timers.mayRetransmit(nowMs)) {
      this.#handshakes.initiate(peer, nowMs);
      return;
    }
    peer.dropInitiation();
    peer.timers.gaveUp();
    this.#counters.stagedDropped += peer.staged.clear();
  }

  #keepalive(peer: Peer, nowMs: number): void {
    const session = peer.current;
    if (!session?.canSend(nowMs)) {
      this.#handshakes.begin(peer, nowMs);
      return;
    }
    this.#outbound.sendKeepalive(peer, session, nowMs);
    if (session.isWorn(nowMs)) this.#handshakes.begin(peer, nowMs);
  }
}

/**
 * Handshake messages in and out (WireGuard paper, sections 5.4.2 to 5.4.7 and 6.4): when an initiation may be sent, and what is
 * checked of one that comes, cheapest first. What a message is made of is noise.ts and cookie.ts.
 *
 * Our own initiation and the answer to the peer's do not share their state. When both sides begin at the same moment, both
 * handshakes come to an end, and either session will do.
 */
import type { Admission } from './admission.js';
import type { CipherSuite } from './cipher-suite.js';
import { MESSAGE_COOKIE_REPLY, MESSAGE_INITIATION, MESSAGE_RESPONSE, REKEY_TIMEOUT_MS } from './constants.js';
import { MacChecker } from './cookie.js';
import type { Counters } from './counters.js';
import type { Endpoint } from './endpoint.js';
import type { IndexTable } from './index-table.js';
import { messageType, receiverIndex } from './messages.js';
import { consumeInitiation, consumeResponse, createInitiation, createResponse, type Identity, wipe } from './noise.js';
import type { Outbound } from './outbound.js';
import type { Peer } from './peer.js';
import { Session } from './session.js';
import { isLater } from './tai64n.js';

/** A peer's initiations are taken no faster than this: 50 a second. */
const HANDSHAKE_INITIATION_RATE_MS = 20;

export interface HandshakeSurroundings {
  readonly ciphers: CipherSuite;
  readonly indexes: IndexTable<Peer>;
  readonly outbound: Outbound;
  readonly counters: Counters;
  readonly admission: Admission;
  readonly random: (bytes: number) => Uint8Array;
  readonly wallClockMs: () => number;
  readonly peerOf: (publicKey: Uint8Array) => Peer | undefined;
}

export class Handshakes {
  #identity: Identity | undefined;
  #macs: MacChecker | undefined;
  readonly #surroundings: HandshakeSurroundings;

  constructor(surroundings: HandshakeSurroundings) {
    this.#surroundings = surroundings;
  }

  get identity(): Identity | undefined {
    return this.#identity;
  }

  /** Zeroes the one before. */
  setIdentity(identity: Identity | undefined): void {
    this.#macs?.wipe();
    this.#identity?.privateKey.fill(0);
    this.#identity = identity;
    this.#macs = identity && new MacChecker(identity.publicKey, this.#surroundings.random);
  }

  /**
   * A new session is wanted. One initiation in REKEY_TIMEOUT is all there may be, counting responses: when it is too early, it is
   * sent when it no longer is, unless there is a session by then.
   */
  begin(peer: Peer, nowMs: number): void {
    peer.timers.sessionWanted(nowMs);
    if (nowMs - peer.lastSentHandshakeMs >= REKEY_TIMEOUT_MS) this.initiate(peer, nowMs);
    else if (peer.timers.retransmitMs === Number.POSITIVE_INFINITY) {
      peer.timers.handshakeInitiated(peer.lastSentHandshakeMs);
    }
  }

  /** Sends an initiation now, in place of the one before. Does nothing without a key of ours or an endpoint of the peer's. */
  initiate(peer: Peer, nowMs: number): void {
    const { indexes, outbound, counters, wallClockMs } = this.#surroundings;
    peer.dropInitiation();
    const identity = this.#identity;
    const { staticSecret, publicKey: peerPublicKey } = peer;
    if (!identity || !staticSecret || !peer.endpoint) return;
    const localIndex = indexes.fresh();
    const timestamp = peer.timestamps.next(wallClockMs());
    const { message, state } = createInitiation({
      identity,
      peerPublicKey,
      staticSecret,
      localIndex: localIndex >>> 0,
      timestamp,
    });
    peer.macs.addMacs(message, nowMs);
    peer.initiation = state;
    indexes.addInitiation(localIndex, peer);
    peer.lastSentHandshakeMs = nowMs;
    counters.initiationsSent++;
    outbound.send(peer, message, nowMs);
    peer.timers.handshakeInitiated(nowMs);
  }

  /** A message of types 1 to 3, from anybody. Never throws. */
  handle(message: Uint8Array, source: Endpoint, nowMs: number): void {
    switch (messageType(message, 0, message.length)) {
      case MESSAGE_INITIATION:
        this.#initiation(message, source, nowMs);
        return;
      case MESSAGE_RESPONSE:
        this.#response(message, source, nowMs);
        return;
      case MESSAGE_COOKIE_REPLY:
        this.#cookieReply(message, source, nowMs);
        return;
      default:
        this.#surroundings.counters.malformed++;
    }
  }

  #initiation(message: Uint8Array, source: Endpoint, nowMs: number): void {
    const { counters, peerOf } = this.#surroundings;
    const identity = this.#identity;
    if (!identity || !this.#isAdmitted(message, source, nowMs)) return;
    let peer: Peer | undefined;
    const consumed = consumeInitiation(identity, message, (publicKey) => {
      peer = peerOf(publicKey);
      return peer?.staticSecret;
    });
    if (!consumed || !peer) {
      counters.badInitiation++;
    } else if (!isLater(consumed.timestamp, peer.lastTimestamp)) {
      counters.replayedInitiation++;
      wipe(consumed.state);
    } else if (nowMs - peer.lastInitiationMs < HANDSHAKE_INITIATION_RATE_MS) {
      counters.hastyInitiation++;
      wipe(consumed.state);
    } else {
      peer.lastTimestamp.set(consumed.timestamp);
      peer.lastInitiationMs = nowMs;
      this.#received(peer, message, source, nowMs);
      this.#respond(peer, consumed.state, nowMs);
    }
  }

  #respond(peer: Peer, state: Parameters<typeof createResponse>[0], nowMs: number): void {
    const { ciphers, indexes, outbound, counters } = this.#surroundings;
    const index = indexes.fresh();
    const { message, keys } = createResponse(state, peer.presharedKey, index >>> 0);
    peer.adopt(new Session(peer, ciphers, keys, 'responder', index, state.peerIndex, nowMs));
    wipe(state);
    peer.macs.addMacs(message, nowMs);
    peer.lastSentHandshakeMs = nowMs;
    counters.responsesSent++;
    outbound.send(peer, message, nowMs);
  }

  #response(message: Uint8Array, source: Endpoint, nowMs: number): void {
    const { ciphers, indexes, outbound, counters, admission, wallClockMs } = this.#surroundings;
    const identity = this.#identity;
    // Whoever is not on the path does not know the index, so that no flood gets further, and mac2 is not wanted.
    const peer = indexes.initiatorAt(receiverIndex(message) | 0);
    if (!identity || !peer?.initiation) {
      counters.badResponse++;
      return;
    }
    if (!this.#hasMac1(message, source, nowMs)) return;
    if (!admission.mayShakeHands(source, nowMs)) {
      counters.overload++;
      return;
    }
    const consumed = consumeResponse(peer.initiation, identity, peer.presharedKey, message);
    if (!consumed) {
      counters.badResponse++;
      return;
    }
    const { localIndex } = peer.initiation;
    this.#received(peer, message, source, nowMs);
    peer.handshakeDone(wallClockMs());
    counters.handshakes++;
    const session = new Session(peer, ciphers, consumed.keys, 'initiator', localIndex, consumed.remoteIndex, nowMs);
    peer.adopt(session);
    // The responder may send only when it has heard from us with the new keys.
    if (!outbound.sendStaged(peer, session, nowMs)) outbound.sendKeepalive(peer, session, nowMs);
  }

  /** To our last initiation, or to our last response. It changes what the next one looks like, not when it is sent. */
  #cookieReply(message: Uint8Array, source: Endpoint, nowMs: number): void {
    const { indexes, counters, admission } = this.#surroundings;
    const index = receiverIndex(message) | 0;
    const peer = indexes.initiatorAt(index) ?? indexes.sessionAt(index)?.owner;
    if (!peer) counters.badCookie++;
    else if (!admission.maySendCookie(source, nowMs)) counters.overload++;
    else if (!peer.macs.takeCookieReply(message, nowMs)) counters.badCookie++;
  }

  /** Everything that is to be right and in measure before the first DH. Answers with a cookie where that is what is missing. */
  #isAdmitted(message: Uint8Array, source: Endpoint, nowMs: number): boolean {
    const { counters, admission, outbound } = this.#surroundings;
    if (!this.#hasMac1(message, source, nowMs)) return false;
    if (admission.isUnderLoad(nowMs)) {
      if (!this.#macs?.hasMac2(message, source.sockaddr, nowMs)) {
        const reply =
          admission.maySendCookie(source, nowMs) && this.#macs?.cookieReply(message, source.sockaddr, nowMs);
        if (reply) outbound.outbox.push({ datagram: reply, endpoint: source });
        counters[reply ? 'cookiesSent' : 'overload']++;
        return false;
      }
      if (!admission.maySource(source, nowMs)) {
        counters.overload++;
        return false;
      }
    }
    if (admission.mayShakeHands(source, nowMs)) return true;
    counters.overload++;
    return false;
  }

  #hasMac1(message: Uint8Array, source: Endpoint, nowMs: number): boolean {
    const { counters, admission } = this.#surroundings;
    if (!admission.mayRead(source, nowMs)) {
      counters.overload++;
      return false;
    }
    if (this.#macs?.hasMac1(message)) return true;
    counters.badMac++;
    return false;
  }

  /** The message is the peer's. */
  #received(peer: Peer, message: Uint8Array, source: Endpoint, nowMs: number): void {
    peer.roam(source);
    peer.receivedBytes += message.length;
    peer.timers.anyReceived(nowMs);
  }
}

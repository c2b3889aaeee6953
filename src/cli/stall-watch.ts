/**
 * Tells from samples of a tunnel's status which peers do not answer. WireGuard repeats an initiation every 5 s, and a peer that
 * lives answers data within 10 s, with a keepalive if it has nothing else. So a peer to which something was sent in each of three
 * intervals of 6 s, and from which nothing came in any of them, does not hear us, or we do not hear it.
 *
 * That something comes is not enough: a peer that does not hear us begins handshakes, or goes on sending for as long as its session
 * lasts. So what counts then is whether there is a session, which takes both directions: without a completed handshake in
 * REJECT_AFTER_TIME (180 s) there is none. Pure.
 */
import type { PeerStatus } from '../tunnel/wireguard/device-config.js';

export const SAMPLE_MS = 6_000;
const INTERVALS = 3;
/** Counted and not read from the wall clock, which may be set. */
const SESSION_INTERVALS = 180_000 / SAMPLE_MS;

type Sample = Pick<PeerStatus, 'publicKey' | 'sentBytes' | 'receivedBytes' | 'lastHandshakeMs'>;

interface Memory {
  /** The counters as they were. */
  sent: number;
  received: number;
  handshakeMs: number;
  /** For how many intervals there has been no other handshake, and for how many the peer has not answered. */
  old: number;
  silent: number;
}

export class StallWatch {
  /** By public key in base64. */
  #last = new Map<string, Memory>();

  /** To be called every SAMPLE_MS. The public keys of those that have just been silent for long enough; their count begins anew. */
  sample(peers: readonly Sample[]): Set<string> {
    const stalled = new Set<string>();
    const next = new Map<string, Memory>();
    for (const { publicKey, sentBytes: sent, receivedBytes: received, lastHandshakeMs: handshakeMs } of peers) {
      const key = Buffer.from(publicKey).toString('base64');
      const last = this.#last.get(key);
      const old = last !== undefined && last.handshakeMs === handshakeMs ? last.old + 1 : 0;
      const hasSession = handshakeMs !== 0 && old <= SESSION_INTERVALS;
      const isSilent = last !== undefined && sent > last.sent && (received === last.received || !hasSession);
      let silent = isSilent ? last.silent + 1 : 0;
      if (silent === INTERVALS) {
        stalled.add(key);
        silent = 0;
      }
      next.set(key, { sent, received, handshakeMs, old, silent });
    }
    this.#last = next;
    return stalled;
  }
}

/**
 * Tells from samples of a tunnel's status which peers do not answer. WireGuard repeats an initiation every 5 s, and a peer that
 * lives answers data within 10 s, with a keepalive if it has nothing else. So a peer to which something was sent in each of three
 * intervals of 6 s, and from which nothing came in any of them, does not hear us, or we do not hear it. Pure.
 */
import type { PeerStatus } from '../tunnel/wireguard/device-config.js';

export const SAMPLE_MS = 6_000;
const INTERVALS = 3;

type Sample = Pick<PeerStatus, 'publicKey' | 'sentBytes' | 'receivedBytes'>;

/** The counters as they were, and for how many intervals the peer has been silent. */
interface Memory {
  sent: number;
  received: number;
  silent: number;
}

export class StallWatch {
  /** By public key in base64. */
  #last = new Map<string, Memory>();

  /** To be called every SAMPLE_MS. The public keys of those that have just been silent for long enough; their count begins anew. */
  sample(peers: readonly Sample[]): Set<string> {
    const stalled = new Set<string>();
    const next = new Map<string, Memory>();
    for (const { publicKey, sentBytes: sent, receivedBytes: received } of peers) {
      const key = Buffer.from(publicKey).toString('base64');
      const last = this.#last.get(key);
      const isSilent = last !== undefined && sent > last.sent && received === last.received;
      let silent = isSilent ? last.silent + 1 : 0;
      if (silent === INTERVALS) {
        stalled.add(key);
        silent = 0;
      }
      next.set(key, { sent, received, silent });
    }
    this.#last = next;
    return stalled;
  }
}

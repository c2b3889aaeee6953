/**
 * Keeps the endpoints of peers right that the file gives by name: when such a peer does not answer, its name is asked for anew and
 * its addresses are tried in turn. Peers with a literal, or that come to us, are left alone, and without any of the others
 * nothing runs here.
 */
import { literalFamily } from '../model/address.js';
import type { EndpointText, PeerChange, PeerStatus } from '../tunnel/wireguard/device-config.js';
import { SAMPLE_MS, StallWatch } from './stall-watch.js';
import { FileProblem } from './wireguard/problem.js';
import type { QuickPeer } from './wireguard/quick-file.js';

export interface EndpointSearchOptions {
  peers: readonly QuickPeer[];
  status(): Promise<{ peers: PeerStatus[] }>;
  /** Where to try next; `current` is where it did not answer. Rejects with FileProblem when there is nowhere. */
  choose(endpoint: NonNullable<QuickPeer['endpoint']>, current: string | undefined): Promise<EndpointText>;
  move(change: PeerChange): Promise<void>;
  /** One sentence for the log, when something has changed. */
  note(sentence: string): void;
}

/** By public key in base64. */
export function namedPeers(peers: readonly QuickPeer[]): Map<string, NonNullable<QuickPeer['endpoint']>> {
  const named = new Map<string, NonNullable<QuickPeer['endpoint']>>();
  for (const { publicKey, endpoint } of peers) {
    if (endpoint && literalFamily(endpoint.value.host) === undefined) named.set(keyText(publicKey.value), endpoint);
  }
  return named;
}

/** Begins; the function returned ends it. */
export function startEndpointSearch(options: EndpointSearchOptions): () => void {
  const named = namedPeers(options.peers);
  if (named.size === 0) return () => {};
  const watch = new StallWatch();
  let lastProblem = '';
  let isBusy = false;
  const round = async () => {
    const { peers } = await options.status();
    const stalled = watch.sample(peers);
    for (const peer of peers) {
      const endpoint = named.get(keyText(peer.publicKey));
      if (endpoint === undefined || !stalled.has(keyText(peer.publicKey))) continue;
      const current = peer.endpoint?.address;
      const next = await options.choose(endpoint, current);
      if (next.address === current && next.port === peer.endpoint?.port) continue;
      await options.move({ publicKey: peer.publicKey, endpoint: next });
      options.note(`${endpoint.value.host} does not answer at ${current ?? 'no address'}: trying ${next.address}`);
      lastProblem = '';
    }
  };
  const begin = () => {
    if (isBusy) return;
    isBusy = true;
    round()
      .catch((error: unknown) => {
        // Anything else means that the tunnel is ending.
        if (!(error instanceof FileProblem) || error.message === lastProblem) return;
        lastProblem = error.message;
        options.note(error.message);
      })
      .finally(() => {
        isBusy = false;
      });
  };
  // The first interval begins now.
  begin();
  const timer = setInterval(begin, SAMPLE_MS);
  return () => clearInterval(timer);
}

export function keyText(key: Uint8Array): string {
  return Buffer.from(key).toString('base64');
}

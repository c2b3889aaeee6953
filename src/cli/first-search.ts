/**
 * Finds the peers that `vpnctl up` could not find yet: no network, no name server, no route. Their names are asked for again, soon
 * at first and then less often, until each has an endpoint: from here, by `wg set`, or because the peer came to us. Without such
 * peers nothing runs here.
 */
import { type EndpointSearchOptions, keyText, namedPeers } from './endpoint-search.js';

const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;

/** Begins; the function returned ends it. */
export function startFirstSearch(options: EndpointSearchOptions): () => void {
  const named = namedPeers(options.peers);
  const problems = new Map<string, string>();
  let timer: NodeJS.Timeout | undefined;
  let isEnded = false;

  /** How many are not found yet. */
  const round = async (): Promise<number> => {
    const { peers } = await options.status();
    const lost = peers.filter((peer) => peer.endpoint === undefined && named.has(keyText(peer.publicKey)));
    // At once, because each may wait for a name server that does not answer.
    const found = await Promise.all(lost.map(({ publicKey }) => find(publicKey)));
    return found.filter((isFound) => !isFound).length;
  };
  const find = async (publicKey: Uint8Array): Promise<boolean> => {
    const endpoint = named.get(keyText(publicKey));
    if (endpoint === undefined) return true;
    const { host } = endpoint.value;
    try {
      const next = await options.choose(endpoint, undefined);
      if (isEnded) return true;
      await options.move({ publicKey, endpoint: next });
      options.note(`${host} is found: ${next.address}`);
      return true;
    } catch (error) {
      const { message } = error as Error;
      if (!isEnded && problems.get(host) !== message) options.note(message);
      problems.set(host, message);
      return false;
    }
  };
  const next = (pauseMs: number) => {
    timer = setTimeout(async () => {
      // A status that is not to be had means that the tunnel is ending.
      const left = await round().catch(() => 0);
      if (!isEnded && left > 0) next(Math.min(2 * pauseMs, LONGEST_PAUSE_MS));
    }, pauseMs);
  };
  if (named.size > 0) next(FIRST_PAUSE_MS);
  return () => {
    isEnded = true;
    clearTimeout(timer);
  };
}

/**
 * Whether the tunnel's socket has a way to each peer, now that the VPN's rules are there, and what is in the way. Said, not refused: the
 * network may come later.
 */
import type { RouteQuestion } from '../tunnel/route-check.js';
import { type Obstacle, obstacles } from '../tunnel/route-check.js';
import type { Note } from './tunnel-log.js';
import type { TunnelOrder } from './tunnel-order.js';
import { warning } from './wireguard/problem.js';

export interface PeerRoutes {
  /** Lines for a person. */
  readonly warnings: readonly string[];
  /** As `waitingFor` of the order. */
  readonly waitingFor: readonly string[];
}

/** `mark`: of the tunnel's socket; `link`: the vNIC. */
export async function checkPeerRoutes(
  { file, change }: TunnelOrder,
  { mark, link, note }: { mark: number; link: string; note: Note },
): Promise<PeerRoutes> {
  const asked = (change.peers ?? []).flatMap(({ endpoint }, index) => {
    const line = file.peers[index]?.endpoint?.line;
    return endpoint === undefined || line === undefined ? [] : [{ ...endpoint, line }];
  });
  const questions = asked.map(({ address, port, scopeId }): RouteQuestion => ({ address, port, mark, scopeId }));
  // Without an answer there is nothing to say, and the tunnel may work.
  const found = await obstacles(questions).catch((error: Error) => {
    note(`the routes to the peers are not known: ${error.message}`);
    return [];
  });
  const warnings: string[] = [];
  const waitingFor: string[] = [];
  for (const [index, { address, line }] of asked.entries()) {
    const obstacle = found[index];
    if (obstacle === undefined) continue;
    warnings.push(warning(file.path, line, `Endpoint ${address}: ${sentence(obstacle, link)}`));
    if (obstacle.kind === 'none') waitingFor.push(`a route to ${address}`);
  }
  return { warnings, waitingFor };
}

function sentence(obstacle: Obstacle, link: string): string {
  if (obstacle.kind === 'tunnel') {
    const rule = obstacle.rule === undefined ? '' : `ip rule ${obstacle.rule}, `;
    const where = `${rule}table ${obstacle.table}`;
    return obstacle.link === link
      ? `the way to it leads into ${link}, this VPN itself (${where}); change that rule or route`
      : `the way to it leads through ${obstacle.link}, another tunnel (${where}); it works only while that one does`;
  }
  const { errnoName, searched, rule, says } = obstacle;
  const none = `there is no route to it outside the VPN (${errnoName})`;
  if (says !== undefined && errnoName !== 'ENETUNREACH') {
    const who = rule === undefined ? 'a route' : `ip rule ${rule}`;
    return `${none}: ${who} says ${says}; change it, or give another endpoint`;
  }
  const tables = searched.length > 0 ? `no route in the tables ${searched.join(', ')}` : 'no table is asked';
  const end = rule === undefined ? '' : `, and then ip rule ${rule} says ${says}`;
  return `${none}: ${tables}${end}; connect this machine to a network, or put a route there`;
}

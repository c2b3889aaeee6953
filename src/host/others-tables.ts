/**
 * Where the tables lead that the machine's own routing rules name: out by a link behind which the world is, or into a tunnel or
 * to a machine on this one. A tunnel's packets must not be led into another tunnel, which may be led into this one.
 */
import { FILTERED_MAXIMUM } from '../kernel/netlink-filter.js';
import type { NetlinkSocket } from '../kernel/netlink-socket.js';
import { RT_TABLE_DEFAULT, RT_TABLE_LOCAL, RT_TABLE_MAIN } from '../kernel/rtnetlink.js';
import { type LinkEntry, listLinks, listTable, type RouteEntry } from '../kernel/rtnetlink-list.js';
import type { RuleEntry } from '../kernel/rule-entry.js';
import { type Family, IPV4 } from '../model/vpn-types.js';
import { isVnic } from './link-tracker.js';
import { hasLocalPorts, isToGroups, type Outside } from './links.js';

/** Kinds of links that are no tunnels by themselves ('' is hardware). What is not named here may be one, as `ppp` may. */
const PLAIN_KINDS = new Set([
  '',
  'bond',
  'bridge',
  'dsa',
  'hsr',
  'ipoib',
  'ipvlan',
  'macvlan',
  'rmnet',
  'team',
  'veth',
  'vlan',
  'wwan',
]);

/** What a change of a table with fewer routes costs is nothing, and what it means more than whether the table leads outside. */
const FLOOD = 256;

/** `mixed`: outside, but not only. `unread`: not looked at. */
export type Lead = 'nowhere' | 'outside' | 'inside' | 'mixed' | 'unread';

export interface OthersTables extends Outside {
  leadOf(family: Family, table: number): Lead;
  /** Of which changes matter; of large ones that lead `outside` already, only by other links than `ways`. */
  tables: ReadonlySet<number>;
  outside: ReadonlySet<number>;
  /** All links that lead outside where a route says so. */
  ways: ReadonlySet<number>;
}

/** Tables, of others, that some rule looks up; main, local and the rule for `default` are known by themselves. Not more than can be watched. */
export function tablesOf(rules: readonly RuleEntry[]): Set<number> {
  const isKnown = ({ table, isForAll }: RuleEntry) =>
    [0, RT_TABLE_MAIN, RT_TABLE_LOCAL].includes(table) || (table === RT_TABLE_DEFAULT && isForAll);
  const looked = rules.filter((rule) => rule.action === 'lookup' && !isKnown(rule));
  return new Set([...new Set(looked.map(({ table }) => table))].slice(0, FILTERED_MAXIMUM));
}

export async function readOthersTables(socket: NetlinkSocket, rules: readonly RuleEntry[]): Promise<OthersTables> {
  const tables = tablesOf(rules);
  const links = tables.size > 0 ? await listLinks(socket) : [];
  const leads = new Map<string, Lead>();
  const outer = new Set<number>();
  const large = new Set<number>();
  const toGroups = new Map<number, readonly RouteEntry[]>();
  const ways = new Set(links.filter((link) => isWayOut(link, links)).map(({ ifindex }) => ifindex));
  const plain = new Set(links.filter(isPlain).map(({ ifindex }) => ifindex));
  for (const { family, table } of rules) {
    const key = keyOf(family, table);
    if (!tables.has(table) || leads.has(key)) continue;
    const routes = await listTable(socket, family, table);
    const lead = leadOf(routes, ways, plain);
    leads.set(key, lead);
    if (routes.length > FLOOD) large.add(table);
    if (lead === 'outside' && family === IPV4) toGroups.set(table, routes.filter(isToGroups));
    for (const hop of waysOut(routes, ways)) outer.add(hop);
  }
  const isOutside = (table: number) =>
    rules.every((rule) => rule.table !== table || leads.get(keyOf(rule.family, table)) === 'outside');
  return {
    leadOf: (family, table) => leads.get(keyOf(family, table)) ?? 'unread',
    outer,
    toGroups: tablesForAll(rules).map((table) => (table === RT_TABLE_MAIN ? 'main' : (toGroups.get(table) ?? []))),
    tables,
    outside: new Set([...tables].filter((table) => large.has(table) && isOutside(table))),
    ways,
  };
}

/** Which tables everybody's IPv4 packets are looked up in, in that order. */
function tablesForAll(rules: readonly RuleEntry[]): number[] {
  const forAll = rules.filter(({ family, action, isForAll }) => family === IPV4 && action === 'lookup' && isForAll);
  return [...new Set([...forAll.map(({ table }) => table), RT_TABLE_MAIN])];
}

/** Pure. `ways`: links that lead outside; `plain`: those and bridges of this machine, whose own networks harm nobody. */
export function leadOf(routes: readonly RouteEntry[], ways: ReadonlySet<number>, plain: ReadonlySet<number>): Lead {
  if (routes.length === 0) return 'nowhere';
  const isHarmless = routes.every(({ prefixLength, hops }) =>
    hops.every(
      ({ ifindex, hasGateway }) => ways.has(ifindex) || (plain.has(ifindex) && !hasGateway && prefixLength > 0),
    ),
  );
  if (isHarmless) return 'outside';
  return waysOut(routes, ways).length > 0 ? 'mixed' : 'inside';
}

/** As links.ts says it of main: by which there is a gateway or everything. */
function waysOut(routes: readonly RouteEntry[], ways: ReadonlySet<number>): number[] {
  return routes.flatMap(({ prefixLength, hops }) =>
    hops
      .filter(({ ifindex, hasGateway }) => ways.has(ifindex) && (hasGateway || prefixLength === 0))
      .map(({ ifindex }) => ifindex),
  );
}

function isPlain(link: LinkEntry): boolean {
  return !link.isLoopback && PLAIN_KINDS.has(link.kind) && !isVnic(link);
}

/**
 * Ports of a bridge or a bond carry nothing by themselves, and there may be one for each container. Where there is hardware a veth leads
 * to a container as well: what comes from there is for root's VPN to carry. In a container it is how all things get out.
 */
export function isWayOut(link: LinkEntry, links: readonly LinkEntry[]): boolean {
  if (link.kind === 'veth' && links.some((each) => each.kind === '' && isPlain(each))) return false;
  const master = links.find(({ ifindex }) => link.master !== 0 && ifindex === link.master);
  const isPort = master !== undefined && PLAIN_KINDS.has(master.kind);
  return isPlain(link) && !isPort && !(link.kind === 'bridge' && hasLocalPorts(link.ifindex, links));
}

function keyOf(family: Family, table: number): string {
  return `${family} ${table}`;
}

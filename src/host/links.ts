/**
 * Facts about this network namespace's links that are no VPN's, from listings of links and of table main: behind which of
 * them is the outside world, which only serve the machine's own containers, and what is on-link where.
 */
import { networkInterfaces } from 'node:os';
import type { NetlinkSocket } from '../kernel/netlink-socket.js';
import { RT_TABLE_MAIN } from '../kernel/rtnetlink.js';
import { type LinkEntry, listLinks, listTable, type RouteEntry } from '../kernel/rtnetlink-list.js';
import { prefixContains } from '../model/address.js';
import { FAMILIES, type Family, IPV4 } from '../model/vpn-types.js';
import { isVnic } from './link-tracker.js';
import { LAN_TABLE } from './numbers.js';

export interface HostLink {
  ifindex: number;
  /** One character a byte, as the kernel has it. */
  name: string;
  /** 'bridge', 'veth', …; '' for hardware. */
  kind: string;
  isUp: boolean;
  /** A gateway or a default route leads here, of table main or of one that the machine's rules name. */
  isOuter: boolean;
  /** A bridge without the outside behind it, all of whose ports end on this machine: of containers, virtual machines. */
  isInnerBridge: boolean;
}

/** A route of table main, or of another for everybody, by one link that is up. */
export interface MainRoute {
  family: Family;
  destination: string;
  prefixLength: number;
  link: HostLink;
  metric: number;
  source?: string;
}

/** One to what needs no gateway. */
export interface OnLinkRoute extends MainRoute {
  /** The host has an address of this prefix on this link: a network it is in, not one that is only said to be near. */
  isOwn: boolean;
}

/** A unicast route in the LAN table. */
export interface LanRoute {
  family: Family;
  destination: string;
  prefixLength: number;
  dev: string;
  ifindex: number;
  metric: number;
  source?: string;
}

export interface LinkFacts {
  /** All but loopback and vNICs, by ifindex. */
  links: readonly HostLink[];
  onLink: readonly OnLinkRoute[];
  /** By which IPv4's groups and broadcast leave that name no link: the default routes among them. */
  toGroups: readonly MainRoute[];
  /** What is in the LAN table now. The kernel removes routes by itself, of IPv4 without a word. */
  lan: readonly LanRoute[];
}

/** What other tables than main say. */
export interface Outside {
  /** Links that one of them leads outside by. */
  outer: ReadonlySet<number>;
  /** Routes to IPv4's groups, in the order in which everybody's packets are looked up: of main, and of tables that lead outside. */
  toGroups: readonly ('main' | readonly RouteEntry[])[];
}

const NOTHING_ELSE: Outside = { outer: new Set(), toGroups: ['main'] };

/** The host's addresses, by the name of the link they are on. */
export type Addresses = Readonly<Record<string, readonly string[]>>;

/** Kinds of bridge ports whose other end is on this machine. */
const LOCAL_PORTS = new Set(['veth', 'tun']);

export async function readLinkFacts(socket: NetlinkSocket, outside?: Outside): Promise<LinkFacts> {
  const links = await listLinks(socket);
  const list = async (table: number): Promise<RouteEntry[]> => {
    const lists: RouteEntry[] = [];
    for (const family of FAMILIES) lists.push(...(await listTable(socket, family, table)));
    return lists;
  };
  return linkFacts(links, await list(RT_TABLE_MAIN), await list(LAN_TABLE), addressesByLink(), outside);
}

export function linkFacts(
  entries: readonly LinkEntry[],
  main: readonly RouteEntry[],
  lanTable: readonly RouteEntry[],
  addresses: Addresses,
  outside: Outside = NOTHING_ELSE,
): LinkFacts {
  const outer = new Set(outside.outer);
  for (const { prefixLength, hops } of main) {
    for (const hop of hops) if (hop.hasGateway || prefixLength === 0) outer.add(hop.ifindex);
  }
  const links = entries
    .filter((entry) => !entry.isLoopback && !isVnic(entry))
    .sort((a, b) => a.ifindex - b.ifindex)
    .map(({ ifindex, name, kind, isUp }) => {
      const isOuter = outer.has(ifindex);
      const isInnerBridge = kind === 'bridge' && !isOuter && hasLocalPorts(ifindex, entries);
      return { ifindex, name, kind, isUp, isOuter, isInnerBridge };
    });
  const byIndex = new Map(links.map((link) => [link.ifindex, link]));
  return {
    links,
    onLink: onLinkRoutes(main, byIndex, addresses),
    toGroups: groupRoutes(outside, main, byIndex),
    lan: lanTable.flatMap((route) => lanRoute(route, entries)),
  };
}

/** All of them end on this machine. */
export function hasLocalPorts(bridge: number, entries: readonly LinkEntry[]): boolean {
  return entries.every(({ master, kind }) => master !== bridge || LOCAL_PORTS.has(kind));
}

function onLinkRoutes(
  main: readonly RouteEntry[],
  links: ReadonlyMap<number, HostLink>,
  addresses: Addresses,
): OnLinkRoute[] {
  return main.flatMap(({ family, destination, prefixLength, metric, source, hops }) => {
    const [hop] = hops;
    const link = hop && links.get(hop.ifindex);
    // A default route without a gateway says nothing of who is near.
    if (hops.length !== 1 || hop?.hasGateway || !link?.isUp || prefixLength === 0) return [];
    const prefix = { address: destination, prefixLength };
    const isOwn = (addresses[link.name] ?? []).some((address) => prefixContains(prefix, address));
    return [{ family, destination, prefixLength, link, metric, isOwn, ...(source !== undefined && { source }) }];
  });
}

const GROUPS = { address: '224.0.0.0', prefixLength: 3 };

/** The default routes, halves of them, and those into 224.0.0.0/3, where groups and broadcast are. */
export function isToGroups({ family, destination, prefixLength }: RouteEntry): boolean {
  const prefix = { address: destination, prefixLength };
  return family === IPV4 && (prefixContains(prefix, GROUPS.address) || prefixContains(GROUPS, destination));
}

/** Those of the first table that has any. */
function groupRoutes(
  { toGroups }: Outside,
  main: readonly RouteEntry[],
  links: ReadonlyMap<number, HostLink>,
): MainRoute[] {
  const tables = toGroups.map((routes) => (routes === 'main' ? main.filter(isToGroups) : routes));
  const routes = tables.find(({ length }) => length > 0) ?? [];
  return routes.flatMap(({ family, destination, prefixLength, metric, source, hops }) =>
    hops.flatMap(({ ifindex }): MainRoute[] => {
      const link = links.get(ifindex);
      if (!link?.isUp) return [];
      return [{ family, destination, prefixLength, link, metric, ...(source !== undefined && { source }) }];
    }),
  );
}

function lanRoute(
  { family, destination, prefixLength, metric, source, hops }: RouteEntry,
  entries: readonly LinkEntry[],
): LanRoute[] {
  return hops.map(({ ifindex }) => {
    const dev = entries.find((entry) => entry.ifindex === ifindex)?.name ?? '';
    return { family, destination, prefixLength, dev, ifindex, metric, ...(source !== undefined && { source }) };
  });
}

function addressesByLink(): Addresses {
  const links = Object.entries(networkInterfaces());
  return Object.fromEntries(links.map(([name, list]) => [name, (list ?? []).map(({ address }) => address)]));
}

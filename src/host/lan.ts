/**
 * Which routes to local networks covered traffic may take: filtered copies of what is on-link in table main, by policy. Who
 * runs a network decides what it claims to be on-link (TunnelCrack LocalNet), so without the administrator's word only
 * private ranges count, no large ones, and only where this host has an address itself: a server of DHCP can say of any number
 * of prefixes that they are on the link. Pure.
 */
import { type Prefix, prefixContains } from '../model/address.js';
import { type Family, IPV4, IPV6 } from '../model/vpn-types.js';
import type { LanRoute, MainRoute, OnLinkRoute } from './links.js';

export type LanPolicy = 'private' | 'off' | readonly Prefix[];

/** RFC 1918, RFC 3927, RFC 4193, RFC 4291 2.5.6. */
const PRIVATE: readonly Prefix[] = [
  { address: '10.0.0.0', prefixLength: 8 },
  { address: '172.16.0.0', prefixLength: 12 },
  { address: '192.168.0.0', prefixLength: 16 },
  { address: '169.254.0.0', prefixLength: 16 },
  { address: 'fc00::', prefixLength: 7 },
  { address: 'fe80::', prefixLength: 10 },
];
/** A real local network is no larger; a claim to more is a claim to other people's private networks. */
const LARGEST = { 1: 16, 2: 48 } as const;

/** Name resolution and discovery on the link itself, which go along with a local network: mDNS, LLMNR, SSDP, broadcast. */
export const DISCOVERY: Readonly<Record<Family, readonly Prefix[]>> = {
  1: [
    { address: '224.0.0.0', prefixLength: 24 },
    { address: '239.255.255.250', prefixLength: 32 },
    { address: '255.255.255.255', prefixLength: 32 },
  ],
  2: [{ address: 'ff02::', prefixLength: 16 }],
};

/** Room for any ifindex beside the metrics that are in use. */
const METRIC_STEP = 1_000_000;
const METRIC_MAXIMUM = 4000;

/**
 * The routes that the LAN table shall have, each once, in the order of their keys. Under every policy those of inner bridges
 * that are private: what is there is this machine. Under 'private' those of all links. With prefixes also the part of every
 * route that they name, private or not.
 */
export function lanRoutes(onLink: readonly OnLinkRoute[], policy: LanPolicy): LanRoute[] {
  return copies(onLink, (route) => allowedParts(route, policy));
}

/**
 * And those for discovery by programs that name no link: where main leads it, as far as `lan` has a network there. IPv6's groups are
 * none of the tables': the local one, which comes first, has a route to them on every link.
 */
export function discoveryRoutes(toGroups: readonly MainRoute[], lan: readonly LanRoute[]): LanRoute[] {
  const links = new Set(lan.flatMap(({ family, ifindex }) => (family === IPV4 ? [ifindex] : [])));
  const permitted = toGroups.filter(({ link }) => links.has(link.ifindex));
  return copies(permitted, (route) => {
    const whole: Prefix = { address: route.destination, prefixLength: route.prefixLength };
    return DISCOVERY[IPV4].flatMap((group) => intersection(whole, group) ?? []);
  });
}

function copies<R extends MainRoute>(routes: readonly R[], partsOf: (route: R) => readonly Prefix[]): LanRoute[] {
  const chosen = new Map<string, { route: LanRoute; from: number }[]>();
  for (const route of routes) {
    for (const part of partsOf(route)) {
      const copy = copyOf(route, part);
      const key = `${copy.family} ${copy.destination}/${copy.prefixLength}`;
      chosen.set(key, [...(chosen.get(key) ?? []), { route: copy, from: route.prefixLength }]);
    }
  }
  return [...chosen.values()].flatMap(mostSpecific).sort(compare);
}

/** What has to be added and removed; what is the same in both lists stays untouched. */
export function lanChanges(
  current: readonly LanRoute[],
  wanted: readonly LanRoute[],
): { add: LanRoute[]; remove: LanRoute[] } {
  const have = new Set(current.map(keyOf));
  const want = new Set(wanted.map(keyOf));
  return {
    add: wanted.filter((route) => !have.has(keyOf(route))),
    remove: current.filter((route) => !want.has(keyOf(route))),
  };
}

function allowedParts(route: OnLinkRoute, policy: LanPolicy): Prefix[] {
  const whole: Prefix = { address: route.destination, prefixLength: route.prefixLength };
  const isWhole = (policy === 'private' || route.link.isInnerBridge) && route.isOwn && isPrivate(route, whole);
  const named = typeof policy === 'string' ? [] : policy.flatMap((prefix) => intersection(whole, prefix) ?? []);
  // Also the parts of what is allowed whole: a part of a larger route must not be more specific than this one.
  return isWhole ? [whole, ...named] : named;
}

function isPrivate({ family }: OnLinkRoute, prefix: Prefix): boolean {
  return prefix.prefixLength >= LARGEST[family] && isPrivateNetwork(prefix);
}

export function isPrivateNetwork(prefix: Prefix): boolean {
  return PRIVATE.some((range) => contains(range, prefix));
}

/** The narrower of two prefixes when it lies in the other. */
function intersection(a: Prefix, b: Prefix): Prefix | undefined {
  if (contains(b, a)) return a;
  return contains(a, b) ? b : undefined;
}

function contains(outer: Prefix, inner: Prefix): boolean {
  return outer.prefixLength <= inner.prefixLength && prefixContains(outer, inner.address);
}

/**
 * The same destination may be on several links (fe80::/64 is on every one), and the kernel takes only one route of a metric:
 * the link is in the metric, behind main's, so that main's preference holds and a copy's metric never depends on the others.
 */
function copyOf({ family, link, metric, source }: MainRoute, { address, prefixLength }: Prefix): LanRoute {
  return {
    family,
    destination: address,
    prefixLength,
    dev: link.name,
    ifindex: link.ifindex,
    metric: Math.min(metric, METRIC_MAXIMUM) * METRIC_STEP + (link.ifindex % METRIC_STEP),
    ...(source !== undefined && { source }),
  };
}

/** Several routes cut down to the same prefix: main would take the most specific one. Of one link the first. */
function mostSpecific(candidates: readonly { route: LanRoute; from: number }[]): LanRoute[] {
  const longest = Math.max(...candidates.map(({ from }) => from));
  const routes = new Map<number, LanRoute>();
  for (const { route, from } of candidates) {
    if (from === longest && !routes.has(route.metric)) routes.set(route.metric, route);
  }
  return [...routes.values()];
}

function compare(a: LanRoute, b: LanRoute): number {
  if (a.family !== b.family) return a.family === IPV6 ? 1 : -1;
  if (a.destination !== b.destination) return a.destination < b.destination ? -1 : 1;
  return a.prefixLength - b.prefixLength || a.metric - b.metric;
}

function keyOf({ family, destination, prefixLength, ifindex, metric, source }: LanRoute): string {
  return `${family} ${destination}/${prefixLength} ${ifindex} ${metric} ${source ?? ''}`;
}

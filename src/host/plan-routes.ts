/**
 * A VPN's routing tables for one family. The default table always leads everything into the vNIC, with unreachable behind,
 * so that the VPN stays closed when the vNIC dies; the explicit table holds what the app named. An excluded prefix is a
 * `throw` in both, else the other one's default would swallow it.
 */
import { clearHostBits } from '../model/address.js';
import type { SpecRoute, VpnSpec } from '../model/vpn-spec.js';
import { type Family, IPV6 } from '../model/vpn-types.js';
import type { OutsideServer } from './dns-servers.js';
import { ROUTE_PROTOCOL, type SlotNumbers, UNREACHABLE_METRIC } from './numbers.js';
import type { Operation } from './operation.js';

/**
 * What the ladder needs to know of a family: `refused` = not accepted; `everything` = there is a default route; `some` =
 * only the prefixes of the explicit table go in, the rest goes where it went before.
 */
export interface RouteShape {
  kind: 'refused' | 'everything' | 'some';
  /** Go in, whatever else is said: the app's routes without the default, networks of link addresses, DNS servers. */
  explicit: readonly Prefix[];
  /** Stay out. */
  excluded: readonly Prefix[];
}

export interface Prefix {
  destination: string;
  prefixLength: number;
}

interface Hop extends Prefix {
  gateway?: string | undefined;
}

export function planRoutes(
  family: Family,
  spec: VpnSpec,
  numbers: SlotNumbers,
  outside: readonly OutsideServer[],
): { operations: Operation[]; shape: RouteShape } {
  if (!spec.accepted[family]) {
    return { operations: [], shape: { kind: 'refused', explicit: [], excluded: [] } };
  }
  const { explicitTable, defaultTable, loopbackTable, link: dev } = numbers;
  // IPv6 would give a route without a metric 1024, and then not find it again by metric 0.
  const metric = family === IPV6 ? 1 : undefined;
  const source = spec.addresses.find((address) => address.family === family)?.address;
  // Whole literals, always with the same fields: with 10,000 routes, copying objects is what costs.
  const protocol = ROUTE_PROTOCOL;
  const through = ({ destination, prefixLength, gateway }: Hop, table: number): Operation => {
    return {
      kind: 'route',
      type: 'unicast',
      family,
      destination,
      prefixLength,
      table,
      protocol,
      metric,
      dev,
      gateway,
      source,
    };
  };
  const thrown = ({ destination, prefixLength }: Prefix, table: number): Operation => {
    return { kind: 'route', type: 'throw', family, destination, prefixLength, table, protocol, metric };
  };
  const closed = ({ destination, prefixLength }: Prefix, table: number): Operation => {
    const last = UNREACHABLE_METRIC;
    return { kind: 'route', type: 'unreachable', family, destination, prefixLength, table, protocol, metric: last };
  };

  const routes = spec.routes.filter((route) => route.family === family);
  const excluded = routes.filter((route) => route.isExcluded && route.prefixLength > 0);
  const noDefault = routes.some((route) => route.isExcluded && route.prefixLength === 0);
  const defaultRoute = noDefault ? undefined : routes.find((route) => !route.isExcluded && route.prefixLength === 0);
  const explicit = explicitPrefixes(family, spec, routes, outside);
  const kind = defaultRoute ? 'everything' : 'some';

  const everything = { destination: family === IPV6 ? '::' : '0.0.0.0', prefixLength: 0 };
  const operations = [closed(everything, defaultTable)];
  for (const prefix of excluded) operations.push(thrown(prefix, explicitTable), thrown(prefix, defaultTable));
  // Without a default table in the way, each prefix has to stay closed by itself.
  if (kind === 'some') for (const prefix of explicit) operations.push(closed(prefix, explicitTable));
  for (const hop of explicit) operations.push(through(hop, explicitTable));
  if (family === IPV6 && spec.dnsAddresses.length > 0) {
    const loopback = { destination: '::1', prefixLength: 128, table: loopbackTable };
    operations.push({ kind: 'route', type: 'local', family, ...loopback, protocol, dev });
  }
  operations.push(through({ ...everything, gateway: defaultRoute?.gateway }, defaultTable));
  return { operations, shape: { kind, explicit, excluded } };
}

/**
 * The app's routes, then the network each link address lies in and the DNS servers that are inside, as long as the app said nothing
 * else of the same prefix.
 */
function explicitPrefixes(
  family: Family,
  spec: VpnSpec,
  routes: readonly SpecRoute[],
  outside: readonly OutsideServer[],
): Hop[] {
  const bits = family === IPV6 ? 128 : 32;
  const own: Prefix[] = [];
  for (const { family: of, address, prefixLength } of spec.addresses) {
    if (of === family && prefixLength < bits) {
      own.push({ destination: clearHostBits(address, prefixLength), prefixLength });
    }
  }
  for (const server of spec.dnsAddresses) {
    const isOutside = outside.some(({ address }) => address === server.address);
    if (server.family === family && !isOutside) own.push({ destination: server.address, prefixLength: bits });
  }
  const key = ({ destination, prefixLength }: Prefix) => `${destination}/${prefixLength}`;
  const destinations = new Set(own.map(({ destination }) => destination));
  const taken = new Set(routes.filter(({ destination }) => destinations.has(destination)).map(key));
  const unsaid = new Map(own.filter((prefix) => !taken.has(key(prefix))).map((prefix) => [key(prefix), prefix]));
  return [...routes.filter((route) => !route.isExcluded && route.prefixLength > 0), ...unsaid.values()];
}

/**
 * A VPN's routing tables for one family. The default table always leads everything into the vNIC, with unreachable behind,
 * so that the VPN stays closed when the vNIC dies; the explicit table holds what the app named. An excluded prefix is a
 * `throw` in both, else the other one's default would swallow it.
 */
import { clearHostBits } from '../model/address.js';
import type { SpecRoute, VpnSpec } from '../model/vpn-spec.js';
import { type Family, IPV6 } from '../model/vpn-types.js';
import { ROUTE_PROTOCOL, type SlotNumbers, UNREACHABLE_METRIC } from './numbers.js';
import type { Operation } from './operation.js';

/**
 * What the ladder needs to know of a family: `refused` = not accepted; `everything` = there is a default route; `some` =
 * only the prefixes of the explicit table go in, the rest goes where it went before.
 */
export interface RouteShape {
  kind: 'refused' | 'everything' | 'some';
  hasExplicit: boolean;
  hasExcluded: boolean;
}

interface Prefix {
  destination: string;
  prefixLength: number;
}

export function planRoutes(
  family: Family,
  spec: VpnSpec,
  numbers: SlotNumbers,
): { operations: Operation[]; shape: RouteShape } {
  const everywhere = family === IPV6 ? '::' : '0.0.0.0';
  const base = { kind: 'route', family, protocol: ROUTE_PROTOCOL } as const;
  const closed = { ...base, type: 'unreachable', metric: UNREACHABLE_METRIC } as const;
  if (!spec.accepted[family]) {
    return { operations: [], shape: { kind: 'refused', hasExplicit: false, hasExcluded: false } };
  }
  // IPv6 would give a route without a metric 1024, and then not find it again by metric 0.
  const metric = family === IPV6 ? { metric: 1 } : {};
  const source = spec.addresses.find((address) => address.family === family)?.address;
  const device = {
    ...base,
    ...metric,
    type: 'unicast',
    dev: numbers.link,
    ...(source !== undefined && { source }),
  } as const;

  const routes = spec.routes.filter((route) => route.family === family);
  const excluded = routes.filter((route) => route.isExcluded && route.prefixLength > 0);
  const noDefault = routes.some((route) => route.isExcluded && route.prefixLength === 0);
  const defaultRoute = noDefault ? undefined : routes.find((route) => !route.isExcluded && route.prefixLength === 0);
  const explicit = explicitPrefixes(family, spec, routes);
  const kind = defaultRoute ? 'everything' : 'some';

  const operations: Operation[] = [
    { ...closed, destination: everywhere, prefixLength: 0, table: numbers.defaultTable },
  ];
  for (const { destination, prefixLength } of excluded) {
    for (const table of [numbers.explicitTable, numbers.defaultTable]) {
      operations.push({ ...base, ...metric, type: 'throw', destination, prefixLength, table });
    }
  }
  // Without a default table in the way, each prefix has to stay closed by itself.
  if (kind === 'some') {
    for (const { destination, prefixLength } of explicit) {
      operations.push({ ...closed, destination, prefixLength, table: numbers.explicitTable });
    }
  }
  for (const { destination, prefixLength, gateway } of explicit) {
    operations.push({
      ...device,
      destination,
      prefixLength,
      table: numbers.explicitTable,
      ...(gateway !== undefined && { gateway }),
    });
  }
  if (family === IPV6 && spec.dnsAddresses.length > 0) {
    operations.push({
      ...base,
      type: 'local',
      dev: numbers.link,
      destination: '::1',
      prefixLength: 128,
      table: numbers.loopbackTable,
    });
  }
  operations.push({
    ...device,
    destination: everywhere,
    prefixLength: 0,
    table: numbers.defaultTable,
    ...(defaultRoute?.gateway !== undefined && { gateway: defaultRoute.gateway }),
  });
  return {
    operations,
    shape: { kind, hasExplicit: explicit.length + excluded.length > 0, hasExcluded: excluded.length > 0 },
  };
}

/**
 * The app's routes, then the network each link address lies in and the VPN's DNS servers, as long as the app said nothing
 * else of the same prefix.
 */
function explicitPrefixes(
  family: Family,
  spec: VpnSpec,
  routes: readonly SpecRoute[],
): (Prefix & { gateway?: string })[] {
  const prefixes: (Prefix & { gateway?: string })[] = routes.filter(
    (route) => !route.isExcluded && route.prefixLength > 0,
  );
  const taken = new Set(routes.map((route) => `${route.destination}/${route.prefixLength}`));
  const add = (destination: string, prefixLength: number): void => {
    const key = `${destination}/${prefixLength}`;
    if (taken.has(key)) return;
    taken.add(key);
    prefixes.push({ destination, prefixLength });
  };
  const bits = family === IPV6 ? 128 : 32;
  for (const { family: of, address, prefixLength } of spec.addresses) {
    if (of === family && prefixLength < bits) add(clearHostBits(address, prefixLength), prefixLength);
  }
  for (const server of spec.dnsAddresses) {
    if (server.family === family) add(server.address, bits);
  }
  return prefixes;
}

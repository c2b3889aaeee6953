/**
 * The routes of a VpnConfig, checked against its addresses and each other (2200001) and completed with default routes.
 * Work grows with n log n: an app may bring 10,000 routes and 2,000 addresses.
 */
import { familyOf, reservedHosts } from './address.js';
import { BusinessError } from './errors.js';
import { coverage } from './on-link.js';
import { quote } from './quote.js';
import type { SpecAddress, SpecRoute } from './vpn-spec.js';
import { FAMILIES, type Family, IPV4, type RouteInfo } from './vpn-types.js';

/**
 * One route for each prefix, in the order of first mention. Refused with 2200001: an interface other than the vNIC, a
 * family that is not accepted, an off-link gateway (`hasGateway: false` ignores the gateway), a prefix that is already
 * routed by another gateway or excluded there and included here. Without an included route: the default route of every
 * accepted family, unless the app excluded just that prefix.
 */
export function checkRoutes(
  routes: readonly RouteInfo[],
  addresses: readonly SpecAddress[],
  accepted: Readonly<Record<Family, boolean>>,
  linkName: string,
): SpecRoute[] {
  const gatewayOf = gatewayCheck(addresses);
  const byPrefix = new Map<string, { route: SpecRoute; index: number }>();
  for (const [index, given] of routes.entries()) {
    const field = `config.routes[${index}]`;
    const route = checkRoute(given, field, gatewayOf, accepted, linkName);
    const key = prefixText(route);
    const first = byPrefix.get(key);
    if (first === undefined) {
      byPrefix.set(key, { route, index });
    } else if (first.route.isExcluded !== route.isExcluded || first.route.gateway !== route.gateway) {
      fault(field, `${key} has another gateway or exclusion in config.routes[${first.index}]`);
    }
  }
  const checked = [...byPrefix.values()].map(({ route }) => route);
  if (checked.some((route) => !route.isExcluded)) return checked;
  return [...checked, ...defaultRoutes(accepted).filter((route) => !byPrefix.has(prefixText(route)))];
}

function checkRoute(
  given: RouteInfo,
  field: string,
  gatewayOf: (address: string, field: string) => string | undefined,
  accepted: Readonly<Record<Family, boolean>>,
  linkName: string,
): SpecRoute {
  const { interface: link = '', destination, gateway, hasGateway = true, isExcludedRoute = false } = given;
  const family = familyOf(destination.address.address);
  if (link !== '' && link !== linkName) {
    fault(`${field}.interface`, `${quote(link)} is not this VPN's interface, ${quote(linkName)}; leave it out`);
  }
  if (!accepted[family]) {
    fault(
      `${field}.destination`,
      family === IPV4
        ? 'is IPv4, but config.isIPv4Accepted is false'
        : 'is IPv6, but config.addresses has no IPv6 address or config.isIPv6Accepted is not true',
    );
  }
  const hop = hasGateway && gateway.address !== '' ? gatewayOf(gateway.address, `${field}.gateway.address`) : undefined;
  const { prefixLength } = destination;
  const { address } = destination.address;
  if (hop === undefined) return { family, destination: address, prefixLength, isExcluded: isExcludedRoute };
  return { family, destination: address, prefixLength, gateway: hop, isExcluded: isExcludedRoute };
}

/**
 * A function from a gateway to the next hop. The vNIC's own address as gateway means the device (the kernel refuses a
 * local next hop for IPv6), so there is none then.
 */
function gatewayCheck(addresses: readonly SpecAddress[]): (address: string, field: string) => string | undefined {
  const own = new Set(addresses.map(({ address }) => address));
  const reserved = new Set(addresses.flatMap(reservedHosts));
  const isOnLink = coverage(addresses);
  let known: string | undefined;
  return (address, field) => {
    if (own.has(address)) return undefined;
    if (address === known) return address;
    if (!isOnLink(address)) fault(field, `${address} is in the prefix of none of config.addresses`);
    if (reserved.has(address)) fault(field, `${address} is the network or broadcast address of a prefix`);
    known = address;
    return address;
  };
}

function defaultRoutes(accepted: Readonly<Record<Family, boolean>>): SpecRoute[] {
  return FAMILIES.filter((family) => accepted[family]).map((family) => ({
    family,
    destination: family === IPV4 ? '0.0.0.0' : '::',
    prefixLength: 0,
    isExcluded: false,
  }));
}

function prefixText({ destination, prefixLength }: SpecRoute): string {
  return `${destination}/${prefixLength}`;
}

function fault(field: string, reason: string): never {
  throw new BusinessError(2200001, field, reason);
}

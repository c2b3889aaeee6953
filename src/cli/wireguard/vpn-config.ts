/**
 * From a wg-quick file to what the VPN API and the WireGuard device take.
 *
 * **Routes.** AllowedIPs of all peers become routes, neighbours joined to one: all lead into the same vNIC. 0.0.0.0/0 and ::/0 are the
 * default route, and so is what makes up a whole family (0.0.0.0/1 with 128.0.0.0/1), which is another way to write it. What lies inside
 * of those stays a route: unlike the default route it goes before local networks. With `Table = off`, and with
 * nothing in AllowedIPs, there is no route but to the networks of our own addresses: the default routes
 * are said to be excluded, because a config without routes would mean all of them.
 *
 * **Accepted families.** The API refuses a family that is not accepted, and leads into the VPN, or past it, one that is.
 *   - A family with an Address is accepted. Without a default route its other prefixes stay outside, as AllowedIPs say; where
 *     the other family has a default route that is likely an oversight, and a warning says so.
 *   - A family without an Address that AllowedIPs want to have whole is refused: nothing could ever come back to it, and the
 *     file says it must not go outside.
 *   - A family without an Address beside one with a default route is refused: fail closed, no leak.
 *   - Otherwise (split tunnel) it is accepted and goes on as if there were no VPN, but for prefixes of AllowedIPs.
 *   - But an MTU under 1280 excludes IPv6, which needs that much on a link; then it is refused, with a warning.
 */
import { familyOf, type Prefix, prefixContains } from '../../model/address.js';
import { BusinessError } from '../../model/errors.js';
import { MAX_ROUTES, MIN_IPV6_MTU } from '../../model/limits.js';
import { parseVpnConfig } from '../../model/vpn-config.js';
import { checkVpnConfig } from '../../model/vpn-config-check.js';
import { FAMILIES, type Family, IPV4, IPV6, type RouteInfo, type VpnConfig } from '../../model/vpn-types.js';
import { joinPrefixes, nestedPrefixes } from './join-prefixes.js';
import { EX_CONFIG, FileProblem, warning } from './problem.js';
import { prefixText, type QuickFile } from './quick-file.js';

const EVERYTHING: Readonly<Record<Family, Prefix>> = {
  1: { address: '0.0.0.0', prefixLength: 0 },
  2: { address: '::', prefixLength: 0 },
};
const NAME: Readonly<Record<Family, string>> = { 1: 'IPv4', 2: 'IPv6' };

/** What the file wants of one family. */
interface Wish {
  readonly hasAddress: boolean;
  /** Of AllowedIPs, with neighbours joined; empty with `Table = off`. */
  readonly routes: readonly Prefix[];
  readonly hasDefault: boolean;
}

function wishOf({ interface: own, peers }: QuickFile, family: Family): Wish {
  const hasAddress = own.addresses.some(({ value }) => familyOf(value.address) === family);
  const allowed = own.table === 'off' ? [] : peers.flatMap(({ allowedIps }) => allowedIps.map(({ value }) => value));
  const prefixes = allowed.filter(({ address }) => familyOf(address) === family);
  const parts = prefixes.filter(({ prefixLength }) => prefixLength > 0);
  const { isWhole, routes } = joinParts(parts);
  const hasDefault = isWhole || parts.length < prefixes.length;
  return { hasAddress, routes: hasDefault ? [...routes, EVERYTHING[family]] : routes, hasDefault };
}

/** `isWhole`: they make up the family. */
function joinParts(parts: readonly Prefix[]): { isWhole: boolean; routes: Prefix[] } {
  const routes = joinPrefixes(parts);
  if (routes[0]?.prefixLength !== 0) return { isWhole: false, routes };
  return { isWhole: true, routes: joinParts(nestedPrefixes(parts)).routes };
}

/** See the head of this file. */
export function acceptedFamilies(file: QuickFile): Record<Family, boolean> {
  const wishes = { 1: wishOf(file, IPV4), 2: wishOf(file, IPV6) };
  const isSplit = !wishes[1].hasDefault && !wishes[2].hasDefault;
  const mtu = file.interface.mtu?.value ?? MIN_IPV6_MTU;
  return { 1: wishes[1].hasAddress || isSplit, 2: wishes[2].hasAddress || (isSplit && mtu >= MIN_IPV6_MTU) };
}

/**
 * The config for `setUp`, and lines about what is set up otherwise than the file may seem to say. `isLegacy` is set; `name` is
 * shown as the VPN's id. Throws FileProblem 78 for what the API would refuse.
 *
 * @param mtu of the vNIC: `tunnelMtu` says which
 */
export function vpnConfigOf(
  file: QuickFile,
  { name, mtu }: { name: string; mtu: number },
): { config: VpnConfig; warnings: string[] } {
  const { addresses, dnsServers, searchDomains } = file.interface;
  const accepted = acceptedFamilies(file);
  const families = FAMILIES.filter((family) => accepted[family]);
  const wishes = { 1: wishOf(file, IPV4), 2: wishOf(file, IPV6) };
  const routes = families.flatMap((family) => wishes[family].routes.map((prefix) => route(prefix, false)));
  const outside = families.map((family) => route(EVERYTHING[family], true));
  const config: VpnConfig = {
    addresses: addresses.map(({ value }) => linkAddress(value)),
    routes: routes.length > 0 ? routes : outside,
    dnsAddresses: dnsServers.map(({ value }) => value).filter((server) => wishes[familyOf(server)].hasAddress),
    searchDomains: searchDomains.map(({ value }) => value),
    mtu,
    isIPv4Accepted: accepted[IPV4],
    isIPv6Accepted: accepted[IPV6],
    isLegacy: true,
    vpnId: name,
  };
  checkRouteCount(routes.length, file);
  check(config, file);
  return { config, warnings: warningsOf(file, wishes, accepted) };
}

function linkAddress({ address, prefixLength }: Prefix): VpnConfig['addresses'][number] {
  return { address: { address, family: familyOf(address) }, prefixLength };
}

function route(prefix: Prefix, isExcludedRoute: boolean): RouteInfo {
  const destination = linkAddress(prefix);
  const gateway = { address: '' };
  const isDefaultRoute = prefix.prefixLength === 0;
  return { destination, gateway, isDefaultRoute, ...(isExcludedRoute ? { isExcludedRoute } : {}) };
}

function checkRouteCount(count: number, { path, interface: own, peers }: QuickFile): void {
  if (count <= MAX_ROUTES) return;
  const line = peers.find(({ allowedIps }) => allowedIps.length > 0)?.allowedIps[0]?.line ?? own.line;
  const reason = `AllowedIPs: neighbours joined, ${count} routes are left, and vpnd takes ${MAX_ROUTES}; leave some out, or write larger prefixes`;
  throw new FileProblem(EX_CONFIG, path, line, reason);
}

/** The very functions of the service, so that what it would refuse is said before anything is set up. */
function check(config: VpnConfig, { path, interface: { line } }: QuickFile): void {
  try {
    checkVpnConfig(parseVpnConfig(config), '');
  } catch (error) {
    if (!(error instanceof BusinessError)) throw error;
    throw new FileProblem(EX_CONFIG, path, line, `vpnd does not take this: ${error.message}`);
  }
}

function warningsOf(
  file: QuickFile,
  wishes: Readonly<Record<Family, Wish>>,
  accepted: Readonly<Record<Family, boolean>>,
): string[] {
  const { path, interface: own, peers } = file;
  const warnings: string[] = [];
  const warn = (line: number, text: string) => void warnings.push(warning(path, line, text));
  for (const family of FAMILIES) {
    const other = wishes[family === IPV4 ? IPV6 : IPV4];
    const { hasAddress, hasDefault, routes } = wishes[family];
    const everything = prefixText(EVERYTHING[family]);
    if (hasAddress && !hasDefault && other.hasDefault) {
      const line = own.addresses.find(({ value }) => familyOf(value.address) === family)?.line ?? own.line;
      warn(line, `AllowedIPs have no ${everything}, so ${NAME[family]} leaves outside the VPN but for what they name`);
    }
    if (!hasAddress && routes.length > 0 && !accepted[family]) {
      const lines = peers
        .flatMap(({ allowedIps }) => allowedIps)
        .filter(({ value }) => familyOf(value.address) === family);
      warn(lines[0]?.line ?? own.line, `there is no ${NAME[family]} Address, so ${NAME[family]} is refused, not sent`);
    }
    for (const { value, line } of own.dnsServers) {
      if (familyOf(value) === family && !hasAddress) {
        warn(line, `there is no ${NAME[family]} Address to ask ${value} from, so this DNS server is left out`);
      }
      // The network of an Address is routed into the VPN, whoever is there for it.
      const isWithin = (prefix: Prefix) => familyOf(value) === family && prefixContains(prefix, value);
      const isLed = own.addresses.some((address) => isWithin(address.value));
      if (isLed && !peers.some(({ allowedIps }) => allowedIps.some((allowed) => isWithin(allowed.value)))) {
        warn(
          line,
          `no peer's AllowedIPs have ${value}, so this DNS server, which is in the network of Address, never answers`,
        );
      }
    }
  }
  if (own.fwMark && own.fwMark.value !== 0) {
    warn(own.fwMark.line, 'FwMark is not used: vpnd marks the socket of the tunnel itself, and wg show says how');
  }
  const isSplit = !wishes[IPV4].hasDefault && !wishes[IPV6].hasDefault;
  if (own.mtu && isSplit && !accepted[IPV6] && wishes[IPV6].routes.length === 0) {
    warn(own.mtu.line, `MTU is under ${MIN_IPV6_MTU}, which IPv6 needs, so IPv6 is refused while the VPN is up`);
  }
  return warnings;
}

/**
 * The shape of a VpnConfig: from any value to a fresh, canonical copy, or 401. The client calls this at the call, the
 * service again on what came over the wire, so the result is accepted by itself unchanged, also after a trip through JSON.
 * What is well-typed but wrong (2200001) is checkVpnConfig's business; nothing here depends on who asks.
 */
import {
  addressBits,
  canonicalAddress,
  clearHostBits,
  familyOf,
  isUnspecified,
  literalFamily,
  type Prefix,
  reservedHosts,
} from './address.js';
import { BusinessError } from './errors.js';
import {
  MAX_ADDRESS_LENGTH,
  MAX_ADDRESSES,
  MAX_APPLICATION_LENGTH,
  MAX_APPLICATIONS,
  MAX_DNS_ADDRESSES,
  MAX_DOMAIN_LENGTH,
  MAX_INTERFACE_LENGTH,
  MAX_ROUTES,
  MAX_SEARCH_DOMAINS,
  MAX_VPN_ID_LENGTH,
} from './limits.js';
import { quote } from './quote.js';
import { type Family, IPV4, type LinkAddress, type NetAddress, type RouteInfo, type VpnConfig } from './vpn-types.js';

type Fields = Readonly<Record<string, unknown>>;
type Parse<T> = (value: unknown, field: string) => T;

/**
 * Copies `value` as a VpnConfig, reading every property once. Throws BusinessError 401 for a missing mandatory field, for
 * `null` or another type anywhere, and for anything in `addresses` and `routes` that is no valid literal, prefix or family.
 *
 * In the copy literals are canonical, `family` is filled in, host bits of destinations are cleared, a gateway that means
 * "none" is `{address: ''}`, absent and unknown fields are left out. Lists and texts longer than their limit are read to
 * the end, but the copy keeps one entry or character more than the limit: enough for checkVpnConfig to refuse it, and
 * small enough for the wire.
 *
 * @example parseVpnConfig({ addresses: [{ address: { address: '10.0.0.5' }, prefixLength: 24 }] })
 *          // { addresses: [{ address: { address: '10.0.0.5', family: 1 }, prefixLength: 24 }] }
 */
export function parseVpnConfig(value: unknown): VpnConfig {
  const fields = object(value, 'config');
  const config: VpnConfig = { addresses: list(MAX_ADDRESSES, linkAddress)(fields.addresses, 'config.addresses') };
  const applications = list(MAX_APPLICATIONS, text(MAX_APPLICATION_LENGTH));
  set(config, 'routes', fields.routes, 'config', list(MAX_ROUTES, route));
  set(config, 'dnsAddresses', fields.dnsAddresses, 'config', list(MAX_DNS_ADDRESSES, text(MAX_ADDRESS_LENGTH)));
  set(config, 'searchDomains', fields.searchDomains, 'config', list(MAX_SEARCH_DOMAINS, text(MAX_DOMAIN_LENGTH)));
  set(config, 'mtu', fields.mtu, 'config', mtu);
  set(config, 'isIPv4Accepted', fields.isIPv4Accepted, 'config', boolean);
  set(config, 'isIPv6Accepted', fields.isIPv6Accepted, 'config', boolean);
  set(config, 'isLegacy', fields.isLegacy, 'config', boolean);
  set(config, 'isBlocking', fields.isBlocking, 'config', boolean);
  set(config, 'isMetered', fields.isMetered, 'config', boolean);
  set(config, 'vpnId', fields.vpnId, 'config', text(MAX_VPN_ID_LENGTH));
  set(config, 'trustedApplications', fields.trustedApplications, 'config', applications);
  set(config, 'blockedApplications', fields.blockedApplications, 'config', applications);
  return config;
}

function linkAddress(value: unknown, field: string): LinkAddress {
  const given = prefix(value, field, 1);
  const { family, prefixLength } = given;
  const address = clearHostBits(given.address, addressBits(family));
  if (reservedHosts({ address, prefixLength }).includes(address)) {
    fault(`${field}.address.address`, `${address} is the network or broadcast address of its /${prefixLength}`);
  }
  return { address: { address, family }, prefixLength };
}

function route(value: unknown, field: string): RouteInfo {
  const fields = object(value, field);
  const { address, prefixLength, family } = prefix(fields.destination, `${field}.destination`, 0);
  const copy: RouteInfo = {
    destination: { address: { address: clearHostBits(address, prefixLength), family }, prefixLength },
    gateway: gateway(fields.gateway, `${field}.gateway`, family),
  };
  set(copy, 'interface', fields.interface, field, interfaceName);
  set(copy, 'hasGateway', fields.hasGateway, field, boolean);
  set(copy, 'isDefaultRoute', fields.isDefaultRoute, field, boolean);
  set(copy, 'isExcludedRoute', fields.isExcludedRoute, field, boolean);
  return copy;
}

function length(value: unknown, field: string, minimum: number, maximum: number): number {
  if (typeof value !== 'number') fault(`${field}.prefixLength`, wrong(value, 'a number'));
  if (!Number.isInteger(value) || value < minimum || value > maximum) {
    fault(`${field}.prefixLength`, `${value} is not ${minimum}..${maximum}`);
  }
  return value + 0; // -0 would come back from JSON as 0
}

/** The literal as given, only checked: the callers make it canonical, in one step with clearing host bits. */
function prefix(value: unknown, field: string, minimum: number): Prefix & { family: Family } {
  const fields = object(value, field);
  const addressField = `${field}.address`;
  const { address, family } = object(fields.address, addressField);
  const literal = string(address, `${addressField}.address`);
  const literalIs = literalFamily(literal) ?? fault(`${addressField}.address`, notLiteral(literal));
  checkFamily(family, `${addressField}.family`, literal);
  return {
    address: literal,
    family: literalIs,
    prefixLength: length(fields.prefixLength, field, minimum, addressBits(literalIs)),
  };
}

/** Absent, empty and unspecified mean none, whatever the route's family. */
function gateway(value: unknown, field: string, routeFamily: Family): NetAddress {
  const fields = object(value, field);
  const given = fields.address === undefined ? '' : string(fields.address, `${field}.address`);
  const address = given === '' ? '' : (canonicalAddress(given) ?? fault(`${field}.address`, notLiteral(given)));
  checkFamily(fields.family, `${field}.family`, address);
  if (address === '' || isUnspecified(address)) return { address: '' };
  if (familyOf(address) !== routeFamily) {
    fault(`${field}.address`, `${address} is not an ${familyName(routeFamily)} address like the route's destination`);
  }
  return { address, family: routeFamily };
}

function checkFamily(value: unknown, field: string, address: string): void {
  if (value === undefined) return;
  if (typeof value !== 'number') fault(field, wrong(value, 'a number'));
  if (value !== 1 && value !== 2) fault(field, `${value} is not 1 (IPv4) or 2 (IPv6)`);
  if (address !== '' && value !== familyOf(address)) {
    fault(field, `${value} (${familyName(value)}) does not agree with ${address}`);
  }
}

function familyName(family: Family): string {
  return family === IPV4 ? 'IPv4' : 'IPv6';
}

function notLiteral(given: string): string {
  return `${quote(given)} is not an IPv4 or IPv6 address`;
}

/** Any number is of the right type. JSON has none that is not finite; 0 is refused like them, by checkVpnConfig. */
function mtu(value: unknown, field: string): number {
  if (typeof value !== 'number') fault(field, wrong(value, 'a number'));
  return Number.isFinite(value) ? value + 0 : 0;
}

function boolean(value: unknown, field: string): boolean {
  return typeof value === 'boolean' ? value : fault(field, wrong(value, 'a boolean'));
}

function string(value: unknown, field: string): string {
  return typeof value === 'string' ? value : fault(field, wrong(value, 'a string'));
}

function text(maximum: number): Parse<string> {
  return (value, field) => string(value, field).slice(0, maximum + 1);
}

const interfaceName = text(MAX_INTERFACE_LENGTH);

function list<T>(maximum: number, element: Parse<T>): Parse<T[]> {
  return (value, field) => {
    if (!Array.isArray(value)) fault(field, wrong(value, 'an array'));
    const copy: T[] = [];
    const count = value.length;
    for (let index = 0; index < count; index++) {
      const parsed = element(value[index], `${field}[${index}]`);
      if (copy.length <= maximum) copy.push(parsed);
    }
    return copy;
  };
}

function object(value: unknown, field: string): Fields {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Fields;
  return fault(field, wrong(value, 'an object'));
}

/** Assignment, because spreading objects together costs several microseconds a route. */
function set<T extends object, K extends keyof T & string>(
  copy: T,
  key: K,
  value: unknown,
  path: string,
  parse: Parse<Exclude<T[K], undefined>>,
): void {
  if (value !== undefined) copy[key] = parse(value, `${path}.${key}`);
}

function wrong(value: unknown, wanted: string): string {
  return value === undefined ? 'is missing' : `${quote(value)} is not ${wanted}`;
}

function fault(field: string, reason: string): never {
  throw new BusinessError(401, field, reason);
}

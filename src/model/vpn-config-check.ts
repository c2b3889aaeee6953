/**
 * What is well-typed but wrong in a VpnConfig (2200001), and the defaults: from the copy of parseVpnConfig to the VpnSpec
 * that the host builds. Only whether an application's name exists is decided elsewhere, because it takes the machine.
 */
import { canonicalAddress, familyOf, isHostAddress, literalFamily } from './address.js';
import { BusinessError } from './errors.js';
import {
  DEFAULT_MTU,
  MAX_ADDRESSES,
  MAX_APPLICATION_LENGTH,
  MAX_APPLICATIONS,
  MAX_DNS_ADDRESSES,
  MAX_DOMAIN_LENGTH,
  MAX_MTU,
  MAX_ROUTES,
  MAX_SEARCH_DOMAINS,
  MAX_VPN_ID_LENGTH,
  MIN_IPV6_MTU,
  MIN_MTU,
} from './limits.js';
import { hasControlCharacter, quote } from './quote.js';
import { checkRoutes } from './vpn-route-check.js';
import type { SpecAddress, SpecServer, VpnSpec } from './vpn-spec.js';
import { IPV4, IPV6, type VpnConfig } from './vpn-types.js';

type Accepted = VpnSpec['accepted'];

/**
 * Throws BusinessError 2200001 with the field at fault. In this order: list lengths (64 DNS servers, 64 domains, 256
 * applications a list, 1..2000 addresses, 10,000 routes); addresses no host can have (unspecified, loopback, multicast;
 * as Android refuses them) or given twice, whatever their prefix length; an address of a family that is not accepted; mtu
 * not an integer in 576..65535, or under 1280 with IPv6; routes (see checkRoutes); DNS servers that are no strict literal
 * or no host's address; search domains that are no domain name; both application lists non-empty, or an application's
 * name that is empty, over 1024 characters or has control characters; vpnId likewise, over 64 characters.
 *
 * Accepted families: IPv4 unless `isIPv4Accepted` is false. IPv6 as `isIPv6Accepted` says; where it is absent, if
 * `addresses` has an IPv6 address. Repeated DNS servers, domains and application names count once.
 *
 * @param config what parseVpnConfig returned
 * @param linkName the vNIC's name, the only one that `routes[].interface` may have
 */
export function checkVpnConfig(config: VpnConfig, linkName: string): VpnSpec {
  checkCounts(config);
  const addresses = checkAddresses(config);
  const accepted = acceptedFamilies(config, addresses);
  checkAccepted(addresses, accepted);
  const mtu = checkMtu(config.mtu ?? DEFAULT_MTU, accepted);
  const routes = checkRoutes(config.routes ?? [], addresses, accepted, linkName);
  const dnsAddresses = (config.dnsAddresses ?? []).map(checkServer);
  const searchDomains = (config.searchDomains ?? []).map(checkDomain);
  checkApplications(config);
  return {
    mtu,
    isBlocking: config.isBlocking ?? false,
    isLegacy: config.isLegacy ?? false,
    isMetered: config.isMetered ?? false,
    ...(config.vpnId === undefined ? {} : { vpnId: checkVpnId(config.vpnId) }),
    addresses,
    accepted,
    routes,
    dnsAddresses: [...new Map(dnsAddresses.map((server) => [server.address, server])).values()],
    searchDomains: [...new Set(searchDomains)],
    trustedApplications: [...new Set(config.trustedApplications)],
    blockedApplications: [...new Set(config.blockedApplications)],
  };
}

function checkCounts(config: VpnConfig): void {
  if (config.addresses.length === 0) fault('config.addresses', 'is empty; a VPN needs an address');
  const limits = {
    addresses: MAX_ADDRESSES,
    routes: MAX_ROUTES,
    dnsAddresses: MAX_DNS_ADDRESSES,
    searchDomains: MAX_SEARCH_DOMAINS,
    trustedApplications: MAX_APPLICATIONS,
    blockedApplications: MAX_APPLICATIONS,
  };
  for (const [name, maximum] of Object.entries(limits)) {
    const count = config[name as keyof typeof limits]?.length ?? 0;
    if (count > maximum) fault(`config.${name}`, `has more than ${maximum} entries`);
  }
}

function checkAddresses(config: VpnConfig): SpecAddress[] {
  const seen = new Map<string, number>();
  return config.addresses.map(({ address: { address }, prefixLength }, index) => {
    const field = `config.addresses[${index}].address.address`;
    if (!isHostAddress(address)) fault(field, `${address} cannot be the address of a host`);
    const first = seen.get(address);
    if (first !== undefined) fault(field, `${address} is config.addresses[${first}] already`);
    seen.set(address, index);
    return { family: familyOf(address), address, prefixLength };
  });
}

function acceptedFamilies(config: VpnConfig, addresses: readonly SpecAddress[]): Accepted {
  const hasIpv6Address = addresses.some(({ family }) => family === IPV6);
  return { 1: config.isIPv4Accepted ?? true, 2: config.isIPv6Accepted ?? hasIpv6Address };
}

function checkAccepted(addresses: readonly SpecAddress[], accepted: Accepted): void {
  for (const [index, { family, address }] of addresses.entries()) {
    if (accepted[family]) continue;
    const flag = family === IPV4 ? 'config.isIPv4Accepted' : 'config.isIPv6Accepted';
    fault(`config.addresses[${index}].address.address`, `${address} is of a family that ${flag} does not accept`);
  }
}

function checkMtu(mtu: number, accepted: Accepted): number {
  if (!Number.isInteger(mtu) || mtu < MIN_MTU || mtu > MAX_MTU) {
    fault('config.mtu', `${mtu} is not an integer in ${MIN_MTU}..${MAX_MTU}`);
  }
  if (accepted[IPV6] && mtu < MIN_IPV6_MTU) {
    fault('config.mtu', `${mtu} is under ${MIN_IPV6_MTU}, which IPv6 needs`);
  }
  return mtu;
}

function checkServer(text: string, index: number): SpecServer {
  const field = `config.dnsAddresses[${index}]`;
  const address = canonicalAddress(text) ?? fault(field, `${quote(text)} is not an IPv4 or IPv6 address`);
  if (!isHostAddress(address)) fault(field, `${address} cannot be the address of a DNS server`);
  return { family: familyOf(address), address };
}

/** RFC 1035 section 2.3.4 for the lengths; underscores because service names have them. */
function checkDomain(text: string, index: number): string {
  const name = text.endsWith('.') ? text.slice(0, -1) : text;
  const isName = /^[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*$/.test(name) && name.length < MAX_DOMAIN_LENGTH;
  if (isName && literalFamily(name) === undefined) return name.toLowerCase();
  return fault(`config.searchDomains[${index}]`, `${quote(text)} is not a domain name`);
}

function checkApplications(config: VpnConfig): void {
  const { trustedApplications = [], blockedApplications = [] } = config;
  if (trustedApplications.length > 0 && blockedApplications.length > 0) {
    fault('config.blockedApplications', 'has entries although config.trustedApplications has some; use one list');
  }
  for (const [list, names] of Object.entries({ trustedApplications, blockedApplications })) {
    for (const [index, name] of names.entries()) {
      checkName(name, `config.${list}[${index}]`, MAX_APPLICATION_LENGTH);
      if (name === '') fault(`config.${list}[${index}]`, 'is empty');
    }
  }
}

function checkVpnId(id: string): string {
  checkName(id, 'config.vpnId', MAX_VPN_ID_LENGTH);
  return id;
}

function checkName(name: string, field: string, maximum: number): void {
  if (name.length > maximum) fault(field, `${quote(name)} has more than ${maximum} characters`);
  if (hasControlCharacter(name)) fault(field, `${quote(name)} has control characters`);
}

function fault(field: string, reason: string): never {
  throw new BusinessError(2200001, field, reason);
}

/**
 * The API's value types, as `@ohos.net.vpn` and `@ohos.net.connection` write them. The same shapes travel from the caller
 * over the wire to the host plan; there is no second set of types.
 */

/** 1 = IPv4, 2 = IPv6. Not AF_INET and AF_INET6. */
export type Family = 1 | 2;
export const IPV4: Family = 1;
export const IPV6: Family = 2;
export const FAMILIES: readonly Family[] = [IPV4, IPV6];

/** An IP address. `family` defaults to that of the literal; `port` is ignored by VPNs. */
export interface NetAddress {
  address: string;
  family?: number;
  port?: number;
}

/** An address with the length of its network prefix in bits. */
export interface LinkAddress {
  address: NetAddress;
  prefixLength: number;
}

/** One route of the vNIC. `isExcludedRoute`: the prefix leaves by the physical network instead. */
export interface RouteInfo {
  interface?: string;
  destination: LinkAddress;
  gateway: NetAddress;
  hasGateway?: boolean;
  isDefaultRoute?: boolean;
  isExcludedRoute?: boolean;
}

/** What `setUp` takes. See docs/api.md for every field's effect. */
export interface VpnConfig {
  addresses: LinkAddress[];
  routes?: RouteInfo[];
  dnsAddresses?: string[];
  searchDomains?: string[];
  /** Bytes; 576..65535, at least 1280 with IPv6. Default 1500. */
  mtu?: number;
  isIPv4Accepted?: boolean;
  isIPv6Accepted?: boolean;
  isLegacy?: boolean;
  isBlocking?: boolean;
  isMetered?: boolean;
  vpnId?: string;
  trustedApplications?: string[];
  blockedApplications?: string[];
}

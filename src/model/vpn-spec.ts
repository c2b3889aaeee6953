/**
 * A VPN as the host builds it: a VpnConfig with every default applied and every rule of the contract checked. All literals
 * are canonical. Plain data, so that it survives JSON and a journal.
 */
import type { Family } from './vpn-types.js';

export interface VpnSpec {
  readonly mtu: number;
  readonly isBlocking: boolean;
  readonly isLegacy: boolean;
  readonly isMetered: boolean;
  readonly vpnId?: string;
  /** At least one. */
  readonly addresses: readonly SpecAddress[];
  /** Covered traffic of a family that is not accepted is refused, not leaked. */
  readonly accepted: Readonly<Record<Family, boolean>>;
  /** No two with the same destination and prefix length; at least one is included unless the app excluded everything. */
  readonly routes: readonly SpecRoute[];
  readonly dnsAddresses: readonly SpecServer[];
  /** Lower case, without the trailing dot. */
  readonly searchDomains: readonly string[];
  /** At most one of the two lists has entries. Names as the app wrote them; whether they exist is checked elsewhere. */
  readonly trustedApplications: readonly string[];
  readonly blockedApplications: readonly string[];
}

export interface SpecAddress {
  readonly family: Family;
  readonly address: string;
  readonly prefixLength: number;
}

export interface SpecRoute {
  readonly family: Family;
  /** Host bits are clear. */
  readonly destination: string;
  readonly prefixLength: number;
  /** On-link, and not the vNIC itself. Without it the route is one to the device. No effect on an excluded route. */
  readonly gateway?: string;
  /** The prefix leaves by the physical network. */
  readonly isExcluded: boolean;
}

export interface SpecServer {
  readonly family: Family;
  readonly address: string;
}

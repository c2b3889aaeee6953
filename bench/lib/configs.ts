/** The VPNs that are measured. */

import { outsideServers } from '../../src/host/dns-servers.js';
import { LAST_UID, slotNumbers } from '../../src/host/numbers.js';
import { type Plan, planVpn, selectionsNeeded } from '../../src/host/plan.js';
import { bucketsOf, Sections } from '../../src/host/sections.js';
import { parseVpnConfig } from '../../src/model/vpn-config.js';
import { checkVpnConfig } from '../../src/model/vpn-config-check.js';
import type { RouteInfo, VpnConfig } from '../../src/model/vpn-types.js';

export const OWNER = 2001;

const ipv4 = { address: { address: '10.9.0.5' }, prefixLength: 24 };
const ipv6 = { address: { address: 'fd09::5' }, prefixLength: 64 };
const everything = route('0.0.0.0', 0);

function route(address: string, prefixLength: number): RouteInfo {
  return { destination: { address: { address }, prefixLength }, gateway: { address: '' } };
}

/** /24s from 20.0.0.0 on. */
function prefixes(count: number): RouteInfo[] {
  return Array.from({ length: count }, (_, index) => route(`20.${index >> 8}.${index & 0xff}.0`, 24));
}

export const SMALL: Readonly<Record<string, VpnConfig>> = {
  IPv4: { addresses: [ipv4] },
  'IPv4 and IPv6': { addresses: [ipv4, ipv6] },
  'both, with DNS': { addresses: [ipv4, ipv6], dnsAddresses: ['10.9.0.53', 'fd09::53'] },
};

/** Without a default route each prefix also gets an unreachable route behind, so that it stays closed. */
export const LARGE: Readonly<Record<string, VpnConfig>> = {
  '10,000 routes, one default': { addresses: [ipv4], routes: [...prefixes(9999), everything] },
  '10,000 routes, no default': { addresses: [ipv4], routes: prefixes(10_000) },
};

/** The plan that vpnd makes of it when it is the only VPN. */
export function planOf(config: VpnConfig): Plan {
  const spec = checkVpnConfig(parseVpnConfig(config), slotNumbers(0).link);
  const needed = selectionsNeeded({ spec, trusted: [], blocked: [] });
  const selections = Object.fromEntries(needed.map((purpose, index) => [purpose, index + 1]));
  const sections = new Sections().acquire(bucketsOf(OWNER, spec, LAST_UID));
  return planVpn({
    slot: 0,
    owner: OWNER,
    spec,
    offload: false,
    trusted: [],
    blocked: [],
    selections,
    sections,
    outsideServers: outsideServers(spec, []),
    cgroups: { covered: [], blocked: [] },
    lastUid: LAST_UID,
  });
}

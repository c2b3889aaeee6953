/**
 * The firewall tried out before anybody has a VPN: nft reads and the kernel judges what every VPN needs, as one transaction that is
 * not done. So a service that says it is ready can raise one. What not every VPN needs (lists of applications, several name servers)
 * is refused when it is asked for.
 */
import type { Nftables } from '../kernel/nftables.js';
import { parseVpnConfig } from '../model/vpn-config.js';
import { checkVpnConfig } from '../model/vpn-config-check.js';
import { type FirewallOptions, firewallBase, firewallTables } from './firewall-base.js';
import { LAST_UID, slotNumbers } from './numbers.js';
import { planVpn, selectionsNeeded } from './plan.js';
import { firewallAdditions } from './plan-firewall.js';
import { bucketsOf, Sections } from './sections.js';

/** Tables of these names may stand: a predecessor's are swept later. */
const PROBE = 'vpnd_probe';

/** Throws NftablesError for what nft or the kernel refuses. */
export function tryFirewall(nftables: Nftables, options: FirewallOptions): void {
  const commands = [...firewallTables(), ...firewallBase(options), ...vpn(0, 0), ...vpn(1, 2001)];
  nftables.check(commands.map((command) => command.replace(/\b(inet|arp|netdev) vpnd\b/g, `$1 ${PROBE}`)).join('\n'));
}

/** Of both families, with name servers, a prefix that it takes and one that it leaves. */
function vpn(slot: number, owner: number): string[] {
  const address = (text: string, prefixLength: number) => ({ address: { address: text }, prefixLength });
  const route = (text: string, prefixLength: number, isExcludedRoute: boolean) => ({
    destination: address(text, prefixLength),
    gateway: { address: '' },
    isExcludedRoute,
  });
  const config = parseVpnConfig({
    addresses: [address(`192.0.2.${slot + 1}`, 32), address(`2001:db8::${slot + 1}`, 128)],
    routes: [route('0.0.0.0', 0, false), route('::', 0, false), route('198.51.100.0', 24, true)],
    dnsAddresses: ['192.0.2.53', '2001:db8::53'],
  });
  const spec = checkVpnConfig(config, slotNumbers(slot).link);
  const nobody = { trusted: [], blocked: [] };
  const needed = selectionsNeeded({ spec, ...nobody });
  const plan = planVpn({
    slot,
    owner,
    spec,
    ...nobody,
    offload: false,
    lastUid: LAST_UID,
    selections: Object.fromEntries(needed.map((purpose) => [purpose, slot + 1])),
    sections: new Sections().acquire(bucketsOf(owner, spec, LAST_UID)),
    cgroups: { covered: [], blocked: [] },
    outsideServers: [],
  });
  return firewallAdditions(plan.firewall);
}

/** The VPNs and the policy of `npm run bench:policy`. */
import type { VpnConfig } from '../../src/model/vpn-types.js';

export const FIRST_POLICY_UID = 10_000;
export const POLICY_VPNS = 16;
export const TUNNEL_MTU = 1400;
/** Behind the tunnel of user 0. */
export const TUNNEL_TARGETS = { IPv4: '203.0.113.10', IPv6: '2001:db8:f::10' } as const;

const MANAGE_VPN = 'ohos.permission.MANAGE_VPN';

/** User N's: two families, two DNS servers, and a list that names the user and a cgroup of its own. */
export function policyVpnConfig(index: number, cgroups: string | undefined): VpnConfig {
  const net6 = `fd09:0:${index.toString(16)}:`;
  return {
    addresses: [
      { address: { address: `10.9.${index}.2` }, prefixLength: 24 },
      { address: { address: `${net6}:2` }, prefixLength: 64 },
    ],
    mtu: TUNNEL_MTU,
    dnsAddresses: [`10.9.${index}.1`, `${net6}:1`],
    trustedApplications: [
      `uid:${FIRST_POLICY_UID + index}`,
      ...(cgroups === undefined ? [] : [`cgroup:${cgroups}/app-${index}`]),
    ],
  };
}

/** Makes callers of all users. `lan` is what a reload changes. */
export function benchPolicy(lan: 'private' | 'off'): object {
  const uids = Array.from({ length: POLICY_VPNS }, (_, index) => FIRST_POLICY_UID + index);
  return { callers: uids.map((uid) => ({ match: { uid }, system: true, permissions: [MANAGE_VPN] })), lan };
}

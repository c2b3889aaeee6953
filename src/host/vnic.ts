/** The link of a VPN: made closed and quiet, described by its plan; LinkDeleter ends it. */
import type { NetlinkRequest } from '../kernel/netlink-socket.js';
import {
  addRoute,
  configureLink,
  deleteRoute,
  type RouteSettings,
  RT_TABLE_LOCAL,
  RTPROT_KERNEL,
  setLinkUp,
} from '../kernel/rtnetlink.js';
import { openTun, setBlocking, type Tun } from '../kernel/tun.js';
import { BusinessError } from '../model/errors.js';
import { IPV6 } from '../model/vpn-types.js';
import { ipv4Settings } from './link-settings.js';
import { LINK_GROUP, UNREACHABLE_METRIC } from './numbers.js';
import { additions } from './operation.js';
import type { Plan } from './plan.js';
import { setSysctl } from './sysctl-file.js';

/** Down and without addresses. */
export function makeVnic(plan: Plan): Tun {
  return openTun(plan.link.name, { vnetHeader: plan.link.vnetHeader });
}

/**
 * Before it has addresses. Returns the sysctls that could not be set, with their values. Throws BusinessError 2200003 when one of
 * them is needed.
 */
export function prepareVnic(plan: Plan, tun: Tun, isBlocking: boolean): string[] {
  setBlocking(tun.fd, isBlocking);
  return setIpv6(plan);
}

/** What gives it its addresses and brings it up. */
export function vnicRequests(plan: Plan, tun: Tun): NetlinkRequest[] {
  const groups = plan.link.ipv6 ? [addRoute(toGroups(tun, groupsMetric(plan.slot)), tun.ifindex)] : [];
  return [settings(plan, tun), ...additions(plan.addresses, tun.ifindex), setLinkUp(tun), ...groups];
}

/** When it is up, and whenever others have had their hands on it. It is no failure when there is nothing to be done. */
export function vnicCorrections(plan: Plan, tun: Tun): NetlinkRequest[] {
  const groups = plan.link.ipv6 ? [deleteRoute(toGroups(tun, IP6_RT_PRIO_ADDRCONF), tun.ifindex)] : [];
  return [settings(plan, tun), ...groups];
}

function settings(plan: Plan, tun: Tun): NetlinkRequest {
  const ipv4 = ipv4Settings(plan.link.routeLocalnet);
  return configureLink({ ...plan.link, ifindex: tun.ifindex, group: LINK_GROUP, ipv4 });
}

/** Behind all others. Each slot has its own: of one metric there is one route. */
export function groupsMetric(slot: number): number {
  return UNREACHABLE_METRIC - slot;
}

/** Of the routes that the kernel gives links that come up. */
const IP6_RT_PRIO_ADDRCONF = 256;

/**
 * To IPv6's groups by the vNIC: for who names it, and for what comes in. The kernel's own would, when all other links have been down for
 * a moment, be the first of all, and what anybody on this host sends to a group without naming a link would go into the vNIC.
 */
function toGroups(dev: { name: string }, metric: number): RouteSettings {
  return {
    type: 'multicast',
    family: IPV6,
    destination: 'ff00::',
    prefixLength: 8,
    table: RT_TABLE_LOCAL,
    protocol: RTPROT_KERNEL,
    metric,
    dev: dev.name,
  };
}

/**
 * IPv6 has these for /proc/sys only. A link in this state was made a moment ago, by us, in our namespace: the path is ours. Returns
 * what could not be set and is not missed, since the firewall does the same.
 */
function setIpv6({ link }: Plan): string[] {
  const name = `net.ipv6.conf.${link.name}`;
  const directory = `/proc/sys/net/ipv6/conf/${link.name}`;
  const disabled = setSysctl(`${directory}/disable_ipv6`, link.ipv6 ? '0' : '1');
  // A kernel without IPv6 has nothing to switch off.
  if (disabled === 'absent' && !link.ipv6) return [];
  if (link.ipv6 && disabled !== 'as wanted') throw new BusinessError(2200003, undefined, withoutIpv6(name, disabled));
  // A router advertisement from the tunnel must not configure this host.
  const advertised = setSysctl(`${directory}/accept_ra`, '0');
  return [
    ...(disabled === 'denied' ? [`${name}.disable_ipv6=1`] : []),
    ...(advertised === 'denied' ? [`${name}.accept_ra=0`] : []),
  ];
}

function withoutIpv6(name: string, why: 'absent' | 'denied'): string {
  const instead = 'or leave IPv6 addresses and routes out of the VPN';
  return why === 'absent'
    ? `this machine has no IPv6 (there is no sysctl ${name}.disable_ipv6): switch it on, ${instead}`
    : `IPv6 is off for new links (${name}.disable_ipv6=1), and /proc/sys is read-only for vpnd: set net.ipv6.conf.default.disable_ipv6=0 from outside (of a container: --sysctl net.ipv6.conf.default.disable_ipv6=0), ${instead}`;
}

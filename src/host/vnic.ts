/** The link of a VPN: made closed and quiet, described by its plan; LinkDeleter ends it. */
import type { NetlinkRequest } from '../kernel/netlink-socket.js';
import { configureLink, setLinkUp } from '../kernel/rtnetlink.js';
import { openTun, setBlocking, type Tun } from '../kernel/tun.js';
import { BusinessError } from '../model/errors.js';
import { ipv4Settings } from './link-settings.js';
import { LINK_GROUP } from './numbers.js';
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
  return [vnicSettings(plan, tun), ...additions(plan.addresses, tun.ifindex), setLinkUp(tun)];
}

/** All that netlink can set of the link itself. */
export function vnicSettings(plan: Plan, tun: Tun): NetlinkRequest {
  const ipv4 = ipv4Settings(plan.link.routeLocalnet);
  return configureLink({ ...plan.link, ifindex: tun.ifindex, group: LINK_GROUP, ipv4 });
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

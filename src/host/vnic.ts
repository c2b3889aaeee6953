/** The link of a VPN: made closed and quiet, described by its plan; LinkDeleter ends it. */
import { writeFileSync } from 'node:fs';
import type { NetlinkRequest } from '../kernel/netlink-socket.js';
import { configureLink, setLinkUp } from '../kernel/rtnetlink.js';
import { openTun, setBlocking, type Tun } from '../kernel/tun.js';
import { LINK_GROUP } from './numbers.js';
import { additions } from './operation.js';
import type { Plan } from './plan.js';

/** Down and without addresses. */
export function makeVnic(plan: Plan): Tun {
  return openTun(plan.link.name, { vnetHeader: plan.link.vnetHeader });
}

/** Before it has addresses. */
export function prepareVnic(plan: Plan, tun: Tun, isBlocking: boolean): void {
  setBlocking(tun.fd, isBlocking);
  setIpv6(plan);
}

/** What gives it its addresses and brings it up. */
export function vnicRequests(plan: Plan, tun: Tun): NetlinkRequest[] {
  return [
    configureLink({ ...plan.link, ifindex: tun.ifindex, group: LINK_GROUP }),
    ...additions(plan.addresses, tun.ifindex),
    setLinkUp(tun),
  ];
}

/** A link in this state was made a moment ago, by us, in our namespace: the path is ours. */
function setIpv6({ link }: Plan): void {
  const path = `/proc/sys/net/ipv6/conf/${link.name}`;
  try {
    writeFileSync(`${path}/disable_ipv6`, link.ipv6 ? '0' : '1');
    // A router advertisement from the tunnel must not configure this host.
    writeFileSync(`${path}/accept_ra`, '0');
  } catch (error) {
    // A kernel without IPv6 has nothing to switch off.
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || link.ipv6) throw error;
  }
}

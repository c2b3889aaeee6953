/**
 * The IPv4 settings of a vNIC (networking/ip-sysctl in the kernel's documentation), all of which a new link would take from
 * `conf.default`: whatever the host has there is no VPN's. Netlink sets them, also where /proc/sys is read-only, and a later
 * change of the default leaves them alone. Of IPv6 it can set none of these: there the firewall judges (plan-arrivals.ts).
 *
 * Not here: `forwarding`, which is the administrator's word for all links, and of which the firewall makes what it allows;
 * `log_martians`, which is his too and does no harm; what is about ARP and multicast, which a TUN of ours does not have.
 */
import type { Ipv4Setting } from '../kernel/rtnetlink.js';

const SETTINGS = {
  // Loose: an answer to a redirected query has the address of another link by then. The greater value of this and of `all` holds, so 0
  // would be nothing. Which sources may come at all is decided in `arrive`.
  rp_filter: 2,
  // What a filter judges is the packet's VPN, as the firewall marked it, not what is main's way.
  src_valid_mark: 1,
  // Behind a TUN there is no shorter way for anybody, and nobody there says how we send.
  accept_redirects: 0,
  send_redirects: 0,
  accept_source_route: 0,
  // Nobody there has an address of this host, and nothing goes on from there to everyone on a link.
  accept_local: 0,
  bc_forwarding: 0,
  // IPsec that the host asks for holds here as well.
  disable_policy: 0,
  disable_xfrm: 0,
  // Without its holder the vNIC swallows what is sent, as long as it stands.
  ignore_routes_with_linkdown: 0,
  // An address that somebody takes away takes no others of its network along.
  promote_secondaries: 1,
} as const satisfies Partial<Record<Ipv4Setting, number>>;

/** `routeLocalnet`: lets answers of a redirected loopback resolver in. */
export function ipv4Settings(routeLocalnet: boolean): [Ipv4Setting, number][] {
  return [...(Object.entries(SETTINGS) as [Ipv4Setting, number][]), ['route_localnet', routeLocalnet ? 1 : 0]];
}

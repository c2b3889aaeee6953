/**
 * The rtnetlink objects a VPN is made of (rtnetlink(7), linux/if_link.h, if_addr.h, rtnetlink.h, fib_rules.h): links, link
 * addresses, routes, rules. Each function makes a request for `NetlinkSocket.batch`; `add…` fails when the object exists,
 * so that nothing of somebody else's is ever taken over, and `delete…` names the object as exactly as `add…` did.
 */
import { addressBits } from '../model/address.js';
import { MIN_IPV6_MTU } from '../model/limits.js';
import { type Family, IPV6 } from '../model/vpn-types.js';
import { NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from './netlink.js';
import type { NetlinkRequest } from './netlink-socket.js';

export const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
export const RTM_GETLINK = 18;
export const RTM_NEWADDR = 20;
export const RTM_NEWROUTE = 24;
export const RTM_DELROUTE = 25;
export const RTM_GETROUTE = 26;
export const RTM_NEWRULE = 32;
export const RTM_DELRULE = 33;
export const RTM_GETRULE = 34;

export const RT_TABLE_LOCAL = 255;
export const RT_TABLE_MAIN = 254;
export const RT_TABLE_DEFAULT = 253;
export const RTPROT_KERNEL = 2;

const AF_INET = 2;
const AF_INET6 = 10;
const IFF_UP = 1;
const IFF_MULTICAST = 0x1000;
const IFLA_MTU = 4;
const IFLA_AF_SPEC = 26;
const IFLA_GROUP = 27;
const IFLA_INET_CONF = 1;
const IFLA_INET6_ADDR_GEN_MODE = 8;
const IN6_ADDR_GEN_MODE_NONE = 1;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_FLAGS = 8;
const IFA_F_NODAD = 0x02;
const IFA_F_NOPREFIXROUTE = 0x200;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PRIORITY = 6;
const RTA_PREFSRC = 7;
const RTA_TABLE = 15;
const RTNH_F_ONLINK = 4;
const RT_SCOPE_UNIVERSE = 0;
const RT_SCOPE_LINK = 253;
const RT_SCOPE_HOST = 254;
const FIB_RULE_INVERT = 2;
const FRA_SRC = 2;
const FRA_IIFNAME = 3;
const FRA_GOTO = 4;
const FRA_PRIORITY = 6;
const FRA_FWMARK = 10;
const FRA_SUPPRESS_PREFIXLEN = 14;
const FRA_TABLE = 15;
const FRA_FWMASK = 16;
const FRA_L3MDEV = 19;
const FRA_UID_RANGE = 20;
const FRA_PROTOCOL = 21;
const FRA_IP_PROTO = 22;
const FRA_SPORT_RANGE = 23;
const FRA_DPORT_RANGE = 24;

/** IPV4_DEVCONF_* (linux/ip.h), by the names that they have below net.ipv4.conf. */
const IPV4_DEVCONF = {
  accept_redirects: 4,
  send_redirects: 6,
  rp_filter: 8,
  accept_source_route: 9,
  disable_xfrm: 15,
  disable_policy: 16,
  promote_secondaries: 20,
  accept_local: 23,
  src_valid_mark: 24,
  route_localnet: 26,
  ignore_routes_with_linkdown: 29,
  bc_forwarding: 32,
} as const;
export type Ipv4Setting = keyof typeof IPV4_DEVCONF;

/** rtm_type; `throw` ends the look-up in this table, `unreachable` all of it. */
export const ROUTE_TYPES = { unicast: 1, local: 2, multicast: 5, unreachable: 7, throw: 9 } as const;
/** fib_rule_hdr.action; `unreachable` is ENETUNREACH to the caller, as if no rule had matched. */
/** Under the names that iproute2 prints. */
export const IP_PROTOCOLS = { icmp: 1, tcp: 6, udp: 17, 'ipv6-icmp': 58, udplite: 136 } as const;
export const RULE_ACTIONS = { lookup: 1, goto: 2, nop: 3, unreachable: 7, prohibit: 8 } as const;

const addressFamily = (family: Family): number => (family === IPV6 ? AF_INET6 : AF_INET);

function ifinfomsg(ifindex: number, flags = 0, change = 0): Buffer {
  const header = Buffer.alloc(16);
  header.writeInt32LE(ifindex, 4);
  header.writeUInt32LE(flags, 8);
  header.writeUInt32LE(change, 12);
  return header;
}

export interface LinkSettings {
  ifindex: number;
  name: string;
  mtu: number;
  /** Tags the link as ours. */
  group: number;
  /** Of net.ipv4.conf; the others are those of new links. */
  ipv4: readonly (readonly [Ipv4Setting, number])[];
}

/** MTU, group, IPv4's settings and no link-local address; not up yet. Multicast off: no MLD or mDNS chatter that nobody asked for. */
export function configureLink(link: LinkSettings): NetlinkRequest {
  return {
    call: 'RTM_NEWLINK',
    describe: () => `link ${link.name} mtu ${link.mtu} group ${link.group}`,
    write(writer, flags, sequence) {
      writer.begin(RTM_NEWLINK, flags, sequence, ifinfomsg(link.ifindex, 0, IFF_MULTICAST));
      writer.attributeU32(IFLA_MTU, link.mtu);
      writer.attributeU32(IFLA_GROUP, link.group);
      writer.nested(IFLA_AF_SPEC, () => {
        // Below the least MTU of IPv6 the kernel takes IPv6 off the link, and an attribute of it is EAFNOSUPPORT.
        if (link.mtu >= MIN_IPV6_MTU) {
          writer.nested(AF_INET6, () =>
            writer.attribute(IFLA_INET6_ADDR_GEN_MODE, Buffer.from([IN6_ADDR_GEN_MODE_NONE])),
          );
        }
        writer.nested(AF_INET, () =>
          writer.nested(IFLA_INET_CONF, () => {
            for (const [setting, value] of link.ipv4) writer.attributeU32(IPV4_DEVCONF[setting], value);
          }),
        );
      });
      writer.end();
    },
  };
}

export function setLinkUp(link: { ifindex: number; name: string }): NetlinkRequest {
  return {
    call: 'RTM_NEWLINK',
    describe: () => `link ${link.name} up`,
    write(writer, flags, sequence) {
      writer.begin(RTM_NEWLINK, flags, sequence, ifinfomsg(link.ifindex, IFF_UP, IFF_UP));
      writer.end();
    },
  };
}

export function deleteLink(link: { ifindex: number; name: string }): NetlinkRequest {
  return {
    call: 'RTM_DELLINK',
    describe: () => `link ${link.name} index ${link.ifindex}`,
    write(writer, flags, sequence) {
      writer.begin(RTM_DELLINK, flags, sequence, ifinfomsg(link.ifindex));
      writer.end();
    },
  };
}

export function setLinkGroup(link: { ifindex: number; name: string }, group: number): NetlinkRequest {
  return {
    call: 'RTM_NEWLINK',
    describe: () => `link ${link.name} group ${group}`,
    write(writer, flags, sequence) {
      writer.begin(RTM_NEWLINK, flags, sequence, ifinfomsg(link.ifindex));
      writer.attributeU32(IFLA_GROUP, group);
      writer.end();
    },
  };
}

/** All links of a group in one request: one unregister for many, where each alone waits for RCU. */
export function deleteLinkGroup(group: number): NetlinkRequest {
  return {
    call: 'RTM_DELLINK',
    describe: () => `links of group ${group}`,
    write(writer, flags, sequence) {
      writer.begin(RTM_DELLINK, flags, sequence, ifinfomsg(0));
      writer.attributeU32(IFLA_GROUP, group);
      writer.end();
    },
  };
}

export interface AddressSettings {
  family: Family;
  address: string;
  prefixLength: number;
  ifindex: number;
  dev: string;
}

/** noprefixroute: the plan says what is routed. nodad: usable at once, nobody else is on a TUN. */
export function addAddress(address: AddressSettings): NetlinkRequest {
  return {
    call: 'RTM_NEWADDR',
    describe: () => `${address.address}/${address.prefixLength} dev ${address.dev}`,
    write(writer, flags, sequence) {
      const header = Buffer.alloc(8);
      header[0] = addressFamily(address.family);
      header[1] = address.prefixLength;
      header.writeUInt32LE(address.ifindex, 4);
      writer.begin(RTM_NEWADDR, flags | NLM_F_CREATE | NLM_F_EXCL, sequence, header);
      writer.attributeAddress(IFA_LOCAL, address.address);
      writer.attributeAddress(IFA_ADDRESS, address.address);
      writer.attributeU32(IFA_FLAGS, IFA_F_NOPREFIXROUTE | IFA_F_NODAD);
      writer.end();
    },
  };
}

export interface RouteSettings {
  type: keyof typeof ROUTE_TYPES;
  family: Family;
  destination: string;
  prefixLength: number;
  table: number;
  protocol: number;
  metric?: number | undefined;
  dev?: string | undefined;
  gateway?: string | undefined;
  source?: string | undefined;
}

/** `ifindex` is that of `route.dev`. */
export function addRoute(route: RouteSettings, ifindex?: number): NetlinkRequest {
  return routeRequest('RTM_NEWROUTE', RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, route, ifindex);
}

/** Instead of one with the same destination and metric, whatever else somebody made of that. */
export function replaceRoute(route: RouteSettings, ifindex?: number): NetlinkRequest {
  return routeRequest('RTM_NEWROUTE', RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route, ifindex);
}

export function deleteRoute(route: RouteSettings, ifindex?: number): NetlinkRequest {
  return routeRequest('RTM_DELROUTE', RTM_DELROUTE, 0, route, ifindex);
}

function routeScope(route: RouteSettings): number {
  if (route.type === 'local') return RT_SCOPE_HOST;
  return route.family !== IPV6 && route.type === 'unicast' && route.gateway === undefined
    ? RT_SCOPE_LINK
    : RT_SCOPE_UNIVERSE;
}

/** struct rtmsg, the same one for every route: a VPN may have 10,000. */
const rtmsg = Buffer.alloc(12);

function routeRequest(
  call: string,
  type: number,
  extra: number,
  route: RouteSettings,
  ifindex: number | undefined,
): NetlinkRequest {
  return {
    call,
    describe: () => `${route.type} ${route.destination}/${route.prefixLength} table ${route.table}`,
    write(writer, flags, sequence) {
      rtmsg[0] = addressFamily(route.family);
      rtmsg[1] = route.prefixLength;
      rtmsg[5] = route.protocol;
      rtmsg[6] = routeScope(route);
      rtmsg[7] = ROUTE_TYPES[route.type];
      rtmsg.writeUInt32LE(route.gateway === undefined ? 0 : RTNH_F_ONLINK, 8);
      writer.begin(type, flags | extra, sequence, rtmsg);
      if (route.prefixLength > 0) writer.attributeAddress(RTA_DST, route.destination);
      writer.attributeU32(RTA_TABLE, route.table);
      if (route.metric !== undefined) writer.attributeU32(RTA_PRIORITY, route.metric);
      if (ifindex !== undefined) writer.attributeU32(RTA_OIF, ifindex);
      if (route.gateway !== undefined) writer.attributeAddress(RTA_GATEWAY, route.gateway);
      if (route.source !== undefined) writer.attributeAddress(RTA_PREFSRC, route.source);
      writer.end();
    },
  };
}

export interface PortRange {
  first: number;
  last: number;
}

export interface RuleSettings {
  family: Family;
  priority: number;
  action: keyof typeof RULE_ACTIONS;
  /** For `lookup`. */
  table?: number;
  /** For `lookup`: goes on when what it found has a prefix of this length or shorter. */
  suppressPrefixLength?: number;
  /** For `goto`: the priority to go on at. */
  target?: number;
  fwmark?: { value: number; mask: number };
  uidRange?: { first: number; last: number };
  iif?: string;
  /** Source address, whole or, with a prefix length, that many bits of it. */
  from?: string;
  fromPrefixLength?: number;
  /** Only this protocol, and of it only these source ports; a connection that is being made has 0 until it gets one. */
  protocol?: keyof typeof IP_PROTOCOLS;
  sourcePorts?: PortRange;
  destinationPorts?: PortRange;
  /** It is for what the selectors do not select. */
  isInverted?: boolean;
  /** Instead of a table: that of the VRF that the packet is in. */
  isL3mdev?: boolean;
}

export function addRule(rule: RuleSettings): NetlinkRequest {
  return ruleRequest('RTM_NEWRULE', RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, rule);
}

export function deleteRule(rule: RuleSettings): NetlinkRequest {
  return ruleRequest('RTM_DELRULE', RTM_DELRULE, 0, rule);
}

/** struct fib_rule_hdr and struct fib_rule_uid_range, the same ones for every rule. */
const ruleHeader = Buffer.alloc(12);
const uids = Buffer.alloc(8);
const protocolKernel = Buffer.from([RTPROT_KERNEL]);
const one = Buffer.from([1]);
const ipProtocol = Buffer.alloc(1);
const ports = Buffer.alloc(4);

/** struct fib_rule_port_range. */
function portRange({ first, last }: PortRange): Buffer {
  ports.writeUInt16LE(first, 0);
  ports.writeUInt16LE(last, 2);
  return ports;
}

function ruleRequest(call: string, type: number, extra: number, rule: RuleSettings): NetlinkRequest {
  return {
    call,
    describe: () => `rule ${rule.priority} ${rule.action} ${rule.table ?? rule.target ?? ''}`.trimEnd(),
    write(writer, flags, sequence) {
      ruleHeader[0] = addressFamily(rule.family);
      ruleHeader[2] = rule.from === undefined ? 0 : (rule.fromPrefixLength ?? addressBits(rule.family));
      ruleHeader[7] = RULE_ACTIONS[rule.action];
      ruleHeader.writeUInt32LE(rule.isInverted ? FIB_RULE_INVERT : 0, 8);
      writer.begin(type, flags | extra, sequence, ruleHeader);
      if (rule.from !== undefined) writer.attributeAddress(FRA_SRC, rule.from);
      if (rule.iif !== undefined) writer.attributeString(FRA_IIFNAME, rule.iif);
      writer.attributeU32(FRA_PRIORITY, rule.priority);
      if (rule.table !== undefined) writer.attributeU32(FRA_TABLE, rule.table);
      if (rule.isL3mdev) writer.attribute(FRA_L3MDEV, one);
      if (rule.suppressPrefixLength !== undefined) {
        writer.attributeU32(FRA_SUPPRESS_PREFIXLEN, rule.suppressPrefixLength);
      }
      if (rule.target !== undefined) writer.attributeU32(FRA_GOTO, rule.target);
      if (rule.fwmark !== undefined) {
        writer.attributeU32(FRA_FWMARK, rule.fwmark.value);
        writer.attributeU32(FRA_FWMASK, rule.fwmark.mask);
      }
      if (rule.uidRange !== undefined) {
        uids.writeUInt32LE(rule.uidRange.first, 0);
        uids.writeUInt32LE(rule.uidRange.last, 4);
        writer.attribute(FRA_UID_RANGE, uids);
      }
      if (rule.protocol !== undefined) {
        ipProtocol[0] = IP_PROTOCOLS[rule.protocol];
        writer.attribute(FRA_IP_PROTO, ipProtocol);
      }
      if (rule.sourcePorts !== undefined) writer.attribute(FRA_SPORT_RANGE, portRange(rule.sourcePorts));
      if (rule.destinationPorts !== undefined) writer.attribute(FRA_DPORT_RANGE, portRange(rule.destinationPorts));
      writer.attribute(FRA_PROTOCOL, protocolKernel);
      writer.end();
    },
  };
}

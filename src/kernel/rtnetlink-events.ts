/**
 * rtnetlink's notifications (rtnetlink(7)) as values: only the fields by which somebody tells whether a change matters. Pure.
 */
import { type Family, IPV4, IPV6 } from '../model/vpn-types.js';
import { readAttributes } from './netlink.js';
import {
  RTM_DELLINK,
  RTM_DELROUTE,
  RTM_DELRULE,
  RTM_NEWADDR,
  RTM_NEWLINK,
  RTM_NEWROUTE,
  RTM_NEWRULE,
} from './rtnetlink.js';
import { type LinkEntry, readLink } from './rtnetlink-list.js';

const RTM_DELADDR = 21;
const RTM_NEWNETCONF = 80;
const AF_UNSPEC = 0;
const AF_INET6 = 10;
const RTA_OIF = 4;
const RTA_TABLE = 15;
const FRA_PRIORITY = 6;
const FRA_PROTOCOL = 21;
const NETCONFA_IFINDEX = 1;
const NETCONFA_FORWARDING = 2;
const NETCONFA_RP_FILTER = 3;

export type RtnetlinkEvent =
  | { kind: 'link'; isGone: boolean; link: LinkEntry }
  | { kind: 'address'; isGone: boolean; ifindex: number }
  /** `ifindex` is absent for routes without a device, or with several. */
  | { kind: 'route'; isGone: boolean; family: Family; table: number; ifindex: number | undefined }
  | { kind: 'rule'; isGone: boolean; family: Family; priority: number; protocol: number }
  /** net.ipv4.conf.*.rp_filter was written; -1 is `all`. */
  | { kind: 'rp_filter'; ifindex: number };

/** Undefined for what is none of these: link-layer details of bridges, sysctls of a new link, and what is too short. */
export function readEvent(type: number, payload: Buffer): RtnetlinkEvent | undefined {
  switch (type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
      // Of another family it is about a bridge's port or about addrconf: the link itself has not changed.
      if (payload.length < 16 || payload[0] !== AF_UNSPEC) return undefined;
      return { kind: 'link', isGone: type === RTM_DELLINK, link: readLink(payload) };
    case RTM_NEWADDR:
    case RTM_DELADDR:
      if (payload.length < 8) return undefined;
      return { kind: 'address', isGone: type === RTM_DELADDR, ifindex: payload.readInt32LE(4) };
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
      return payload.length < 12 ? undefined : readRoute(payload, type === RTM_DELROUTE);
    case RTM_NEWRULE:
    case RTM_DELRULE:
      return payload.length < 12 ? undefined : readRule(payload, type === RTM_DELRULE);
    case RTM_NEWNETCONF:
      return readNetconf(payload);
    default:
      return undefined;
  }
}

function readRoute(payload: Buffer, isGone: boolean): RtnetlinkEvent {
  const attributes = readAttributes(payload, 12);
  const table = attributes.get(RTA_TABLE)?.readUInt32LE(0) ?? payload[4] ?? 0;
  return { kind: 'route', isGone, family: familyOf(payload), table, ifindex: attributes.get(RTA_OIF)?.readInt32LE(0) };
}

function readRule(payload: Buffer, isGone: boolean): RtnetlinkEvent {
  const attributes = readAttributes(payload, 12);
  const priority = attributes.get(FRA_PRIORITY)?.readUInt32LE(0) ?? 0;
  return {
    kind: 'rule',
    isGone,
    family: familyOf(payload),
    priority,
    protocol: attributes.get(FRA_PROTOCOL)?.[0] ?? 0,
  };
}

function readNetconf(payload: Buffer): RtnetlinkEvent | undefined {
  const attributes = readAttributes(payload, 1);
  const ifindex = attributes.get(NETCONFA_IFINDEX)?.readInt32LE(0);
  // A new link tells all its settings; a write tells one.
  if (ifindex === undefined || !attributes.has(NETCONFA_RP_FILTER) || attributes.has(NETCONFA_FORWARDING))
    return undefined;
  return { kind: 'rp_filter', ifindex };
}

function familyOf(payload: Buffer): Family {
  return payload[0] === AF_INET6 ? IPV6 : IPV4;
}

/** Reading rtnetlink back: which links, rules and routes there are, and what the routes of one table say. */

import { addressText } from '../model/address.js';
import { KernelError } from '../model/errors.js';
import type { Family } from '../model/vpn-types.js';
import { IPV4, IPV6 } from '../model/vpn-types.js';
import { readAttributes } from './netlink.js';
import type { NetlinkRequest, NetlinkSocket } from './netlink-socket.js';
import { RTM_DELROUTE, RTM_DELRULE, RTM_GETLINK, RTM_GETROUTE, RTM_GETRULE } from './rtnetlink.js';

const AF_INET = 2;
const AF_INET6 = 10;
const IFF_UP = 0x1;
const IFF_LOOPBACK = 0x8;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_MASTER = 10;
const IFLA_LINKINFO = 18;
const IFLA_GROUP = 27;
const IFLA_INFO_KIND = 1;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PRIORITY = 6;
const RTA_PREFSRC = 7;
const RTA_MULTIPATH = 9;
const RTA_TABLE = 15;
const RTA_VIA = 18;
/** struct rtnexthop: length 2, flags 1, hops 1, ifindex 4, attributes. */
const RTNEXTHOP = 8;
const RTN_UNICAST = 1;
const FRA_SRC = 2;
const FRA_GOTO = 4;
const FRA_PRIORITY = 6;
const FRA_FWMARK = 10;
const FRA_TABLE = 15;
const FRA_UID_RANGE = 20;

const addressFamily = (family: Family): number => (family === IPV6 ? AF_INET6 : AF_INET);

export interface LinkEntry {
  ifindex: number;
  /** As the kernel has it, one character a byte: no more than that it is one component of a path is certain. */
  name: string;
  group: number;
  isUp: boolean;
  isLoopback: boolean;
  mtu: number;
  /** ifindex of the bridge, bond or VRF it is a port of; 0 for none. */
  master: number;
  /** 'bridge', 'veth', 'tun'; '' for hardware. */
  kind: string;
}

export async function listLinks(socket: NetlinkSocket): Promise<LinkEntry[]> {
  const payloads = await socket.dump(RTM_GETLINK, Buffer.alloc(16), 'links');
  return payloads.map(readLink);
}

/** The payload of an RTM_NEWLINK or RTM_DELLINK. */
export function readLink(payload: Buffer): LinkEntry {
  const flags = payload.readUInt32LE(8);
  const attributes = readAttributes(payload, 16);
  const linkInfo = attributes.get(IFLA_LINKINFO);
  return {
    ifindex: payload.readInt32LE(4),
    name: text(attributes.get(IFLA_IFNAME)),
    group: attributes.get(IFLA_GROUP)?.readUInt32LE(0) ?? 0,
    isUp: (flags & IFF_UP) !== 0,
    isLoopback: (flags & IFF_LOOPBACK) !== 0,
    mtu: attributes.get(IFLA_MTU)?.readUInt32LE(0) ?? 0,
    master: attributes.get(IFLA_MASTER)?.readUInt32LE(0) ?? 0,
    kind: linkInfo ? text(readAttributes(linkInfo, 0).get(IFLA_INFO_KIND)) : '',
  };
}

function text(value: Buffer | undefined): string {
  return value?.toString('latin1').replace(/\0.*$/s, '') ?? '';
}

/** A rule or route as it was dumped: enough to recognise it, and to delete exactly it by sending the same bytes back. */
export interface DumpedEntry {
  family: Family;
  table: number;
  /** Rules only. */
  priority: number;
  /** Of a rule with a range of uids. */
  firstUid?: number;
  /** A rule for some mark. */
  hasMark?: true;
  /** Of a rule that goes to another. */
  target?: number;
  /** Of a rule for one source address. */
  from?: string;
  protocol: number;
  remove: NetlinkRequest;
}

export async function listRules(socket: NetlinkSocket, family: Family): Promise<DumpedEntry[]> {
  const header = Buffer.alloc(12);
  header[0] = addressFamily(family);
  const payloads = await socket.dump(RTM_GETRULE, header, 'rules');
  return payloads.map((payload) => {
    const attributes = readAttributes(payload, 12);
    const priority = attributes.get(FRA_PRIORITY)?.readUInt32LE(0) ?? 0;
    const table = attributes.get(FRA_TABLE)?.readUInt32LE(0) ?? payload[4] ?? 0;
    const firstUid = attributes.get(FRA_UID_RANGE)?.readUInt32LE(0);
    const target = attributes.get(FRA_GOTO)?.readUInt32LE(0);
    const source = attributes.get(FRA_SRC);
    const isAddress = source !== undefined && payload[2] === source.length * 8;
    return {
      family,
      table,
      priority,
      ...(firstUid !== undefined && { firstUid }),
      ...(attributes.has(FRA_FWMARK) && { hasMark: true as const }),
      ...(target !== undefined && { target }),
      ...(isAddress && { from: addressOrZeros(source, family) }),
      protocol: attributes.get(21)?.[0] ?? 0,
      remove: echo('RTM_DELRULE', RTM_DELRULE, payload, `rule ${priority}`),
    };
  });
}

/** Every route of a family in every table; with thousands of routes this is the slow one, so only the sweep calls it. */
export async function listRoutes(socket: NetlinkSocket, family: Family): Promise<DumpedEntry[]> {
  const header = Buffer.alloc(12);
  header[0] = addressFamily(family);
  const payloads = await socket.dump(RTM_GETROUTE, header, 'routes');
  return payloads.map((payload) => {
    const table = tableOf(payload);
    return {
      family,
      table,
      priority: 0,
      protocol: payload[5] ?? 0,
      remove: echo('RTM_DELROUTE', RTM_DELROUTE, payload, `route table ${table}`),
    };
  });
}

/** A unicast route of one table, by what it says. */
export interface RouteEntry {
  family: Family;
  destination: string;
  prefixLength: number;
  protocol: number;
  metric: number;
  /** Preferred source address. */
  source?: string;
  /** Several for a multipath route. */
  hops: { ifindex: number; hasGateway: boolean }[];
}

/** Unicast routes of one table and family; none when there is no such table. The kernel picks them out. */
export async function listTable(socket: NetlinkSocket, family: Family, table: number): Promise<RouteEntry[]> {
  const request = Buffer.alloc(20);
  request[0] = addressFamily(family);
  request[7] = RTN_UNICAST;
  request.writeUInt16LE(8, 12);
  request.writeUInt16LE(RTA_TABLE, 14);
  request.writeUInt32LE(table, 16);
  const payloads = await socket.dump(RTM_GETROUTE, request, `routes table ${table}`).catch((error) => {
    if (error instanceof KernelError && error.errnoName === 'ENOENT') return [];
    throw error;
  });
  // A kernel before 4.20 lists everything.
  return payloads
    .filter((payload) => payload[7] === RTN_UNICAST && tableOf(payload) === table)
    .map((payload) => readRoute(payload, family));
}

/** Of an RTM_NEWROUTE or RTM_DELROUTE: the header has eight bits for it only. */
export function tableOf(payload: Buffer): number {
  return readAttributes(payload, 12).get(RTA_TABLE)?.readUInt32LE(0) ?? payload[4] ?? 0;
}

/** The payload of an RTM_NEWROUTE. */
export function readRoute(payload: Buffer, family: Family): RouteEntry {
  const attributes = readAttributes(payload, 12);
  const source = attributes.get(RTA_PREFSRC);
  const multipath = attributes.get(RTA_MULTIPATH);
  return {
    family,
    destination: addressOrZeros(attributes.get(RTA_DST), family),
    prefixLength: payload[1] ?? 0,
    protocol: payload[5] ?? 0,
    metric: attributes.get(RTA_PRIORITY)?.readUInt32LE(0) ?? 0,
    ...(source && { source: addressOrZeros(source, family) }),
    hops: multipath
      ? readHops(multipath)
      : [{ ifindex: attributes.get(RTA_OIF)?.readInt32LE(0) ?? 0, hasGateway: hasGateway(attributes) }],
  };
}

function readHops(multipath: Buffer): RouteEntry['hops'] {
  const hops: RouteEntry['hops'] = [];
  for (let at = 0; at + RTNEXTHOP <= multipath.length; ) {
    const length = multipath.readUInt16LE(at);
    if (length < RTNEXTHOP || at + length > multipath.length) break;
    const attributes = readAttributes(multipath.subarray(at, at + length), RTNEXTHOP);
    hops.push({ ifindex: multipath.readInt32LE(at + 4), hasGateway: hasGateway(attributes) });
    at += (length + 3) & ~3;
  }
  return hops;
}

function hasGateway(attributes: Map<number, Buffer>): boolean {
  return attributes.has(RTA_GATEWAY) || attributes.has(RTA_VIA);
}

/** Absent is all zeros. */
function addressOrZeros(bytes: Buffer | undefined, family: Family): string {
  return bytes ? addressText(bytes) : family === IPV6 ? '::' : '0.0.0.0';
}

export async function listBothFamilies(list: (family: Family) => Promise<DumpedEntry[]>): Promise<DumpedEntry[]> {
  return [...(await list(IPV4)), ...(await list(IPV6))];
}

function echo(call: string, type: number, payload: Buffer, object: string): NetlinkRequest {
  return {
    call,
    describe: () => object,
    write(writer, flags, sequence) {
      writer.begin(type, flags, sequence, payload);
      writer.end();
    },
  };
}

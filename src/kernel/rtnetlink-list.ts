/** Reading rtnetlink back: which links, rules and routes there are, for the sweep and for collision checks. */
import type { Family } from '../model/vpn-types.js';
import { IPV4, IPV6 } from '../model/vpn-types.js';
import { readAttributes } from './netlink.js';
import type { NetlinkRequest, NetlinkSocket } from './netlink-socket.js';
import { RTM_DELROUTE, RTM_DELRULE, RTM_GETLINK, RTM_GETROUTE, RTM_GETRULE } from './rtnetlink.js';

const AF_INET = 2;
const AF_INET6 = 10;
const IFLA_IFNAME = 3;
const IFLA_GROUP = 27;
const RTA_TABLE = 15;
const FRA_PRIORITY = 6;
const FRA_TABLE = 15;

const addressFamily = (family: Family): number => (family === IPV6 ? AF_INET6 : AF_INET);

export interface LinkEntry {
  ifindex: number;
  name: string;
  group: number;
}

export async function listLinks(socket: NetlinkSocket): Promise<LinkEntry[]> {
  const payloads = await socket.dump(RTM_GETLINK, Buffer.alloc(16), 'links');
  return payloads.map((payload) => {
    const attributes = readAttributes(payload, 16);
    return {
      ifindex: payload.readInt32LE(4),
      name: attributes.get(IFLA_IFNAME)?.toString('latin1').replace(/\0.*$/s, '') ?? '',
      group: attributes.get(IFLA_GROUP)?.readUInt32LE(0) ?? 0,
    };
  });
}

/** A rule or route as it was dumped: enough to recognise it, and to delete exactly it by sending the same bytes back. */
export interface DumpedEntry {
  family: Family;
  table: number;
  /** Rules only. */
  priority: number;
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
    return {
      family,
      table,
      priority,
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
    const table = readAttributes(payload, 12).get(RTA_TABLE)?.readUInt32LE(0) ?? payload[4] ?? 0;
    return {
      family,
      table,
      priority: 0,
      protocol: payload[5] ?? 0,
      remove: echo('RTM_DELROUTE', RTM_DELROUTE, payload, `route table ${table}`),
    };
  });
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

/**
 * The kernel's table of connections, read: who sent the first packet of each, from where and to where
 * (linux/netfilter/nfnetlink_conntrack.h). Empty as long as nobody's firewall asks for it.
 */
import { addressText } from '../model/address.js';
import { type Family, IPV6 } from '../model/vpn-types.js';
import type { Endpoint } from './inet-socket.js';
import { readAttributes } from './netlink.js';
import type { NetlinkSocket } from './netlink-socket.js';
import { AF_INET, AF_INET6 } from './socket-options.js';

const NFNL_SUBSYS_CTNETLINK = 1;
const IPCTNL_MSG_CT_GET = 1;
/** struct nfgenmsg. */
const HEADER_BYTES = 4;
const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const [CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC, CTA_IP_V6_DST] = [1, 2, 3, 4];
const [CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT] = [1, 2, 3];

export interface TrackedConnection {
  /** Of IP. */
  protocol: number;
  from: Endpoint;
  to: Endpoint;
}

/** Those with ports, of one family. Throws KernelError. */
export async function listConnections(socket: NetlinkSocket, family: Family): Promise<TrackedConnection[]> {
  const header = Buffer.from([family === IPV6 ? AF_INET6 : AF_INET, 0, 0, 0]);
  const type = (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET;
  const payloads = await socket.dump(type, header, 'connections');
  return payloads.flatMap((payload) => readConnection(payload, family) ?? []);
}

/** The payload of an IPCTNL_MSG_CT_NEW; undefined when it has no ports. */
export function readConnection(payload: Buffer, family: Family): TrackedConnection | undefined {
  const nested = (attributes: Map<number, Buffer> | undefined, type: number) => {
    const inner = attributes?.get(type);
    return inner && readAttributes(inner, 0);
  };
  const tuple = nested(readAttributes(payload, HEADER_BYTES), CTA_TUPLE_ORIG);
  const [ip, protocol] = [nested(tuple, CTA_TUPLE_IP), nested(tuple, CTA_TUPLE_PROTO)];
  const [from, to] = family === IPV6 ? [CTA_IP_V6_SRC, CTA_IP_V6_DST] : [CTA_IP_V4_SRC, CTA_IP_V4_DST];
  const [source, destination] = [ip?.get(from), ip?.get(to)];
  const [sourcePort, destinationPort] = [protocol?.get(CTA_PROTO_SRC_PORT), protocol?.get(CTA_PROTO_DST_PORT)];
  const number = protocol?.get(CTA_PROTO_NUM)?.[0];
  if (!source || !destination || !sourcePort || !destinationPort || number === undefined) return undefined;
  return {
    protocol: number,
    from: { address: addressText(source), port: sourcePort.readUInt16BE(0) },
    to: { address: addressText(destination), port: destinationPort.readUInt16BE(0) },
  };
}

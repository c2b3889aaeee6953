/**
 * Where the kernel would send a UDP packet with a mark (RTM_GETROUTE in rtnetlink(7)), and which routing rules it asks on the way
 * (RTM_GETRULE, linux/fib_rules.h). Anybody may ask. Only what a rule selects by is looked at that is known of such a packet:
 * destination, mark, uid, protocol and port; it has no source address and no device yet.
 */
import { addressBits, addressText, familyOf, prefixContains } from '../model/address.js';
import { KernelError } from '../model/errors.js';
import { IPV6 } from '../model/vpn-types.js';
import { readAttributes } from './netlink.js';
import type { NetlinkSocket } from './netlink-socket.js';
import { RTM_GETROUTE, RTM_GETRULE } from './rtnetlink.js';
import { tableOf } from './rtnetlink-list.js';

const AF_INET = 2;
const AF_INET6 = 10;
const RTM_F_LOOKUP_TABLE = 0x1000;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_MARK = 16;
const RTA_IP_PROTO = 27;
const RTA_DPORT = 29;
const IPPROTO_UDP = 17;
const FIB_RULE_INVERT = 2;
const FRA_DST = 1;
const FRA_IIFNAME = 3;
const FRA_GOTO = 4;
const FRA_PRIORITY = 6;
const FRA_FWMARK = 10;
const FRA_TABLE = 15;
const FRA_FWMASK = 16;
const FRA_OIFNAME = 17;
const FRA_L3MDEV = 19;
const FRA_UID_RANGE = 20;
const FRA_IP_PROTO = 22;
const FRA_SPORT_RANGE = 23;
const FRA_DPORT_RANGE = 24;
/** struct fib_rule_hdr: family 1, length of destination 1 and source 1, tos 1, table 1, 2 reserved, action 1, flags 4. */
const RULE_HEADER_BYTES = 12;
const ACTIONS = { 1: 'lookup', 2: 'goto', 6: 'blackhole', 7: 'unreachable', 8: 'prohibit' } as const;

/** By RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT. */
const REFUSALS: Readonly<Record<number, string>> = { 6: 'EINVAL', 7: 'EHOSTUNREACH', 8: 'EACCES' };

export interface RouteQuestion {
  /** A literal. */
  readonly address: string;
  readonly port: number;
  readonly mark: number;
  /** The link of a link-local address. */
  readonly scopeId?: number | undefined;
}

export interface RouteAnswer {
  readonly ifindex: number;
  readonly table: number;
}

/** A rule that the packet meets. */
export interface MetRule {
  readonly priority: number;
  readonly action: (typeof ACTIONS)[keyof typeof ACTIONS] | undefined;
  /** Of `lookup`. */
  readonly table: number;
}

/** Throws KernelError: ENETUNREACH no route, or a rule; EHOSTUNREACH a route that says so; EACCES prohibit; EINVAL blackhole. */
export async function askRoute(socket: NetlinkSocket, question: RouteQuestion): Promise<RouteAnswer> {
  const { address, port, mark, scopeId = 0 } = question;
  const family = familyOf(address);
  const payload = await socket.ask({
    call: 'RTM_GETROUTE',
    describe: () => `${address} mark ${mark}`,
    write(writer, flags, sequence) {
      const header = Buffer.alloc(12);
      header[0] = family === IPV6 ? AF_INET6 : AF_INET;
      header[1] = addressBits(family);
      // IPv6 tells the table unasked, and takes no such flag.
      if (family !== IPV6) header.writeUInt32LE(RTM_F_LOOKUP_TABLE, 8);
      writer.begin(RTM_GETROUTE, flags, sequence, header);
      writer.attributeAddress(RTA_DST, address);
      writer.attributeU32(RTA_MARK, mark);
      writer.attribute(RTA_IP_PROTO, Buffer.from([IPPROTO_UDP]));
      writer.attribute(RTA_DPORT, Buffer.from([port >> 8, port & 255]));
      if (scopeId !== 0) writer.attributeU32(RTA_OIF, scopeId);
      writer.end();
    },
  });
  // IPv6 answers with the route that says no, IPv4 with its error.
  const refusal = REFUSALS[payload[7] ?? 0];
  if (refusal !== undefined) throw new KernelError('RTM_GETROUTE', address, refusal);
  return { ifindex: readAttributes(payload, 12).get(RTA_OIF)?.readInt32LE(0) ?? 0, table: tableOf(payload) };
}

/** In the order in which they are met, as if no table had a route. */
export async function metRules(socket: NetlinkSocket, question: RouteQuestion, uid: number): Promise<MetRule[]> {
  const header = Buffer.alloc(RULE_HEADER_BYTES);
  header[0] = familyOf(question.address) === IPV6 ? AF_INET6 : AF_INET;
  const met: MetRule[] = [];
  let next = 0;
  for (const payload of await socket.dump(RTM_GETRULE, header, 'rules')) {
    const attributes = readAttributes(payload, RULE_HEADER_BYTES);
    const priority = attributes.get(FRA_PRIORITY)?.readUInt32LE(0) ?? 0;
    const isInverted = (payload.readUInt32LE(8) & FIB_RULE_INVERT) !== 0;
    if (priority < next || isMatch(payload, attributes, question, uid) === isInverted) continue;
    const action = ACTIONS[payload[7] as keyof typeof ACTIONS];
    if (action === 'goto') next = attributes.get(FRA_GOTO)?.readUInt32LE(0) ?? 0;
    met.push({ priority, action, table: attributes.get(FRA_TABLE)?.readUInt32LE(0) ?? payload[4] ?? 0 });
  }
  return met;
}

function isMatch(payload: Buffer, attributes: Map<number, Buffer>, question: RouteQuestion, uid: number): boolean {
  const { address, port, mark } = question;
  const number = (type: number) => attributes.get(type)?.readUInt32LE(0);
  const [destinationLength = 0, sourceLength = 0] = payload.subarray(1, 3);
  const destination = attributes.get(FRA_DST);
  if (destination) {
    const prefix = { address: addressText(destination), prefixLength: destinationLength };
    if (!prefixContains(prefix, address)) return false;
  }
  const inLink = attributes.get(FRA_IIFNAME)?.toString('latin1').replace(/\0.*$/s, '') ?? 'lo';
  if (sourceLength > 0 || inLink !== 'lo' || attributes.has(FRA_OIFNAME) || attributes.get(FRA_L3MDEV)?.[0])
    return false;
  const mask = number(FRA_FWMASK) ?? (attributes.has(FRA_FWMARK) ? 0xffffffff : 0);
  if (((mark ^ (number(FRA_FWMARK) ?? 0)) & mask) !== 0) return false;
  const uids = attributes.get(FRA_UID_RANGE);
  if (uids && (uid < uids.readUInt32LE(0) || uid > uids.readUInt32LE(4))) return false;
  const ports = attributes.get(FRA_DPORT_RANGE);
  if (ports && (port < ports.readUInt16LE(0) || port > ports.readUInt16LE(2))) return false;
  const protocol = attributes.get(FRA_IP_PROTO)?.[0] ?? 0;
  return (protocol === 0 || protocol === IPPROTO_UDP) && !attributes.has(FRA_SPORT_RANGE);
}

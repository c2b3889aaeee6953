/**
 * Routing rules as the kernel lists them (linux/fib_rules.h): whole, so that one can be made again elsewhere with all that it
 * selects. What is not known here is told, so that nobody takes a copy for exact that is not.
 */
import { type Family, IPV6 } from '../model/vpn-types.js';
import { NLM_F_CREATE, NLM_F_EXCL, readAttributes } from './netlink.js';
import type { NetlinkRequest, NetlinkSocket } from './netlink-socket.js';
import { RTM_DELRULE, RTM_GETRULE, RTM_NEWRULE, RTPROT_KERNEL, RULE_ACTIONS } from './rtnetlink.js';

const AF_INET = 2;
const AF_INET6 = 10;
const HEADER = 12;
const FIB_RULE_INVERT = 0x2;
/** Whether it holds for IPv6 packets that have no source address yet. */
const FIB_RULE_FIND_SADDR = 0x10000;
/** What the kernel says of a rule, or of a link that is not there. */
const FLAGS_OF_ITS_STATE = 0x1d;
const NOTHING_SUPPRESSED = 0xffffffff;

const FRA_DST = 1;
const FRA_SRC = 2;
const FRA_IIFNAME = 3;
const FRA_GOTO = 4;
const FRA_PRIORITY = 6;
const FRA_FWMARK = 10;
const FRA_FLOW = 11;
const FRA_SUPPRESS_IFGROUP = 13;
const FRA_SUPPRESS_PREFIXLEN = 14;
const FRA_TABLE = 15;
const FRA_FWMASK = 16;
const FRA_OIFNAME = 17;
const FRA_L3MDEV = 19;
const FRA_UID_RANGE = 20;
const FRA_PROTOCOL = 21;
const FRA_IP_PROTO = 22;
const FRA_SPORT_RANGE = 23;
const FRA_DPORT_RANGE = 24;
/** Linux 6.12 to 6.15: whole DSCP fields, flow labels, and masks of ports and DSCP. */
const FRA_DSCP = 25;
const FRA_DSCP_MASK = 30;

/** Selectors, which narrow a rule and which another rule can have as they are. */
const SELECTORS = new Set([FRA_DST, FRA_SRC, FRA_IIFNAME, FRA_FWMARK, FRA_FWMASK, FRA_OIFNAME, FRA_UID_RANGE]);
for (const each of [FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE]) SELECTORS.add(each);
for (let each = FRA_DSCP; each <= FRA_DSCP_MASK; each++) SELECTORS.add(each);
const REST = new Set([FRA_PRIORITY, FRA_PROTOCOL, FRA_TABLE, FRA_SUPPRESS_IFGROUP, FRA_SUPPRESS_PREFIXLEN, FRA_FLOW]);

export interface Mark {
  value: number;
  mask: number;
}

export interface RuleEntry {
  family: Family;
  priority: number;
  /** Who made it. */
  protocol: number;
  action: 'lookup' | 'goto' | 'other';
  /** For `lookup`; 0 for that of a VRF. */
  table: number;
  /** For `goto`. */
  target?: number;
  /** It is for what the selectors do not select. */
  isInverted: boolean;
  /** For the table of whatever VRF it is about. */
  isL3mdev: boolean;
  /** It selects everything, and what its table finds is final. */
  isForAll: boolean;
  /** Each bit that it asks for. The mask is 0 when it asks for none. */
  mark: Mark;
  /** It says something that is not known here, and so cannot be made again. */
  isStrange: boolean;
  /** As it came, for a copy. */
  payload: Buffer;
  remove: NetlinkRequest;
}

export async function listRuleEntries(socket: NetlinkSocket, family: Family): Promise<RuleEntry[]> {
  const header = Buffer.alloc(HEADER);
  header[0] = family === IPV6 ? AF_INET6 : AF_INET;
  const payloads = await socket.dump(RTM_GETRULE, header, 'rules');
  return payloads.map((payload) => readRuleEntry(payload, family));
}

/** The payload of an RTM_NEWRULE. */
export function readRuleEntry(payload: Buffer, family: Family): RuleEntry {
  const attributes = readAttributes(payload, HEADER);
  const number = (type: number) => attributes.get(type)?.readUInt32LE(0);
  const flags = payload.readUInt32LE(8);
  const priority = number(FRA_PRIORITY) ?? 0;
  const value = number(FRA_FWMARK) ?? 0;
  const target = number(FRA_GOTO);
  const isSuppressed =
    attributes.has(FRA_SUPPRESS_IFGROUP) ||
    (number(FRA_SUPPRESS_PREFIXLEN) ?? NOTHING_SUPPRESSED) !== NOTHING_SUPPRESSED;
  const isInverted = (flags & FIB_RULE_INVERT) !== 0;
  const isL3mdev = (attributes.get(FRA_L3MDEV)?.[0] ?? 0) !== 0;
  const tos = payload[3] ?? 0;
  const isSelective = tos !== 0 || [...attributes.keys()].some((type) => SELECTORS.has(type));
  const isUnknown = (type: number) =>
    !SELECTORS.has(type) && !REST.has(type) && type !== FRA_GOTO && type !== FRA_L3MDEV;
  const isStrange =
    (flags & ~(FIB_RULE_INVERT | FIB_RULE_FIND_SADDR | FLAGS_OF_ITS_STATE)) !== 0 ||
    [...attributes.keys()].some(isUnknown);
  return {
    family,
    priority,
    protocol: attributes.get(FRA_PROTOCOL)?.[0] ?? 0,
    action: actionOf(payload[7]),
    table: number(FRA_TABLE) ?? payload[4] ?? 0,
    ...(target !== undefined && { target }),
    isInverted,
    isL3mdev,
    isForAll: !isSelective && !isSuppressed && !isInverted && !isL3mdev && !isStrange,
    // A mark without a mask is compared whole.
    mark: { value, mask: number(FRA_FWMASK) ?? (value === 0 ? 0 : 0xffffffff) },
    isStrange,
    payload,
    remove: {
      call: 'RTM_DELRULE',
      describe: () => `rule ${priority}`,
      write(writer, requestFlags, sequence) {
        writer.begin(RTM_DELRULE, requestFlags, sequence, payload);
        writer.end();
      },
    },
  };
}

function actionOf(action: number | undefined): RuleEntry['action'] {
  if (action === RULE_ACTIONS.lookup) return 'lookup';
  return action === RULE_ACTIONS.goto ? 'goto' : 'other';
}

/** A rule that says what another one does, of ours and with another mark. */
export interface RuleCopy {
  family: Family;
  header: Buffer;
  attributes: readonly (readonly [type: number, value: Buffer])[];
  /** The same text: the same rule, whatever its priority. */
  key: string;
}

export function copyOfRule({ family, payload }: Pick<RuleEntry, 'family' | 'payload'>, mark: Mark): RuleCopy {
  const header = Buffer.from(payload.subarray(0, HEADER));
  header.writeUInt32LE(header.readUInt32LE(8) & (FIB_RULE_INVERT | FIB_RULE_FIND_SADDR), 8);
  const attributes = new Map(readAttributes(payload, HEADER));
  attributes.delete(FRA_PRIORITY);
  attributes.delete(FRA_PROTOCOL);
  attributes.set(FRA_FWMARK, bytesOf(mark.value));
  attributes.set(FRA_FWMASK, bytesOf(mark.mask));
  const sorted = [...attributes].sort(([a], [b]) => a - b);
  const key = [header, ...sorted.map(([type, value]) => Buffer.concat([bytesOf(type), value]))]
    .map((bytes) => bytes.toString('hex'))
    .join(' ');
  return { family, header, attributes: sorted, key };
}

/** What `copyOfRule` would call it: to find out what stands already. */
export function keyOfRule(rule: RuleEntry): string {
  return copyOfRule(rule, rule.mark).key;
}

export function addRuleCopy({ header, attributes }: RuleCopy, priority: number): NetlinkRequest {
  return {
    call: 'RTM_NEWRULE',
    describe: () => `copy of a rule ${priority}`,
    write(writer, flags, sequence) {
      writer.begin(RTM_NEWRULE, flags | NLM_F_CREATE | NLM_F_EXCL, sequence, header);
      writer.attributeU32(FRA_PRIORITY, priority);
      writer.attribute(FRA_PROTOCOL, Buffer.from([RTPROT_KERNEL]));
      for (const [type, value] of attributes) writer.attribute(type, value);
      writer.end();
    },
  };
}

function bytesOf(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
}

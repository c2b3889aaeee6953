/**
 * Socket filters (Documentation/networking/filter.rst) for rtnetlink monitors: what does not concern us is dropped in the
 * kernel, before it fills the socket's queue and wakes this process. The program sees one notification from its header on.
 */
import { checked } from './errno.js';
import { addressOf, libc } from './ffi.js';
import { RTM_DELROUTE, RTM_DELRULE, RTM_NEWROUTE, RTM_NEWRULE } from './rtnetlink.js';

const SOL_SOCKET = 1;
const SO_ATTACH_FILTER = 26;
/** sock_filter codes: load 32, 16, 8 bits at an offset (read as big-endian), jump if equal, return. */
const LOAD_32 = 0x20;
const LOAD_16 = 0x28;
const LOAD_8 = 0x30;
const JUMP_EQUAL = 0x15;
const RETURN = 0x06;
const LOAD_NUMBER = 0x00;
const LOAD_INDEX_NUMBER = 0x01;
const MOVE_TO_INDEX = 0x07;
const LOAD_32_AT_INDEX = 0x40;
/** SKF_AD_OFF + SKF_AD_NLATTR: where the attribute is whose type is in the index; looked for from the accumulator on, 0 for none. */
const FIND_ATTRIBUTE: Instruction = { code: LOAD_32, value: 0xfffff00c };
/** sizeof(struct sock_fprog) on 64-bit machines. */
const FPROG = 16;
const INSTRUCTION = 8;
/** Jumps are relative and have eight bits. */
const PORTS_MAXIMUM = 64;

const TYPE = 4;
const PORT = 12;
/** rtmsg.rtm_table, behind the header. */
const TABLE = 16 + 4;
const ROUTE_ATTRIBUTES = 16 + 12;
const RTA_OIF = 4;
const RTA_TABLE = 15;

/** One instruction; `jt` and `jf` are how many to pass over when the comparison holds and when not. */
interface Instruction {
  code: number;
  jt?: number;
  jf?: number;
  value: number;
}

const DROP: Instruction = { code: RETURN, value: 0 };
const TAKE: Instruction = { code: RETURN, value: 0xffffffff };

/** Takes routes of one rtm_table only, and nothing but routes. */
export function routesOfTable(table: number): Buffer {
  return assemble([{ code: LOAD_8, value: TABLE }, { code: JUMP_EQUAL, value: table, jf: 1 }, TAKE, DROP]);
}

/** Of routes and rules takes those that none of these ports caused, of routes only those of one rtm_table; all else. */
export function changesOfOthers(ports: readonly number[], table: number): Buffer {
  if (ports.length > PORTS_MAXIMUM) throw new RangeError(`${ports.length} ports`);
  const afterPorts = ports.length;
  return assemble([
    { code: LOAD_16, value: TYPE },
    { code: JUMP_EQUAL, value: swap16(RTM_NEWRULE), jt: 5 },
    { code: JUMP_EQUAL, value: swap16(RTM_DELRULE), jt: 4 },
    { code: JUMP_EQUAL, value: swap16(RTM_NEWROUTE), jt: 1 },
    { code: JUMP_EQUAL, value: swap16(RTM_DELROUTE), jf: 3 + afterPorts },
    { code: LOAD_8, value: TABLE },
    { code: JUMP_EQUAL, value: table, jf: 2 + afterPorts },
    { code: LOAD_32, value: PORT },
    ...ports.map((port, index) => ({ code: JUMP_EQUAL, value: swap32(port), jt: afterPorts - index })),
    TAKE,
    DROP,
  ]);
}

/** At most so many tables, and of links those that come first. */
export const FILTERED_MAXIMUM = 64;

/**
 * Takes routes of these tables. Of `quiet` tables only those that have no one link, or another than `links`: in a table all of whose
 * routes leave by such links another one changes nothing, and there may be a flood of them. Takes nothing but routes.
 */
export function routesOfTables(
  loud: ReadonlySet<number>,
  quiet: ReadonlySet<number>,
  links: ReadonlySet<number>,
): Buffer {
  if (loud.size + quiet.size > FILTERED_MAXIMUM) throw new RangeError(`${loud.size + quiet.size} tables`);
  const known = [...links].slice(0, FILTERED_MAXIMUM);
  const jumpsTo = (numbers: readonly number[], behind: number): Instruction[] =>
    numbers.map((number, index) => ({
      code: JUMP_EQUAL,
      value: swap32(number),
      jt: numbers.length - index - 1 + behind,
    }));
  const byLink = [
    ...attribute(RTA_OIF),
    { code: JUMP_EQUAL, value: 0, jt: known.length + 2 },
    { code: MOVE_TO_INDEX, value: 0 },
    { code: LOAD_32_AT_INDEX, value: 4 },
    ...jumpsTo(known, 1),
    TAKE,
    DROP,
  ];
  return assemble([
    ...attribute(RTA_TABLE),
    { code: JUMP_EQUAL, value: 0, jt: loud.size + quiet.size + 2 },
    { code: MOVE_TO_INDEX, value: 0 },
    { code: LOAD_32_AT_INDEX, value: 4 },
    ...jumpsTo([...loud], quiet.size + 1),
    ...jumpsTo([...quiet], 2),
    DROP,
    TAKE,
    ...byLink,
  ]);
}

/** Where it is, in the accumulator. */
function attribute(type: number): Instruction[] {
  return [{ code: LOAD_NUMBER, value: ROUTE_ATTRIBUTES }, { code: LOAD_INDEX_NUMBER, value: type }, FIND_ATTRIBUTE];
}

export function attachFilter(fd: number, program: Buffer): void {
  // struct sock_fprog: the number of instructions, and where they are. One buffer: one that is only pointed to may be collected.
  const block = Buffer.alloc(Math.max(FPROG + program.length, 128));
  block.writeUInt16LE(program.length / INSTRUCTION, 0);
  block.writeBigUInt64LE(addressOf(block) + BigInt(FPROG), 8);
  program.copy(block, FPROG);
  checked(libc.setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, block, FPROG), 'setsockopt', 'SO_ATTACH_FILTER');
}

function assemble(instructions: readonly Instruction[]): Buffer {
  const program = Buffer.alloc(instructions.length * INSTRUCTION);
  for (const [index, { code, jt = 0, jf = 0, value }] of instructions.entries()) {
    program.writeUInt16LE(code, index * INSTRUCTION);
    program[index * INSTRUCTION + 2] = jt;
    program[index * INSTRUCTION + 3] = jf;
    program.writeUInt32LE(value >>> 0, index * INSTRUCTION + 4);
  }
  return program;
}

/** Netlink is in the host's byte order, a filter loads big-endian. */
function swap16(value: number): number {
  return ((value & 0xff) << 8) | (value >>> 8);
}

function swap32(value: number): number {
  return ((swap16(value & 0xffff) << 16) | swap16(value >>> 16)) >>> 0;
}

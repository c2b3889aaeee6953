/**
 * The program that marks the sockets of applications, told by the names of cgroups: at the creation of a socket it walks from
 * the process's cgroup to the root, takes the ids that each name stands for (the grammar of app-cgroup.ts, which a lab test
 * holds this to) and looks them up in a map of { uid, id } to mark. So an application that starts in this very moment is
 * marked before its first look-up, and nobody has to watch the cgroup tree. BPF_PROG_TYPE_CGROUP_SOCK, at the root.
 *
 * A user's entry (by the socket's real uid) overwrites a mark; one for everyone yields to any that is there. In each case the
 * entry of the innermost cgroup counts. What it does not reach is what socketMarkProgram() does not reach either.
 */
import { MAX_APP_ID_BYTES } from './app-cgroup.js';
import { IPPROTO_MPTCP, onlyInNamespace, SOCK_MARK, SOCK_PROTOCOL } from './bpf.js';
import { Assembler, type BpfFunction } from './bpf-assembler.js';
import { emitFindByte, emitLastTwoDashes, emitNameLength } from './bpf-text.js';

/** Offsets in the running kernel's structs. */
export interface CgroupOffsets {
  taskCgroups: number;
  cssSetDefaultCgroup: number;
  cgroupNode: number;
  nodeName: number;
  nodeParent: number;
}

export interface AppMarksSpec {
  offsets: CgroupOffsets;
  netnsCookie: bigint;
  /** Descriptor of the hash map: key appKey(), value the mark, 32 bits. */
  map: number;
  /** The field that all marks of the map lie in. */
  mask: number;
}

/** The uid of entries for everyone. */
export const EVERYONE = 0xffffffff;
export const APP_KEY_BYTES = 4 + MAX_APP_ID_BYTES;
/** Cgroups looked at, from the process's own one upwards. */
export const CGROUP_LEVELS = 16;

/** Key of the map: uid, then the id, zeros behind. */
export function appKey(id: string, uid: number): Buffer {
  const bytes = Buffer.from(id);
  if (bytes.length === 0 || bytes.length > MAX_APP_ID_BYTES)
    throw new RangeError(`application id of ${bytes.length} bytes`);
  const key = Buffer.alloc(APP_KEY_BYTES);
  key.writeUInt32LE(uid, 0);
  bytes.copy(key, 4);
  return key;
}

/** The stack, downwards from r10. */
const KEY = -APP_KEY_BYTES;
const KEY_ID = KEY + 4;
const PREFIX = KEY - 16;
const SCRATCH = PREFIX - 8;
const CONTEXT = SCRATCH - 8;
const UID = CONTEXT - 8;
/** Parts of the name to look up: eight bytes each, of which one says where it starts and one how long it is. */
const PART = { id: 0, second: 1, third: 2, unit: 3, name: 4 } as const;
const PARTS = UID - 8 - 8 * Object.keys(PART).length;
/**
 * These lie at no multiple of eight: there the verifier would follow the values one by one, here it knows only their size, so
 * that all ways to the same place look the same to it.
 */
const PART_START = 1;
const PART_LENGTH = 2;
const EVERYONES_MARK = UID - 4;

/** No part. */
const NONE = 0xff;
/** No mark: it would not fit into a field. */
const UNMARKED = -1;
/** '-' and a UUID. */
const UUID_TAIL = 37;
const UUID_DASHES = [0, 9, 14, 19, 24];

/** Registers that hold for a whole level, and r6 for the length of the name, then of the unit. */
const NODE = 'r7';
const LEVEL = 'r8';
const NAME = 'r9';
const LENGTH = 'r6';

export function appMarksProgram(spec: AppMarksSpec): { instructions: Buffer; functions: readonly BpfFunction[] } {
  const { offsets, netnsCookie, map, mask } = spec;
  const code = new Assembler();
  code.function('app_marks', 1).store('u64', 'r10', CONTEXT, 'r1');
  onlyInNamespace(code, netnsCookie, 'end');
  code.call('get_current_uid_gid').store('u32', 'r10', UID, 'r0').store('u32', 'r10', EVERYONES_MARK, UNMARKED);
  code.call('get_current_task');
  readPointer(code, 'r0', offsets.taskCgroups);
  readPointer(code, 'r0', offsets.cssSetDefaultCgroup);
  readPointer(code, 'r0', offsets.cgroupNode);
  code.move(NODE, 'r0').move(LEVEL, 0);

  code.label('level').jumpIf(NODE, '==', 0, 'walked');
  readName(code, offsets.nodeName);
  splitService(code);
  splitScope(code);
  splitSlice(code);
  splitSnap(code);
  lookUp(code, map);
  code.label('up');
  readPointer(code, NODE, offsets.nodeParent);
  code.move(NODE, 'r0').add(LEVEL, 1).jumpIf(LEVEL, '<', CGROUP_LEVELS, 'level');

  code.label('walked').load('u32', 'r1', 'r10', EVERYONES_MARK).jumpIf('w1', '==', UNMARKED, 'end');
  code.load('u64', 'r6', 'r10', CONTEXT).load('u32', 'r2', 'r6', SOCK_MARK);
  code.and('w2', mask).jumpIf('w2', '!=', 0, 'end').jump('mark');
  code.label('user').load('u32', 'r1', 'r0', 0);
  code.label('mark').load('u64', 'r6', 'r10', CONTEXT).load('u32', 'r2', 'r6', SOCK_MARK);
  code.load('u32', 'r3', 'r6', SOCK_PROTOCOL).jumpIf('w3', '==', IPPROTO_MPTCP, 'refuse');
  code.and('w2', ~mask).or('w2', 'w1').store('u32', 'r6', SOCK_MARK, 'r2');
  code.label('end').move('r0', 1).exit(); // 1: the socket may be created
  code.label('refuse').move('r0', 0).exit();

  emitNameLength(code, 'name_length');
  emitFindByte(code, 'find_byte');
  emitLastTwoDashes(code, 'last_two_dashes');
  return { instructions: code.program(), functions: code.functions };
}

/** r0 = the pointer at base + offset; 0 when it cannot be read. */
function readPointer(code: Assembler, base: 'r0' | 'r7', offset: number): void {
  code.move('r3', base).add('r3', offset);
  readBytes(code, SCRATCH, 8);
  code.load('u64', 'r0', 'r10', SCRATCH);
}

/** Copies `count` bytes from the address in r3 to the stack; zeros when they cannot be read. */
function readBytes(code: Assembler, to: number, count: number): void {
  code.move('r1', 'r10').add('r1', to).move('r2', count).call('probe_read_kernel');
}

/** Address, length and first bytes of the node's name; goes to `service`, `scope`, `slice`, or up when it is none of them. */
function readName(code: Assembler, nameOffset: number): void {
  readPointer(code, NODE, nameOffset);
  code.move(NAME, 'r0').move('r1', NAME).callFunction('name_length').move(LENGTH, 'r0');
  code.jumpIf(LENGTH, '<', 'a.service'.length, 'up');
  code.store('u64', 'r10', PREFIX, 0).store('u64', 'r10', PREFIX + 8, 0);
  code.move('r1', 'r10').add('r1', PREFIX).move('r2', 16).move('r3', NAME).call('probe_read_kernel_str');
  for (const index of Object.values(PART)) {
    code.store('u8', 'r10', PARTS + index * 8 + PART_START, NONE);
    code.store('u8', 'r10', PARTS + index * 8 + PART_LENGTH, NONE);
  }
  code.move('r3', NAME).add('r3', LENGTH).sub('r3', 8);
  readBytes(code, SCRATCH, 8);
  code.load('u64', 'r1', 'r10', SCRATCH);
  code.constant('r2', text('.service')).jumpIf('r1', '==', 'r2', 'service').shiftRight('r1', 16);
  code.constant('r2', text('.scope')).jumpIf('r1', '==', 'r2', 'scope');
  code.constant('r2', text('.slice')).jumpIf('r1', '==', 'r2', 'slice').jump('up');
}

function splitService(code: Assembler): void {
  code.label('service');
  part(code, PART.name, 0, LENGTH);
  code.sub(LENGTH, '.service'.length);
  code.move('r1', NAME).move('r2', LENGTH).move('r3', '@'.charCodeAt(0)).callFunction('find_byte').move(LENGTH, 'r0');
  part(code, PART.unit, 0, LENGTH);
  ifPrefix(code, 'app-', 'no app service');
  lastTwoDashes(code);
  code.jump('behind last');
  code.label('no app service');
  ifPrefix(code, 'dbus-', 'snap');
  lastTwoDashes(code);
  code.jumpIf('r1', '>', 'dbus-'.length, 'behind last').jump('look up');
}

function splitScope(code: Assembler): void {
  code.label('scope').sub(LENGTH, '.scope'.length);
  ifPrefix(code, 'app-', 'no app scope');
  lastTwoDashes(code);
  code.jumpIf('r1', '==', 'app-'.length, 'behind last').jump('between');
  code.label('no app scope');
  for (const prefix of ['flatpak-', 'gnome-launched-']) {
    ifPrefix(code, prefix, `no ${prefix}`);
    lastTwoDashes(code);
    code.move('r2', prefix.length).jump('between');
    code.label(`no ${prefix}`);
  }
  code.jump('snap');
}

function splitSlice(code: Assembler): void {
  code.label('slice').sub(LENGTH, '.slice'.length);
  ifPrefix(code, 'app-', 'up');
  lastTwoDashes(code);
  code.jumpIf('r1', '==', 'app-'.length, 'behind last').jumpIf('r2', '!=', 'app-'.length, 'between');
  code.move('r3', LENGTH).sub('r3', 'r1');
  part(code, PART.second, 'r1', 'r3');
  // What stands before the last '-', from r2; nothing when the prefix ends in that very '-'.
  code.label('between').sub('r1', 1).jumpIf('r1', '<', 'r2', 'look up').sub('r1', 'r2');
  part(code, PART.id, 'r2', 'r1');
  code.jump('look up');
  code.label('behind last').move('r3', LENGTH).sub('r3', 'r1');
  part(code, PART.id, 'r1', 'r3');
  code.jump('look up');
}

/** r1 = the index behind the last '-' of the unit, r2 that behind the one before. */
function lastTwoDashes(code: Assembler): void {
  code.move('r1', NAME).move('r2', LENGTH).callFunction('last_two_dashes');
  code.move('r1', 'r0').and('r1', 0xff).move('r2', 'r0').shiftRight('r2', 8).and('r2', 0xff);
}

/** snap.PKG.APP */
function splitSnap(code: Assembler): void {
  const findDot = (start: 'r1'): Assembler => {
    code.store('u64', 'r10', SCRATCH, start).move('r2', LENGTH).sub('r2', start).add(start, NAME);
    code.move('r3', '.'.charCodeAt(0)).callFunction('find_byte').load('u64', 'r1', 'r10', SCRATCH);
    return code.move('r3', 'r0').add('r3', 'r1').and('r3', 0xff);
  };
  code.label('snap');
  ifPrefix(code, 'snap.', 'look up');
  code.move('r1', 'snap.'.length).jumpIf(LENGTH, '<', 'r1', 'look up');
  findDot('r1').jumpIf('r3', '>=', LENGTH, 'look up');
  part(code, PART.id, 0, 'r3');
  code.move('r2', 'r3').sub('r2', 'snap.'.length).move('r1', 'snap.'.length);
  part(code, PART.second, 'r1', 'r2');
  code.move('r1', 'r3').add('r1', 1);
  findDot('r1').jumpIf('r3', '<', LENGTH, 'app ends');

  code.add('r1', UUID_TAIL).jumpIf(LENGTH, '<', 'r1', 'app ends');
  code.move('r3', NAME).add('r3', LENGTH).sub('r3', UUID_TAIL);
  readBytes(code, KEY, UUID_TAIL);
  code.move('r3', LENGTH);
  for (const dash of UUID_DASHES) {
    code.load('u8', 'r1', 'r10', KEY + dash).jumpIf('r1', '!=', '-'.charCodeAt(0), 'app ends');
  }
  code.sub('r3', UUID_TAIL);
  code.label('app ends');
  part(code, PART.third, 0, 'r3');
}

/** Looks up every part, each as it stands and without `.desktop`: ten rounds, counted in r6. */
function lookUp(code: Assembler, map: number): void {
  code.label('look up').move('r6', 0);
  code.label('part').move('r1', 'r6').shiftRight('r1', 1).shiftLeft('r1', 3).add('r1', 'r10');
  code.load('u8', 'r2', 'r1', PARTS + PART_LENGTH).jumpIf('r2', '==', NONE, 'next part');
  code.load('u8', 'r3', 'r1', PARTS + PART_START).add('r3', NAME);
  code.move('r1', 'r6').and('r1', 1).jumpIf('r1', '==', 0, 'as it stands');
  code.jumpIf('r2', '<=', '.desktop'.length, 'next part').sub('r2', '.desktop'.length);
  code
    .store('u64', 'r10', KEY, 'r2')
    .store('u64', 'r10', KEY + 8, 'r3')
    .add('r3', 'r2');
  readBytes(code, SCRATCH, 8);
  code.load('u64', 'r1', 'r10', SCRATCH).constant('r4', text('.desktop')).jumpIf('r1', '!=', 'r4', 'next part');
  code.load('u64', 'r2', 'r10', KEY).load('u64', 'r3', 'r10', KEY + 8);
  code.label('as it stands').jumpIf('r2', '==', 0, 'next part').jumpIf('r2', '>', MAX_APP_ID_BYTES, 'next part');
  for (let at = 0; at < APP_KEY_BYTES; at += 8) code.store('u64', 'r10', KEY + at, 0);
  code.move('r1', 'r10').add('r1', KEY_ID).call('probe_read_kernel');

  code.load('u32', 'r1', 'r10', UID).store('u32', 'r10', KEY, 'r1');
  code.map('r1', map).move('r2', 'r10').add('r2', KEY).call('map_lookup_elem').jumpIf('r0', '!=', 0, 'user');
  code.load('u32', 'r1', 'r10', EVERYONES_MARK).jumpIf('w1', '!=', UNMARKED, 'next part');
  code.store('u32', 'r10', KEY, EVERYONE);
  code.map('r1', map).move('r2', 'r10').add('r2', KEY).call('map_lookup_elem').jumpIf('r0', '==', 0, 'next part');
  code.load('u32', 'r1', 'r0', 0).store('u32', 'r10', EVERYONES_MARK, 'r1');
  code
    .label('next part')
    .add('r6', 1)
    .jumpIf('r6', '<', 2 * Object.keys(PART).length, 'part');
}

function part(code: Assembler, index: number, start: 0 | 'r1' | 'r2', length: 'r1' | 'r2' | 'r3' | 'r6'): void {
  code.store('u8', 'r10', PARTS + index * 8 + PART_START, start);
  code.store('u8', 'r10', PARTS + index * 8 + PART_LENGTH, length);
}

/** Goes on when the name begins so, else to the label. Uses r1. */
function ifPrefix(code: Assembler, prefix: string, otherwise: string): void {
  for (let at = 0; at < prefix.length; ) {
    const [size, bytes] = prefix.length - at >= 4 ? (['u32', 4] as const) : (['u8', 1] as const);
    code.load(size, 'r1', 'r10', PREFIX + at);
    code.jumpIf('w1', '!=', Number(text(prefix.slice(at, at + bytes))), otherwise);
    at += bytes;
  }
}

/** The number that a little-endian machine loads where this text is; both architectures we know are. */
function text(ascii: string): bigint {
  return [...ascii].reduceRight((value, character) => (value << 8n) | BigInt(character.charCodeAt(0)), 0n);
}

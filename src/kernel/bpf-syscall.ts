/** bpf(2): programs and maps; layouts from linux/bpf.h; kernel >= 5.15. Where programs are attached is bpf-attach.ts. */
import { closeSync } from 'node:fs';
import { KernelError } from '../model/errors.js';
import type { BpfFunction } from './bpf-assembler.js';
import { functionTypes, typeOfFunction } from './bpf-function-types.js';
import { errnoName, lastError } from './errno.js';
import { addressOf, errno, libc } from './ffi.js';

const NR_BPF: Partial<Record<NodeJS.Architecture, number>> = { x64: 321, arm64: 280 };
const BPF_MAP_CREATE = 0;
const BPF_MAP_UPDATE_ELEM = 2;
const BPF_MAP_DELETE_ELEM = 3;
const BPF_PROG_LOAD = 5;
const BPF_BTF_LOAD = 18;
const BPF_MAP_TYPE_HASH = 1;
/** Elements are allocated and freed one by one: a program never sees one that was freed and given a new key. */
const BPF_F_NO_PREALLOC = 1;
/** struct bpf_func_info: where a function starts, its type. */
const FUNC_INFO_BYTES = 8;
/** The kernel takes a longer union than it knows when the rest is zero. */
export const ATTR_BYTES = 128;

export const PROGRAM_TYPE = { cgroupSkb: 8, cgroupSock: 9 } as const;

export function bpf(command: number, attr: Buffer): number {
  const number = NR_BPF[process.arch];
  if (number === undefined) throw new KernelError('bpf', `on ${process.arch}`, 'ENOSYS');
  return libc.syscallBytes(number, command, attr, attr.length);
}

export interface ProgramSpec {
  /** 1 to 15 of A-Z a-z 0-9 _ */
  name: string;
  type: number;
  /** What it will be attached to, enum bpf_attach_type. */
  attachType: number;
  /** struct bpf_insn[]. */
  instructions: Buffer;
  /** Needed when it has more than one: all of them, the program itself first. */
  functions?: readonly BpfFunction[];
}

/** Returns a descriptor. Throws KernelError with the verifier's last words. */
export function loadProgram(spec: ProgramSpec): number {
  if (!/^[A-Za-z0-9_]{1,15}$/.test(spec.name)) throw new RangeError(`BPF program name ${JSON.stringify(spec.name)}`);
  const { functions = [] } = spec;
  if (functions.length === 0) return load(spec);
  const types = loadTypes(functions, spec.name);
  try {
    return load(spec, types);
  } finally {
    closeSync(types);
  }
}

function load({ name, type, attachType, instructions, functions = [] }: ProgramSpec, types?: number): number {
  // One buffer, large enough to stay where it is, for all that the kernel is pointed to.
  const info = Buffer.alloc(functions.length * FUNC_INFO_BYTES);
  functions.forEach(({ at }, index) => {
    info.writeUInt32LE(at, index * FUNC_INFO_BYTES);
    info.writeUInt32LE(typeOfFunction(index), index * FUNC_INFO_BYTES + 4);
  });
  const memory = Buffer.concat([instructions, info, Buffer.from('GPL\0'), Buffer.alloc(4096)]);
  const start = addressOf(memory);
  const attr = Buffer.alloc(ATTR_BYTES);
  attr.writeUInt32LE(type, 0);
  attr.writeUInt32LE(instructions.length / 8, 4);
  attr.writeBigUInt64LE(start, 8);
  attr.writeBigUInt64LE(start + BigInt(instructions.length + info.length), 16);
  attr.write(name, 48);
  attr.writeUInt32LE(attachType, 68);
  if (types !== undefined) {
    attr.writeUInt32LE(types, 72);
    attr.writeUInt32LE(FUNC_INFO_BYTES, 76);
    attr.writeBigUInt64LE(start + BigInt(instructions.length), 80);
    attr.writeUInt32LE(functions.length, 88);
  }
  const fd = bpf(BPF_PROG_LOAD, attr);
  if (fd >= 0) return fd;
  const error = errnoName(errno());
  // A second time for the verifier's words; the first went without, which is faster.
  const log = Buffer.alloc(65536);
  attr.writeUInt32LE(1, 24);
  attr.writeUInt32LE(log.length, 28);
  attr.writeBigUInt64LE(addressOf(log), 32);
  const second = bpf(BPF_PROG_LOAD, attr);
  if (second >= 0) return second;
  const lines = log.toString('utf8', 0, log.indexOf(0)).split('\n');
  // The reason is the last line, but for the statistics behind it.
  const lastLine = lines.findLast((line) => line !== '' && !/^(processed|verification time|stack depth) /.test(line));
  throw new KernelError('BPF_PROG_LOAD', name, error, lastLine ? { message: lastLine } : undefined);
}

function loadTypes(functions: readonly BpfFunction[], object: string): number {
  const types = functionTypes(functions);
  const memory = Buffer.concat([types, Buffer.alloc(4096)]);
  const attr = Buffer.alloc(ATTR_BYTES);
  attr.writeBigUInt64LE(addressOf(memory), 0);
  attr.writeUInt32LE(types.length, 16);
  const fd = bpf(BPF_BTF_LOAD, attr);
  if (fd < 0) throw lastError('BPF_BTF_LOAD', object);
  return fd;
}

/**
 * A hash map that programs share with us. It lives until it is closed here and every program that uses it is gone; a change
 * of one element is seen by programs whole or not at all.
 */
export class HashMap {
  readonly fd: number;
  readonly #name: string;

  constructor(name: string, keyBytes: number, valueBytes: number, maxEntries: number) {
    const attr = Buffer.alloc(ATTR_BYTES);
    attr.writeUInt32LE(BPF_MAP_TYPE_HASH, 0);
    attr.writeUInt32LE(keyBytes, 4);
    attr.writeUInt32LE(valueBytes, 8);
    attr.writeUInt32LE(maxEntries, 12);
    attr.writeUInt32LE(BPF_F_NO_PREALLOC, 16);
    attr.write(name, 28);
    this.#name = name;
    this.fd = bpf(BPF_MAP_CREATE, attr);
    if (this.fd < 0) throw lastError('BPF_MAP_CREATE', name);
  }

  /** Adds or replaces. Throws KernelError; E2BIG when the map is full. */
  set(key: Buffer, value: Buffer): void {
    if (this.#element(BPF_MAP_UPDATE_ELEM, key, value) < 0) throw lastError('BPF_MAP_UPDATE_ELEM', this.#name);
  }

  /** One that is not there is no error. */
  delete(key: Buffer): void {
    if (this.#element(BPF_MAP_DELETE_ELEM, key) === 0 || errnoName(errno()) === 'ENOENT') return;
    throw lastError('BPF_MAP_DELETE_ELEM', this.#name);
  }

  close(): void {
    closeSync(this.fd);
  }

  #element(command: number, key: Buffer, value?: Buffer): number {
    // Large enough that V8 does not move it while its address is in use.
    const memory = Buffer.alloc(4096);
    key.copy(memory);
    value?.copy(memory, 2048);
    const attr = Buffer.alloc(ATTR_BYTES);
    attr.writeUInt32LE(this.fd, 0);
    attr.writeBigUInt64LE(addressOf(memory), 8);
    if (value) attr.writeBigUInt64LE(addressOf(memory) + 2048n, 16);
    return bpf(command, attr);
  }
}

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
const ATTR_BYTES = 128;

/** A look at the largest of ours takes some 13 ms: signals do not come that often for long. */
const LOAD_ATTEMPTS = 20;

export const PROGRAM_TYPE = { cgroupSkb: 8, cgroupSock: 9 } as const;

/**
 * union bpf_attr: numbers of 32 bits, texts in place, and buffers that the kernel is pointed to, by offset. Those go into one
 * block with it for the call and come back after: a buffer of which only the address is in use may be collected any time.
 */
export class Attributes {
  readonly #fields: Readonly<Record<number, number | string | Buffer>>;
  #after = Buffer.alloc(ATTR_BYTES);

  constructor(fields: Readonly<Record<number, number | string | Buffer>>) {
    this.#fields = fields;
  }

  /** What the kernel has left there. */
  u32(offset: number): number {
    return this.#after.readUInt32LE(offset);
  }

  /** Calls bpf(2). */
  call(command: number): number {
    const number = NR_BPF[process.arch];
    if (number === undefined) throw new KernelError('bpf', `on ${process.arch}`, 'ENOSYS');
    const buffers = Object.values(this.#fields).filter((field) => Buffer.isBuffer(field));
    const block = Buffer.alloc(buffers.reduce((total, { length }) => total + aligned(length), ATTR_BYTES));
    const copies: { buffer: Buffer; at: number }[] = [];
    let end = ATTR_BYTES;
    for (const [key, field] of Object.entries(this.#fields)) {
      const offset = Number(key);
      if (typeof field === 'number') block.writeUInt32LE(field, offset);
      else if (typeof field === 'string') block.write(field, offset, 'latin1');
      else {
        field.copy(block, end);
        block.writeBigUInt64LE(addressOf(block) + BigInt(end), offset);
        copies.push({ buffer: field, at: end });
        end += aligned(field.length);
      }
    }
    const result = libc.syscallBytes(number, command, block, ATTR_BYTES);
    for (const { buffer, at } of copies) block.copy(buffer, 0, at, at + buffer.length);
    this.#after = block;
    return result;
  }
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / 8) * 8;
}

/** bpf(2) with nothing to read back. */
export function bpf(command: number, fields: Readonly<Record<number, number | string | Buffer>>): number {
  return new Attributes(fields).call(command);
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
  const info = Buffer.alloc(functions.length * FUNC_INFO_BYTES);
  functions.forEach(({ at }, index) => {
    info.writeUInt32LE(at, index * FUNC_INFO_BYTES);
    info.writeUInt32LE(typeOfFunction(index), index * FUNC_INFO_BYTES + 4);
  });
  const attr = {
    ...{ 0: type, 4: instructions.length / 8, 8: instructions, 16: Buffer.from('GPL\0'), 48: name, 68: attachType },
    ...(types !== undefined && { 72: types, 76: FUNC_INFO_BYTES, 80: info, 88: functions.length }),
  };
  const fd = loadUndisturbed(attr);
  if (fd >= 0) return fd;
  const error = errnoName(errno());
  // A second time for the verifier's words; the first went without, which is faster.
  const log = Buffer.alloc(65536);
  const second = loadUndisturbed({ ...attr, 24: 1, 28: log.length, 32: log });
  if (second >= 0) return second;
  const lines = log.toString('utf8', 0, log.indexOf(0)).split('\n');
  // The reason is the last line, but for the statistics behind it.
  const lastLine = lines.findLast((line) => line !== '' && !/^(processed|verification time|stack depth) /.test(line));
  throw new KernelError('BPF_PROG_LOAD', name, error, lastLine ? { message: lastLine } : undefined);
}

/** A signal that comes while the kernel looks a program over ends that with EAGAIN, and says nothing about the program. */
function loadUndisturbed(attr: Parameters<typeof bpf>[1]): number {
  for (let attempt = 1; ; attempt++) {
    const fd = bpf(BPF_PROG_LOAD, attr);
    if (fd >= 0 || errnoName(errno()) !== 'EAGAIN' || attempt === LOAD_ATTEMPTS) return fd;
  }
}

function loadTypes(functions: readonly BpfFunction[], object: string): number {
  const types = functionTypes(functions);
  const fd = bpf(BPF_BTF_LOAD, { 0: types, 16: types.length });
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
    this.#name = name;
    const fields = {
      0: BPF_MAP_TYPE_HASH,
      4: keyBytes,
      8: valueBytes,
      12: maxEntries,
      16: BPF_F_NO_PREALLOC,
      28: name,
    };
    this.fd = bpf(BPF_MAP_CREATE, fields);
    if (this.fd < 0) throw lastError('BPF_MAP_CREATE', name);
  }

  /** Adds or replaces. Throws KernelError; E2BIG when the map is full. */
  set(key: Buffer, value: Buffer): void {
    if (bpf(BPF_MAP_UPDATE_ELEM, { 0: this.fd, 8: key, 16: value }) < 0)
      throw lastError('BPF_MAP_UPDATE_ELEM', this.#name);
  }

  /** One that is not there is no error. */
  delete(key: Buffer): void {
    if (bpf(BPF_MAP_DELETE_ELEM, { 0: this.fd, 8: key }) === 0 || errnoName(errno()) === 'ENOENT') return;
    throw lastError('BPF_MAP_DELETE_ELEM', this.#name);
  }

  close(): void {
    closeSync(this.fd);
  }
}

/**
 * BPF programs on cgroups: attach, list, detach, sweep. An attachment belongs to the cgroup (no link), so it and the maps of
 * its program outlive this process; the program's name is what a sweep finds it by.
 *
 * Loading and attaching need CAP_BPF and CAP_NET_ADMIN; listing and detaching go by program id, which needs CAP_SYS_ADMIN.
 */
import { closeSync, constants, openSync, readdirSync } from 'node:fs';
import { KernelError } from '../model/errors.js';
import { attempt, isAbsent } from './absence.js';
import { Attributes, bpf } from './bpf-syscall.js';
import { errnoName, lastError } from './errno.js';
import { errno } from './ffi.js';

const BPF_PROG_ATTACH = 8;
const BPF_PROG_DETACH = 9;
const BPF_PROG_GET_FD_BY_ID = 13;
const BPF_OBJ_GET_INFO_BY_FD = 15;
const BPF_PROG_QUERY = 16;
const BPF_F_ALLOW_MULTI = 1 << 1;
/** The kernel's limit of programs on one cgroup and attach type. */
const BPF_CGROUP_MAX_PROGS = 64;
/** offsetof(struct bpf_prog_info, …); the name has 16 bytes. */
const INFO_ID = 4;
const INFO_NAME = 64;

/** enum bpf_attach_type. */
export const ATTACH_TYPE = { ingress: 0, egress: 1, sockCreate: 2 } as const;

export interface AttachedProgram {
  id: number;
  name: string;
}

/** Attaches beside others' programs. Attaching the same one twice does nothing. */
export function attachProgram(cgroupDir: string, program: number, attachType: number): void {
  withCgroup(cgroupDir, (cgroup) => {
    const attr = { 0: cgroup, 4: program, 8: attachType, 12: BPF_F_ALLOW_MULTI };
    // EPERM with all capabilities: here or above sits somebody's program that was attached as the only one.
    if (bpf(BPF_PROG_ATTACH, attr) < 0) throw lastError('BPF_PROG_ATTACH', cgroupDir);
  });
}

/** Takes back attachProgram(). One that somebody else has detached is no error. */
export function detachProgram(cgroupDir: string, program: number, attachType: number): void {
  withCgroup(cgroupDir, (cgroup) => void detach(cgroup, program, attachType, cgroupDir));
}

/** The programs of this very cgroup, everybody's, in the order they run. */
export function listPrograms(cgroupDir: string, attachType: number): AttachedProgram[] {
  return withCgroup(cgroupDir, (cgroup) => {
    const programs: AttachedProgram[] = [];
    for (const id of query(cgroup, cgroupDir, attachType).ids) {
      withProgram(id, (program) => programs.push({ id, name: nameOf(program, id) }));
    }
    return programs;
  });
}

/** Whether somebody's program sits there that forbids others beside it. */
export function isTaken(cgroupDir: string, attachType: number): boolean {
  const { ids, flags } = withCgroup(cgroupDir, (cgroup) => query(cgroup, cgroupDir, attachType));
  return ids.length > 0 && (flags & BPF_F_ALLOW_MULTI) === 0;
}

/** By which others find a program that is loaded. */
export function programId(program: number): number {
  return infoOf(program, 'program').readUInt32LE(INFO_ID);
}

export interface ProgramMatch {
  name?: (name: string, id: number) => boolean;
  id?: number;
}

/**
 * Detaches the programs that fit every given condition; none given: none detached. Returns their ids. One that somebody
 * else detaches meanwhile is no error.
 */
export function detachPrograms(cgroupDir: string, attachType: number, match: ProgramMatch): number[] {
  if (match.name === undefined && match.id === undefined) return [];
  return withCgroup(cgroupDir, (cgroup) => {
    const detached: number[] = [];
    for (const id of query(cgroup, cgroupDir, attachType).ids) {
      if (match.id !== undefined && match.id !== id) continue;
      withProgram(id, (program) => {
        if (match.name !== undefined && !match.name(nameOf(program, id), id)) return;
        if (detach(cgroup, program, attachType, `${id} from ${cgroupDir}`)) detached.push(id);
      });
    }
    return detached;
  });
}

/**
 * Detaches by name, whatever they are attached to, in the whole tree from `root` down. Returns the programs' ids. Cgroups
 * that vanish meanwhile are skipped.
 */
export function sweepPrograms(root: string, namePredicate: (name: string, id: number) => boolean): number[] {
  const detached: number[] = [];
  const pending = [root];
  for (let directory = pending.pop(); directory !== undefined; directory = pending.pop()) {
    try {
      for (const attachType of Object.values(ATTACH_TYPE)) {
        detached.push(...detachPrograms(directory, attachType, { name: namePredicate }));
      }
      const entries = attempt('readdir', directory, () => readdirSync(directory, { withFileTypes: true }));
      for (const entry of entries) {
        if (entry.isDirectory()) pending.push(`${directory}/${entry.name}`);
      }
    } catch (error) {
      if (!isAbsent(error)) throw error;
    }
  }
  return detached;
}

/** Whether it was there. */
function detach(cgroup: number, program: number, attachType: number, object: string): boolean {
  if (bpf(BPF_PROG_DETACH, { 0: cgroup, 4: program, 8: attachType }) === 0) return true;
  if (errnoName(errno()) !== 'ENOENT') throw lastError('BPF_PROG_DETACH', object);
  return false;
}

function query(cgroup: number, object: string, attachType: number): { ids: number[]; flags: number } {
  const ids = Buffer.alloc(BPF_CGROUP_MAX_PROGS * 4);
  const attr = new Attributes({ 0: cgroup, 4: attachType, 16: ids, 24: BPF_CGROUP_MAX_PROGS });
  if (attr.call(BPF_PROG_QUERY) < 0) throw lastError('BPF_PROG_QUERY', object);
  return { ids: Array.from({ length: attr.u32(24) }, (_, i) => ids.readUInt32LE(i * 4)), flags: attr.u32(12) };
}

function nameOf(program: number, id: number): string {
  const name = infoOf(program, `program ${id}`).toString('latin1', INFO_NAME, INFO_NAME + 16);
  return name.slice(0, name.indexOf('\0'));
}

function infoOf(program: number, object: string): Buffer {
  const info = Buffer.alloc(INFO_NAME + 16);
  if (bpf(BPF_OBJ_GET_INFO_BY_FD, { 0: program, 4: info.length, 8: info }) < 0)
    throw lastError('BPF_OBJ_GET_INFO_BY_FD', object);
  return info;
}

/** Calls `use` with a descriptor of the program, unless it is gone. */
function withProgram(id: number, use: (fd: number) => void): void {
  const fd = bpf(BPF_PROG_GET_FD_BY_ID, { 0: id });
  if (fd < 0) {
    const error = errnoName(errno());
    if (error === 'ENOENT') return;
    const why = error === 'EPERM' ? { message: 'needs CAP_SYS_ADMIN' } : undefined;
    throw new KernelError('BPF_PROG_GET_FD_BY_ID', String(id), error, why);
  }
  try {
    use(fd);
  } finally {
    closeSync(fd);
  }
}

function withCgroup<T>(directory: string, use: (fd: number) => T): T {
  const fd = attempt('open', directory, () => openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY));
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

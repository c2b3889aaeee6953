/**
 * Marks every socket that the processes of a cgroup create, before its first route lookup: a BPF_PROG_TYPE_CGROUP_SOCK program
 * at BPF_CGROUP_INET_SOCK_CREATE, what `ip vrf exec` does with a device. bpf(2); layouts from linux/bpf.h; kernel >= 5.15.
 *
 * Covers AF_INET and AF_INET6 sockets of every type, in children and in cgroups below, too. It does not reach AF_PACKET,
 * the kernel's own sockets, sockets made before the program was attached, or accepted ones (they inherit the listener's mark).
 *
 * The attachment belongs to the cgroup (no link), so it outlives this process; the program's name is what a sweep finds it
 * by. Loading and attaching need CAP_BPF and CAP_NET_ADMIN; listing and detaching go by program id, which needs CAP_SYS_ADMIN.
 *
 * Order. On a socket's creation the kernel runs the programs of the process's own cgroup in order of attachment, then those
 * of the parent, and so on to the root; each sees the mark that the one before has left. The outcome must not depend on
 * that: a user's program checks the uid and overwrites, root's yields to any mark in the field, so the user's wins whether it
 * runs first or last.
 */
import { closeSync, constants, openSync, readdirSync } from 'node:fs';
import { KernelError } from '../model/errors.js';
import { errnoName, lastError } from './errno.js';
import { addressOf, errno, libc } from './ffi.js';

const NR_BPF: Partial<Record<NodeJS.Architecture, number>> = { x64: 321, arm64: 280 };
const BPF_PROG_LOAD = 5;
const BPF_PROG_ATTACH = 8;
const BPF_PROG_DETACH = 9;
const BPF_PROG_GET_FD_BY_ID = 13;
const BPF_OBJ_GET_INFO_BY_FD = 15;
const BPF_PROG_QUERY = 16;
const BPF_PROG_TYPE_CGROUP_SOCK = 9;
const BPF_CGROUP_INET_SOCK_CREATE = 2;
const BPF_F_ALLOW_MULTI = 1 << 1;
/** The kernel's limit of programs on one cgroup and attach type. */
const BPF_CGROUP_MAX_PROGS = 64;
const BPF_FUNC_get_current_uid_gid = 15;
const BPF_FUNC_get_netns_cookie = 122;
/** offsetof(struct bpf_sock, mark). */
const SOCK_MARK = 16;
/** offsetof(struct bpf_prog_info, name); the name has 16 bytes. */
const INFO_NAME = 64;
/** The kernel takes a longer union than it knows when the rest is zero. */
const ATTR_BYTES = 128;

/** What a new socket's mark becomes: `mark & ~mask | spec.mark`, under the conditions below. */
export interface SocketMark {
  /** Lies within `mask`. */
  mark: number;
  mask: number;
  /** Only sockets created under this real uid, as the initial user namespace counts; absent: everyone's. */
  uid?: number;
  /** false: a socket that already has a mark in the field keeps it. */
  overwrite: boolean;
  /** SO_NETNS_COOKIE of the only network namespace it is for: a cgroup may hold processes of several. */
  netnsCookie: bigint;
}

export interface AttachedProgram {
  id: number;
  name: string;
}

/** Attaches a program named `name` (1 to 15 of A-Z a-z 0-9 _) to the cgroup. Attaching twice means two programs. */
export function attachSocketMark(cgroupDir: string, spec: SocketMark, name: string): void {
  if (!/^[A-Za-z0-9_]{1,15}$/.test(name)) throw new RangeError(`BPF program name ${JSON.stringify(name)}`);
  withCgroup(cgroupDir, (cgroup) => {
    const program = load(spec, name);
    try {
      const attr = Buffer.alloc(ATTR_BYTES);
      attr.writeUInt32LE(cgroup, 0);
      attr.writeUInt32LE(program, 4);
      attr.writeUInt32LE(BPF_CGROUP_INET_SOCK_CREATE, 8);
      attr.writeUInt32LE(BPF_F_ALLOW_MULTI, 12);
      // EPERM with all capabilities: here or above sits somebody's program that was attached as the only one.
      if (bpf(BPF_PROG_ATTACH, attr) < 0) throw lastError('BPF_PROG_ATTACH', `${name} to ${cgroupDir}`);
    } finally {
      closeSync(program);
    }
  });
}

/** The socket-creation programs of this very cgroup, everybody's, in the order they run. */
export function listSocketMarks(cgroupDir: string): AttachedProgram[] {
  return withCgroup(cgroupDir, (cgroup) => {
    const programs: AttachedProgram[] = [];
    for (const id of query(cgroup, cgroupDir)) {
      withProgram(id, (program) => programs.push({ id, name: nameOf(program, id) }));
    }
    return programs;
  });
}

/**
 * Detaches the programs that fit every given condition; none given: none detached. Returns their ids. One that somebody
 * else detaches meanwhile is no error.
 */
export function detachSocketMarks(
  cgroupDir: string,
  match: { name?: (name: string) => boolean; id?: number },
): number[] {
  if (match.name === undefined && match.id === undefined) return [];
  return withCgroup(cgroupDir, (cgroup) => {
    const detached: number[] = [];
    for (const id of query(cgroup, cgroupDir)) {
      if (match.id !== undefined && match.id !== id) continue;
      withProgram(id, (program) => {
        if (match.name !== undefined && !match.name(nameOf(program, id))) return;
        const attr = Buffer.alloc(ATTR_BYTES);
        attr.writeUInt32LE(cgroup, 0);
        attr.writeUInt32LE(program, 4);
        attr.writeUInt32LE(BPF_CGROUP_INET_SOCK_CREATE, 8);
        if (bpf(BPF_PROG_DETACH, attr) === 0) detached.push(id);
        else if (errnoName(errno()) !== 'ENOENT') throw lastError('BPF_PROG_DETACH', `${id} from ${cgroupDir}`);
      });
    }
    return detached;
  });
}

/** Detaches by name in the whole tree from `root` down. Returns the programs' ids. Cgroups that vanish meanwhile are skipped. */
export function sweepSocketMarks(root: string, namePredicate: (name: string) => boolean): number[] {
  const detached: number[] = [];
  const pending = [root];
  for (let directory = pending.pop(); directory !== undefined; directory = pending.pop()) {
    try {
      detached.push(...detachSocketMarks(directory, { name: namePredicate }));
      for (const entry of readdirSync(directory, { withFileTypes: true })) {
        if (entry.isDirectory()) pending.push(`${directory}/${entry.name}`);
      }
    } catch (error) {
      if (!isGone(error)) throw error;
    }
  }
  return detached;
}

function isGone(error: unknown): boolean {
  const name = error instanceof KernelError ? error.errnoName : (error as NodeJS.ErrnoException).code;
  return name === 'ENOENT' || name === 'ENODEV';
}

/** The program, as struct bpf_insn[]: op:8 dst:4 src:4 off:16 imm:32. */
export function socketMarkProgram(spec: SocketMark): Buffer {
  const { mark, mask, uid, overwrite, netnsCookie } = spec;
  if ((mark & ~mask) !== 0) throw new RangeError(`mark 0x${mark.toString(16)} outside mask 0x${mask.toString(16)}`);
  const code: Buffer[] = [];
  const jumpsToEnd: number[] = [];
  const emit = (op: number, dst: number, src: number, off: number, imm: number): void => {
    const insn = Buffer.alloc(8);
    insn[0] = op;
    insn[1] = dst | (src << 4);
    insn.writeInt16LE(off, 2);
    insn.writeInt32LE(imm | 0, 4);
    code.push(insn);
  };
  const endIfNotEqual = (op: number, dst: number, src: number, imm: number): void => {
    jumpsToEnd.push(code.length);
    emit(op, dst, src, 0, imm);
  };
  emit(0xbf, 6, 1, 0, 0); // r6 = ctx
  emit(0x85, 0, 0, 0, BPF_FUNC_get_netns_cookie); // r0 = bpf_get_netns_cookie(ctx)
  emit(0x18, 1, 0, 0, Number(BigInt.asIntN(32, netnsCookie))); // r1 = netnsCookie, in two halves
  emit(0, 0, 0, 0, Number(BigInt.asIntN(32, netnsCookie >> 32n)));
  endIfNotEqual(0x5d, 0, 1, 0); // if r0 != r1
  if (uid !== undefined) {
    emit(0x85, 0, 0, 0, BPF_FUNC_get_current_uid_gid); // r0 = gid << 32 | uid
    endIfNotEqual(0x56, 0, 0, uid); // if w0 != uid
  }
  emit(0x61, 2, 6, SOCK_MARK, 0); // r2 = ctx->mark
  if (!overwrite) {
    emit(0xbc, 3, 2, 0, 0); // w3 = w2
    emit(0x54, 3, 0, 0, mask); // w3 &= mask
    endIfNotEqual(0x56, 3, 0, 0); // if w3 != 0
  }
  emit(0x54, 2, 0, 0, ~mask); // w2 &= ~mask
  emit(0x44, 2, 0, 0, mark); // w2 |= mark
  emit(0x63, 6, 2, SOCK_MARK, 0); // ctx->mark = w2
  for (const at of jumpsToEnd) code[at]?.writeInt16LE(code.length - at - 1, 2);
  emit(0xb7, 0, 0, 0, 1); // r0 = 1: the socket may be created, always
  emit(0x95, 0, 0, 0, 0); // exit
  return Buffer.concat(code);
}

function load(spec: SocketMark, name: string): number {
  const program = socketMarkProgram(spec);
  // One buffer, large enough to stay where it is, for the program and its licence.
  const memory = Buffer.alloc(4096);
  program.copy(memory);
  const licenceOffset = program.length;
  memory.write('GPL\0', licenceOffset);
  const attr = Buffer.alloc(ATTR_BYTES);
  attr.writeUInt32LE(BPF_PROG_TYPE_CGROUP_SOCK, 0);
  attr.writeUInt32LE(program.length / 8, 4);
  attr.writeBigUInt64LE(addressOf(memory), 8);
  attr.writeBigUInt64LE(addressOf(memory) + BigInt(licenceOffset), 16);
  attr.write(name, 48);
  attr.writeUInt32LE(BPF_CGROUP_INET_SOCK_CREATE, 68);
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
  const lastLine = lines.findLast((line) => line !== '' && !line.startsWith('processed '));
  throw new KernelError('BPF_PROG_LOAD', name, error, lastLine ? { message: lastLine } : undefined);
}

function query(cgroup: number, object: string): number[] {
  const ids = Buffer.alloc(BPF_CGROUP_MAX_PROGS * 4);
  const attr = Buffer.alloc(ATTR_BYTES);
  attr.writeUInt32LE(cgroup, 0);
  attr.writeUInt32LE(BPF_CGROUP_INET_SOCK_CREATE, 4);
  attr.writeBigUInt64LE(addressOf(ids), 16);
  attr.writeUInt32LE(BPF_CGROUP_MAX_PROGS, 24);
  if (bpf(BPF_PROG_QUERY, attr) < 0) throw lastError('BPF_PROG_QUERY', object);
  return Array.from({ length: attr.readUInt32LE(24) }, (_, i) => ids.readUInt32LE(i * 4));
}

function nameOf(program: number, id: number): string {
  const info = Buffer.alloc(ATTR_BYTES);
  const attr = Buffer.alloc(ATTR_BYTES);
  attr.writeUInt32LE(program, 0);
  attr.writeUInt32LE(info.length, 4);
  attr.writeBigUInt64LE(addressOf(info), 8);
  if (bpf(BPF_OBJ_GET_INFO_BY_FD, attr) < 0) throw lastError('BPF_OBJ_GET_INFO_BY_FD', `program ${id}`);
  const name = info.toString('latin1', INFO_NAME, INFO_NAME + 16);
  return name.slice(0, name.indexOf('\0'));
}

/** Calls `use` with a descriptor of the program, unless it is gone. */
function withProgram(id: number, use: (fd: number) => void): void {
  const attr = Buffer.alloc(ATTR_BYTES);
  attr.writeUInt32LE(id, 0);
  const fd = bpf(BPF_PROG_GET_FD_BY_ID, attr);
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
  let fd: number;
  try {
    fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (error) {
    throw new KernelError('open', directory, (error as NodeJS.ErrnoException).code ?? String(error));
  }
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

function bpf(command: number, attr: Buffer): number {
  const number = NR_BPF[process.arch];
  if (number === undefined) throw new KernelError('bpf', `on ${process.arch}`, 'ENOSYS');
  return libc.syscallBytes(number, command, attr, attr.length);
}

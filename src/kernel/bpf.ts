/**
 * Marks every socket that the processes of a cgroup create, before its first route lookup: a BPF_PROG_TYPE_CGROUP_SOCK program
 * at BPF_CGROUP_INET_SOCK_CREATE, what `ip vrf exec` does with a device.
 *
 * Covers AF_INET and AF_INET6 sockets of every type, in children and in cgroups below, too. It does not reach AF_PACKET,
 * the kernel's own sockets, sockets made before the program was attached, or accepted ones (they inherit the listener's mark).
 *
 * Order. On a socket's creation the kernel runs the programs of the process's own cgroup in order of attachment, then those
 * of the parent, and so on to the root; each sees the mark that the one before has left. The outcome must not depend on
 * that: a user's program checks the uid and overwrites, root's yields to any mark in the field, so the user's wins whether it
 * runs first or last.
 */
import { closeSync } from 'node:fs';
import { Assembler } from './bpf-assembler.js';
import {
  ATTACH_TYPE,
  type AttachedProgram,
  attachProgram,
  detachPrograms,
  listPrograms,
  type ProgramMatch,
} from './bpf-attach.js';
import { loadProgram, PROGRAM_TYPE } from './bpf-syscall.js';

export { type AttachedProgram, sweepPrograms as sweepSocketMarks } from './bpf-attach.js';

/** offsetof(struct bpf_sock, mark). */
export const SOCK_MARK = 16;
/** offsetof(struct bpf_sock, protocol). */
export const SOCK_PROTOCOL = 12;
/** A mark never reaches the subflows, which would leave in clear: so who would be marked gets no such socket. */
export const IPPROTO_MPTCP = 262;

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

/** Attaches a program named `name` (1 to 15 of A-Z a-z 0-9 _) to the cgroup. Attaching twice means two programs. */
export function attachSocketMark(cgroupDir: string, spec: SocketMark, name: string): void {
  const instructions = socketMarkProgram(spec);
  const attachType = ATTACH_TYPE.sockCreate;
  const program = loadProgram({ name, type: PROGRAM_TYPE.cgroupSock, attachType, instructions });
  try {
    attachProgram(cgroupDir, program, attachType);
  } finally {
    closeSync(program);
  }
}

/** The socket-creation programs of this very cgroup, everybody's, in the order they run. */
export function listSocketMarks(cgroupDir: string): AttachedProgram[] {
  return listPrograms(cgroupDir, ATTACH_TYPE.sockCreate);
}

/** See detachPrograms(). */
export function detachSocketMarks(cgroupDir: string, match: ProgramMatch): number[] {
  return detachPrograms(cgroupDir, ATTACH_TYPE.sockCreate, match);
}

/** The program, as struct bpf_insn[]. */
export function socketMarkProgram(spec: SocketMark): Buffer {
  const { mark, mask, uid, overwrite, netnsCookie } = spec;
  if ((mark & ~mask) !== 0) throw new RangeError(`mark 0x${mark.toString(16)} outside mask 0x${mask.toString(16)}`);
  const code = new Assembler();
  code.move('r6', 'r1'); // the context, a struct bpf_sock
  onlyInNamespace(code, netnsCookie, 'end');
  if (uid !== undefined) code.call('get_current_uid_gid').jumpIf('w0', '!=', uid, 'end');
  code.load('u32', 'r2', 'r6', SOCK_MARK);
  if (!overwrite) code.move('w3', 'w2').and('w3', mask).jumpIf('w3', '!=', 0, 'end');
  code.load('u32', 'r1', 'r6', SOCK_PROTOCOL).jumpIf('w1', '==', IPPROTO_MPTCP, 'refuse');
  code.and('w2', ~mask).or('w2', mark).store('u32', 'r6', SOCK_MARK, 'r2');
  code.label('end').move('r0', 1).exit(); // 1: the socket may be created
  return code.label('refuse').move('r0', 0).exit().program();
}

/** Jumps to `elsewhere` when the context's network namespace (r1 = context) is not the one with the cookie. */
export function onlyInNamespace(code: Assembler, cookie: bigint, elsewhere: string): void {
  code.call('get_netns_cookie').constant('r1', cookie).jumpIf('r0', '!=', 'r1', elsewhere);
}

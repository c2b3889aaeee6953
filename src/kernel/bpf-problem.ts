/** Why a BPF program cannot be used on this machine, in a sentence for people that names the package, setting or right. */
import { KernelError } from '../model/errors.js';
import { isShortage } from './absence.js';
import { isTaken } from './bpf-attach.js';
import { cgroup2Root } from './cgroup.js';

const RIGHTS = 'CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON in the initial user namespace';

/** What was loaded once can be again, and takes tens of milliseconds. By attach type. */
const loadable = new Set<number>();

/**
 * Undefined when nothing is in the way. `load` loads such a program and lets it go again; nothing stays changed. Throws KernelError when
 * it failed for want of memory or descriptors: that is no property of the machine.
 */
export function programProblem(purpose: string, attachType: number, load: () => void): string | undefined {
  const reason = problem(attachType, load);
  return reason === undefined ? undefined : `${purpose} needs ${reason}`;
}

function problem(attachType: number, load: () => void): string | undefined {
  const root = cgroup2Root();
  if (root === undefined) return 'cgroup v2: mount it (mount -t cgroup2 none /sys/fs/cgroup)';
  try {
    if (isTaken(root, attachType)) {
      return 'its place on the root cgroup, where a BPF program of somebody else allows none beside it';
    }
    if (!loadable.has(attachType)) load();
    loadable.add(attachType);
    return undefined;
  } catch (error) {
    if (error instanceof KernelError && !isShortage(error)) return reasonOf(error);
    throw error;
  }
}

/**
 * Whether the error says that programs cannot be used here at all: no right (EPERM, EACCES by a security module), no bpf(2), or a
 * kernel without programs on cgroups (EINVAL of the query). Then none of ours can be attached either.
 */
export function isWithoutBpf(error: unknown): boolean {
  if (!(error instanceof KernelError) || !/^(bpf$|BPF_)/.test(error.call)) return false;
  const { call, errnoName } = error;
  return ['EPERM', 'EACCES', 'ENOSYS'].includes(errnoName) || (call === 'BPF_PROG_QUERY' && errnoName === 'EINVAL');
}

function reasonOf(error: KernelError): string {
  const { call, errnoName, extendedAck, message } = error;
  if (errnoName === 'EPERM' || errnoName === 'EACCES') return `${RIGHTS} (${message})`;
  if (call === 'bpf' || errnoName === 'ENOSYS') return 'a kernel with CONFIG_BPF_SYSCALL, on x86_64 or aarch64';
  if (call === 'BPF_PROG_QUERY') return `a kernel with CONFIG_CGROUP_BPF (${message})`;
  if (call === 'read') return `the kernel's description of its types (${message})`;
  // Without the right, or when the kernel is locked down for confidentiality, it is as if there were no such function.
  if (/unknown func|cannot use helper/.test(extendedAck?.message ?? ''))
    return `${RIGHTS}, and lockdown(7) off (${message})`;
  return `what this kernel refuses (${message})`;
}

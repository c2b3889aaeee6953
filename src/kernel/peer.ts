/**
 * Who is at the other end of a unix socket, as the kernel knows it (unix(7), pidfd_open(2)): the identity is that of the
 * moment of connect, and the pidfd pins the process, so that a reused pid is never taken for it.
 */
import { readFileSync, statSync } from 'node:fs';
import { isShortage, unlessAbsent } from './absence.js';
import { lastError } from './errno.js';
import { libc } from './ffi.js';

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SO_PEERGROUPS = 59;
const SO_PEERPIDFD = 77;
const SYS_PIDFD_OPEN = 434;
const GROUPS_MAXIMUM = 65536;

export interface PeerCredentials {
  pid: number;
  uid: number;
  gid: number;
  groups: number[];
}

export function peerCredentials(fd: number): PeerCredentials {
  const credentials = Buffer.alloc(12);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(12);
  if (libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, length) < 0) throw lastError('SO_PEERCRED', `fd ${fd}`);
  return {
    pid: credentials.readInt32LE(0),
    uid: credentials.readUInt32LE(4),
    gid: credentials.readUInt32LE(8),
    groups: peerGroups(fd),
  };
}

function peerGroups(fd: number): number[] {
  for (let capacity = 64; capacity <= GROUPS_MAXIMUM; capacity *= 32) {
    const groups = Buffer.alloc(capacity * 4);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(groups.length);
    if (libc.getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, length) < 0) continue;
    return Array.from({ length: length.readUInt32LE(0) / 4 }, (_, index) => groups.readUInt32LE(index * 4));
  }
  throw lastError('SO_PEERGROUPS', `fd ${fd}`);
}

/** A pidfd of the process that connected: readable when it ends. Undefined when it has ended already. Throws KernelError. */
export function peerPidfd(fd: number, peer: { pid: number; uid: number }): number | undefined {
  const value = Buffer.alloc(4);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(4);
  if (libc.getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, value, length) === 0) return value.readInt32LE(0);
  // A kernel that knows the option and has no answer says that the peer is gone: its pid may be somebody else's by now.
  const why = lastError('SO_PEERPIDFD', `fd ${fd}`);
  if (isShortage(why)) throw why;
  if (why.errnoName !== 'ENOPROTOOPT') return undefined;
  return openPidfd(peer.pid, peer.uid);
}

/** USER_HZ is 100 on every architecture that node runs on. */
const TICKS_PER_SECOND = 100;
/** Longer than the service ever takes from a connect to here, shorter than any client takes from its start to its connect. */
const MINIMUM_AGE_SECONDS = 0.05;

/**
 * For kernels before 6.5, which have no SO_PEERPIDFD. Between connect and here the pid may have been given to another
 * process: one that runs under another uid, or that started only just now, is not taken for the peer. Undefined then, and when there is
 * no such process. Throws KernelError.
 */
export function openPidfd(pid: number, uid: number): number | undefined {
  const pidfd = libc.syscall(SYS_PIDFD_OPEN, pid, 0, 0);
  if (pidfd < 0) {
    const why = lastError('pidfd_open', `pid ${pid}`);
    if (why.errnoName === 'ESRCH') return undefined;
    throw why;
  }
  let isPeer = false;
  try {
    const found = processStart(pid);
    isPeer = found !== undefined && found.uid === uid && found.ageSeconds >= MINIMUM_AGE_SECONDS;
    return isPeer ? pidfd : undefined;
  } finally {
    if (!isPeer) libc.close(pidfd);
  }
}

function processStart(pid: number): { uid: number; ageSeconds: number } | undefined {
  const look = () => {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const startTicks = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
    const uptime = Number(readFileSync('/proc/uptime', 'latin1').split(' ')[0]);
    return { uid: statSync(`/proc/${pid}`).uid, ageSeconds: uptime - startTicks / TICKS_PER_SECOND };
  };
  return unlessAbsent('read', `/proc/${pid}`, look, ['ESRCH']);
}

/** What a process calls itself, for status and logs only; nothing is decided by it. */
export function processName(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'latin1')
      .trim()
      .replace(/[^\x20-\x7e]/g, '?');
  } catch {
    // Whatever the reason: a name is no reason to refuse anybody.
    return '?';
  }
}

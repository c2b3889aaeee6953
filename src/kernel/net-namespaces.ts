/** Which network namespaces are alive, as far as this process can see (namespaces(7)). */
import { closeSync, fstatSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { attempt, errnoNameOf, unlessAbsent } from './absence.js';
import { checked } from './errno.js';
import { libc } from './ffi.js';
import { bindNetlink } from './netlink-port.js';
import { AF_NETLINK } from './socket-options.js';

const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const NETLINK_ROUTE = 0;

/** The first pid namespace has this inode on every machine (PROC_PID_INIT_INO). */
const FIRST_PID_NAMESPACE = 0xeffffffcn;

/**
 * Inodes of all network namespaces that a process is in or that are mounted somewhere in sight; undefined where not all processes
 * can be seen, or not what they are in (without CAP_SYS_PTRACE). One that only an open descriptor keeps is not found: there is no
 * process in it. Throws KernelError for any other reason: a namespace left out would be taken for a dead one.
 */
export function liveNetworkNamespaces(): Set<bigint> | undefined {
  const own = '/proc/self/ns/pid';
  if (attempt('stat', own, () => statSync(own, { bigint: true })).ino !== FIRST_PID_NAMESPACE) return undefined;
  const pids = attempt('readdir', '/proc', () => readdirSync('/proc')).filter((entry) => /^[0-9]+$/.test(entry));
  const links: string[] = [];
  try {
    for (const pid of pids) links.push(linkOf(`/proc/${pid}/ns/net`) ?? '');
  } catch (error) {
    if (errnoNameOf(error) === 'EACCES' || errnoNameOf(error) === 'EPERM') return undefined;
    throw error;
  }
  const mounts = '/proc/self/mountinfo';
  const text = `${links.join('\n')}\n${attempt('read', mounts, () => readFileSync(mounts, 'utf8'))}`;
  return new Set([...text.matchAll(/net:\[([0-9]+)\]/g)].map(([, inode]) => BigInt(inode ?? 0)));
}

/**
 * Whether a process is in the network namespace of this one; undefined where that cannot be seen. Without the right to look at its
 * namespaces: a socket made here is in its list of netlink sockets, or is not.
 */
export function sharesNetwork(pid: number): boolean | undefined {
  const fd = checked(libc.socket(AF_NETLINK, SOCK_RAW_CLOEXEC, NETLINK_ROUTE), 'socket', 'NETLINK_ROUTE');
  try {
    bindNetlink(fd);
    const inode = String(fstatSync(fd).ino);
    const text = readFileSync(`/proc/${pid}/net/netlink`, 'latin1');
    return text.split('\n').some((line) => line.trim().split(/\s+/).at(-1) === inode);
  } catch (error) {
    // Hidden, or not there as in a /proc of another pid namespace.
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM', 'EINVAL'].includes(errnoNameOf(error) ?? '')) return undefined;
    throw error;
  } finally {
    closeSync(fd);
  }
}

/** Undefined when the process has ended. */
function linkOf(path: string): string | undefined {
  return unlessAbsent('readlink', path, () => readlinkSync(path), ['ESRCH']);
}

/** Which network namespaces are alive, as far as this process can see (namespaces(7)). */
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { attempt, errnoNameOf, unlessAbsent } from './absence.js';

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

/** Undefined when the process has ended. */
function linkOf(path: string): string | undefined {
  return unlessAbsent('readlink', path, () => readlinkSync(path), ['ESRCH']);
}

/** Which network namespaces are alive, as far as this process can see (namespaces(7)). */
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';

/** The first pid namespace has this inode on every machine (PROC_PID_INIT_INO). */
const FIRST_PID_NAMESPACE = 0xeffffffcn;

/**
 * Inodes of all network namespaces that a process is in or that are mounted somewhere in sight; undefined where not all processes
 * can be seen. One that only an open descriptor keeps is not found: there is no process in it.
 */
export function liveNetworkNamespaces(): Set<bigint> | undefined {
  if (statSync('/proc/self/ns/pid', { bigint: true }).ino !== FIRST_PID_NAMESPACE) return undefined;
  const links = readdirSync('/proc')
    .filter((entry) => /^[0-9]+$/.test(entry))
    .map((pid) => linkOf(`/proc/${pid}/ns/net`));
  const text = `${links.join('\n')}\n${readFileSync('/proc/self/mountinfo', 'utf8')}`;
  return new Set([...text.matchAll(/net:\[([0-9]+)\]/g)].map(([, inode]) => BigInt(inode ?? 0)));
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    // The process has ended.
    return '';
  }
}

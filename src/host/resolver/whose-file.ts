/**
 * Whether what is at a path here is another network's. A vpnd in a network namespace of its own (`unshare --net`, NetworkNamespacePath=
 * of systemd, `ip netns exec` without a folder in /etc/netns) often has the files of the host, whose resolver knows nothing of this
 * network. The first process stands for the host: in a container it is the container's own, and all is well.
 *
 * Whether two paths lead to one file is told by mounts: the device, and the place in it (proc_pid_mountinfo(5)).
 */

import { closeSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { errnoNameOf } from '../../kernel/absence.js';
import { sharesNetwork } from '../../kernel/net-namespaces.js';
import { netnsCookie } from '../../kernel/socket-options.js';
import { unixSocket } from '../../kernel/unix-socket.js';

const FIRST_PROCESS = 1;
/** init_net's, the first one that the kernel gives out; from Linux 6.18 on others than networks have got some before. */
const FIRST_COOKIE = 1n;
/** NET_NS_INIT_INO of linux/nsfs.h, from Linux 6.18 on; before, none had one below 0xf0000000. */
const FIRST_INODE = 0xeffffff9n;

export async function isOfAnotherNetwork(path: string): Promise<boolean> {
  if (isFirstNetwork(ownCookie(), ownInode()) || sharesNetwork(FIRST_PROCESS)) return false;
  const [own, first] = await Promise.all((['self', FIRST_PROCESS] as const).map(readMounts));
  // Where the first process is hidden nothing says that the file is ours, and to leave it costs search domains only.
  return first === undefined || own === undefined || locate(own, path) === locate(first, path);
}

async function readMounts(pid: number | 'self'): Promise<string | undefined> {
  try {
    return await readFile(`/proc/${pid}/mountinfo`, 'latin1');
  } catch (error) {
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM', 'EINVAL'].includes(errnoNameOf(error) ?? '')) return undefined;
    throw error;
  }
}

/**
 * Where a path without symbolic links in its folders is, by the last mount that covers it.
 *
 * @example locate('36 35 0:31 /etc /etc rw,relatime - ext4 /dev/vda rw', '/etc/resolv.conf') // '0:31 /etc/resolv.conf'
 */
export function locate(mountinfo: string, path: string): string | undefined {
  let found: { point: string; place: string } | undefined;
  for (const line of mountinfo.split('\n')) {
    const [, , device, root, mountPoint] = line.split(' ').map(unescaped);
    if (device === undefined || root === undefined || mountPoint === undefined) continue;
    const point = mountPoint === '/' ? '' : mountPoint;
    if (path !== point && !path.startsWith(`${point}/`)) continue;
    // Of mounts at one point the later hides the earlier.
    if (found && found.point.length > point.length) continue;
    found = { point, place: `${device} ${root === '/' ? '' : root}${path.slice(point.length)}` };
  }
  return found?.place;
}

/** Blanks and backslashes stand there as octal numbers. */
function unescaped(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** Told without a look at other processes, which may be hidden. */
export function isFirstNetwork(cookie: bigint, inode: bigint): boolean {
  return cookie === FIRST_COOKIE || inode === FIRST_INODE;
}

function ownInode(): bigint {
  return statSync('/proc/self/ns/net', { bigint: true }).ino;
}

function ownCookie(): bigint {
  const probe = unixSocket();
  try {
    return netnsCookie(probe);
  } finally {
    closeSync(probe);
  }
}

/**
 * The cgroup v2 tree: where it is mounted, which cgroup a process is in, which systemd units that proves, from a path to its
 * directory, a walk over all of it; and a cgroup made, entered and removed. cgroups(7), systemd's "Control Group APIs and
 * Delegation". It sets no controllers and no limits.
 */
import {
  type BigIntStats,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmdirSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { KernelError } from '../model/errors.js';
import { attempt, isAbsent, unlessAbsent } from './absence.js';
import { libc } from './ffi.js';

/** statfs(2): f_type of a cgroup v2 mount. */
const CGROUP2_SUPER_MAGIC = 0x63677270;
const MAX_PATH_BYTES = 4096;

/**
 * Mount points of cgroup v2 in the text of /proc/PID/mountinfo that show the whole tree: one that shows a part only (as in a
 * container without a cgroup namespace) would not fit the paths of /proc/PID/cgroup.
 */
export function cgroup2MountPoints(mountinfo: string): string[] {
  const points: string[] = [];
  for (const line of mountinfo.split('\n')) {
    // 36 35 0:31 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw
    const [left, right] = line.split(' - ');
    const [, , , root, point] = left?.split(' ') ?? [];
    if (root !== '/' || point === undefined || !right?.startsWith('cgroup2 ')) continue;
    points.push(point.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8))));
  }
  return points;
}

/**
 * Where cgroup v2 is mounted: /sys/fs/cgroup, on hybrid hosts /sys/fs/cgroup/unified; undefined when it is not. Throws KernelError
 * when that cannot be told.
 */
export function cgroup2Root(): string | undefined {
  const path = '/proc/self/mountinfo';
  return cgroup2MountPoints(attempt('read', path, () => readFileSync(path, 'utf8'))).find(isCgroup2);
}

/**
 * The v2 path of a process as /proc/PID/cgroup says it: '/system.slice/a.service'; undefined when there is no such process. Throws
 * KernelError for any other reason.
 */
export function cgroupOf(pid: number): string | undefined {
  const path = `/proc/${pid}/cgroup`;
  // ESRCH: it ended between open and read.
  const text = unlessAbsent('read', path, () => readFileSync(path, 'utf8'), ['ESRCH']);
  return text === undefined ? undefined : v2PathIn(text);
}

/** The path of the `0::` line. The kernel refuses newlines in cgroup names, so that nobody can forge a line. */
export function v2PathIn(procCgroup: string): string | undefined {
  const line = procCgroup.split('\n').find((text) => text.startsWith('0::/'));
  return line?.slice('0::'.length);
}

/**
 * Units of the system manager (PID 1) that a process in this cgroup belongs to, outermost first.
 *
 * What makes a name trustworthy is who could make the directory. PID 1 delegates a subtree only in a service or a scope
 * (`Delegate=`; `user@UID.service`, where a user's own manager lives, is one such), never in a slice. So slices count as long as
 * nothing but slices is above them, then one service or scope, and whatever lies deeper may be named by anybody:
 * /user.slice/user-1000.slice/user@1000.service/system.slice/vpn.service proves no more than user@1000.service. A slice must
 * also stand where its name says (a-b.slice in a.slice), as PID 1 always puts it. A path from outside our cgroup namespace
 * (with '..') proves nothing.
 *
 * @example systemdSystemUnits('/system.slice/vpn-agent.service/sub') // ['system.slice', 'vpn-agent.service']
 */
export function systemdSystemUnits(cgroupPath: string): string[] {
  const units: string[] = [];
  const components = cgroupPath.split('/');
  if (components.shift() !== '' || components.includes('..')) return units;
  let parent = '';
  for (const component of components) {
    // systemd puts '_' before names that would clash with kernel files, and before names that begin with '_'.
    const unit = component.startsWith('_') ? component.slice(1) : component;
    const [, stem, type] = /^([A-Za-z0-9:_.\\@-]+)\.(slice|service|scope|socket|mount|swap)$/.exec(unit) ?? [];
    if (stem === undefined || unit.length > 255) break;
    if (type !== 'slice') {
      units.push(unit);
      break;
    }
    const dash = stem.lastIndexOf('-');
    if ((dash < 0 ? '' : stem.slice(0, dash)) !== parent || dash === stem.length - 1) break;
    units.push(unit);
    parent = stem;
  }
  return units;
}

/** Whether the text can be a cgroup's path: absolute, normalised, without control characters. Says nothing of existence. */
export function isCgroupPath(path: string): boolean {
  if (path === '/') return true;
  if (!path.startsWith('/') || Buffer.byteLength(path) > MAX_PATH_BYTES) return false;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: refusing them is the point
  if (/[\u0000-\u001f\u007f]/.test(path)) return false;
  return path
    .slice(1)
    .split('/')
    .every((name) => name !== '' && name !== '.' && name !== '..');
}

/**
 * The directory of an existing cgroup, given its path as in cgroup v2 ('/system.slice/a.service').
 * Throws KernelError: EINVAL for a text that is no such path, ENOENT and the like, ENOTDIR, EXDEV when the directory is not
 * in the cgroup tree after all (a symbolic link or another mount on the way).
 */
export function resolveCgroup(path: string, root: string | undefined = cgroup2Root()): string {
  if (root === undefined) throw new KernelError('mount', 'cgroup2', 'is not mounted');
  if (!isCgroupPath(path)) throw new KernelError('cgroup', JSON.stringify(path), 'EINVAL');
  const directory = path === '/' ? root : root + path;
  attempt('cgroup', path, () => {
    if (!statSync(directory).isDirectory()) throw new KernelError('cgroup', path, 'ENOTDIR');
    const real = realpathSync(root);
    if (realpathSync(directory) !== (path === '/' ? real : real + path) || !isCgroup2(directory)) {
      throw new KernelError('cgroup', path, 'EXDEV');
    }
  });
  return directory;
}

/** Makes a cgroup below an existing one; returns its directory. Throws KernelError. */
export function makeCgroup(parent: string, name: string, root: string | undefined = cgroup2Root()): string {
  const directory = `${resolveCgroup(parent, root)}/${name}`;
  if (name.includes('/') || !isCgroupPath(`/${name}`)) throw new KernelError('cgroup', JSON.stringify(name), 'EINVAL');
  attempt('mkdir', directory, () => mkdirSync(directory, 0o755));
  return directory;
}

/**
 * Moves a process, all its threads, into the cgroup of a directory. cgroup.procs takes a number, which may be somebody else's
 * by then: the pidfd proves that it was not, because a pid is not given away as long as its process is there. Throws KernelError
 * ESRCH when the process has ended; whoever may have been moved in its place is then in the cgroup above.
 */
export function moveToCgroup(directory: string, { pid, pidfd }: { pid: number; pidfd: number }): void {
  if (hasEnded(pidfd)) throw new KernelError('cgroup.procs', `pid ${pid}`, 'ESRCH');
  const procs = (of: string): string => `${of}/cgroup.procs`;
  attempt('cgroup.procs', directory, () => writeFileSync(procs(directory), String(pid)));
  if (!hasEnded(pidfd)) return;
  const members = attempt('cgroup.procs', directory, () => readFileSync(procs(directory), 'latin1'));
  for (const stranger of members.split('\n').filter(Boolean)) {
    attempt('cgroup.procs', directory, () => writeFileSync(`${directory}/../cgroup.procs`, stranger));
  }
  throw new KernelError('cgroup.procs', `pid ${pid}`, 'ESRCH');
}

/** False while processes are in it or cgroups below it; true when it is gone. Throws KernelError for any other reason. */
export function removeCgroup(directory: string): boolean {
  try {
    rmdirSync(directory);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EBUSY' || code === 'ENOTEMPTY') return false;
    if (code !== 'ENOENT' && code !== 'ENODEV') throw new KernelError('rmdir', directory, code ?? String(error));
  }
  return true;
}

/** One cgroup as the walk meets it. `id` is what the kernel and BPF programs call it by. */
export interface Cgroup {
  path: string;
  name: string;
  id: bigint;
  /** Owner of its directory: who made it, or to whom it was delegated. */
  uid: number;
}

/** How long the walk may keep the thread from its other work at a time. */
const SLICE_MS = 4;
/** Far more than a machine has; the walk takes some 10 µs each. */
const MAXIMUM_CGROUPS = 250_000;

/**
 * Every cgroup but the root, each before those below it. Whoever goes away meanwhile is left out; who comes may be. A path too
 * long to be opened (only nesting on purpose makes one) is left out with all below it. No answer is better than half of one: throws
 * KernelError when one that is there cannot be looked at, and E2BIG when there are more than 250,000.
 */
export async function* walkCgroups(root: string | undefined = cgroup2Root()): AsyncGenerator<Cgroup, void, void> {
  if (root === undefined) throw new KernelError('mount', 'cgroup2', 'is not mounted');
  const stats = statsOf(root);
  const open: string[] = stats === undefined ? [] : childrenOf(root, stats).map((name) => `/${name}`);
  let until = performance.now() + SLICE_MS;
  for (let seen = 1; open.length > 0; seen++) {
    if (seen > MAXIMUM_CGROUPS) throw new KernelError('cgroups', `under ${root}`, 'E2BIG');
    const path = open.pop() as string;
    const directory = root + path;
    const stats = statsOf(directory);
    if (stats === undefined) continue;
    yield { path, name: path.slice(path.lastIndexOf('/') + 1), id: stats.ino, uid: Number(stats.uid) };
    for (const name of childrenOf(directory, stats)) {
      const child = `${path}/${name}`;
      if (Buffer.byteLength(root + child) < MAX_PATH_BYTES) open.push(child);
    }
    if (performance.now() < until) continue;
    await setImmediate();
    until = performance.now() + SLICE_MS;
  }
}

function statsOf(directory: string): BigIntStats | undefined {
  return unlessAbsent('stat', directory, () => statSync(directory, { bigint: true }));
}

/** A cgroup's directory has one link for each below it, and two of its own: one without needs no listing. */
function childrenOf(directory: string, stats: BigIntStats): string[] {
  if (stats.nlink <= 2n) return [];
  const entries = unlessAbsent('readdir', directory, () => readdirSync(directory, { withFileTypes: true })) ?? [];
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
}

/** A pidfd is readable once its process has ended. */
function hasEnded(pidfd: number): boolean {
  const set = Buffer.alloc(8);
  set.writeInt32LE(pidfd, 0);
  set.writeInt16LE(1, 4);
  return libc.poll(set, 1, 0) !== 0;
}

/** False too for what lies there and is no cgroup, and without cgroup v2. Throws KernelError when it cannot be told. */
export function cgroupExists(path: string, root: string | undefined = cgroup2Root()): boolean {
  if (root === undefined || !isCgroupPath(path)) return false;
  try {
    return resolveCgroup(path, root) !== '';
  } catch (error) {
    // ENAMETOOLONG: the kernel makes no cgroup that is called so.
    if (isAbsent(error, ['EXDEV', 'ENAMETOOLONG'])) return false;
    throw error;
  }
}

function isCgroup2(directory: string): boolean {
  const found = unlessAbsent('statfs', directory, () => statfsSync(directory));
  return found?.type === CGROUP2_SUPER_MAGIC;
}

/**
 * `vpnctl run`: a process asks to be in a cgroup that shows an application's id, for machines where no desktop and no systemd
 * puts it into one. Whoever may set up a VPN may. Network state is not touched: which traffic is covered, the VPNs decide.
 *
 * The new cgroup is made below the one in which the caller is, never in a place of its own: limits and the end of a session
 * or unit reach everything below, so nobody loses or wins any by asking. Where processes are in the root cgroup it is
 * there. It has no controllers, and it goes when its last process has gone.
 */
import { randomBytes } from 'node:crypto';
import { type FSWatcher, readlinkSync, watch } from 'node:fs';
import { dirname } from 'node:path';
import { escapeId, whyNoAppId } from '../host/app-ids.js';
import type { Methods } from '../ipc/methods.js';
import { unlessAbsent } from '../kernel/absence.js';
import { MAX_APP_ID_BYTES } from '../kernel/app-cgroup.js';
import {
  cgroup2Root,
  cgroupOf,
  isCgroupPath,
  makeCgroup,
  moveToCgroup,
  removeCgroup,
  walkCgroups,
} from '../kernel/cgroup.js';
import { BusinessError, KernelError } from '../model/errors.js';
import { quote } from '../model/quote.js';
import { refusal } from './authorize.js';
import type { ServiceContext } from './context.js';
import type { Log } from './log.js';
import type { Session } from './session.js';

/** What systemd's naming for applications says, with us as the launcher: app-LAUNCHER-ID-RANDOM.scope. */
const OURS = /^app-vpnctl-.+-[0-9a-f]{16}\.scope$/;
/** Inside each other: as far as anybody needs to go, and far from what the kernel looks at. */
const MAXIMUM_DEPTH = 8;

const entered = new WeakSet<Session>();
/** Cgroups that still have processes, and what to try when one inside them went. */
const occupied = new Map<string, () => boolean>();

export function enterApplication(
  { policy, log }: Pick<ServiceContext, 'policy' | 'log'>,
  session: Session,
  { app }: Record<string, unknown>,
): Methods['enter']['result'] {
  if (typeof app !== 'string') throw new BusinessError(401, 'app', `${quote(app)} is not a string`);
  const refused = refusal(policy(), session.peer, 'setUp');
  if (refused) throw refused;
  const escaped = escapeChecked(app);
  if (entered.has(session)) {
    throw new BusinessError(2200001, 'app', 'this connection has put its process into an application already');
  }
  const root = cgroup2Root();
  if (root === undefined) {
    throw unavailable('cgroup v2 is not mounted on this machine: mount -t cgroup2 none /sys/fs/cgroup');
  }
  const parent = parentFor(session.peer.pid);
  const name = `app-vpnctl-${escaped}-${randomBytes(8).toString('hex')}.scope`;
  const directory = enter(parent, name, session, root);
  entered.add(session);
  session.onClose(() => removeWhenEmpty(directory, log));
  const path = `${parent === '/' ? '' : parent}/${name}`;
  log('info', 'entered', { uid: session.peer.uid, pid: session.peer.pid, program: session.program, cgroup: path });
  return { cgroup: path };
}

/** Removes what launches of an earlier service have left, and from now on what they leave. Returns how many went at once. */
export async function sweepLaunches(log: Log, root: string | undefined = cgroup2Root()): Promise<number> {
  let removed = 0;
  if (root === undefined) return removed;
  // Somebody may call a cgroup of his own like ours.
  const uid = process.geteuid?.();
  for await (const cgroup of walkCgroups(root)) {
    if (OURS.test(cgroup.name) && cgroup.uid === uid && removeWhenEmpty(root + cgroup.path, log)) removed++;
  }
  return removed;
}

function escapeChecked(app: string): string {
  const why = whyNoAppId(app);
  if (why !== undefined) throw new BusinessError(2200001, 'app', `${quote(app)} ${why}`);
  const escaped = escapeId(app);
  if (escaped.length <= MAX_APP_ID_BYTES) return escaped;
  const reason = `${quote(app)} has ${escaped.length} bytes when '-' counts four, as in the cgroup's name; ${MAX_APP_ID_BYTES} is the most`;
  throw new BusinessError(2200001, 'app', reason);
}

function parentFor(pid: number): string {
  // Unreadable without CAP_SYS_PTRACE; the path still tells of a namespace that does not contain the caller.
  const [ours, theirs] = [namespaceOf('self'), namespaceOf(pid)];
  const path = cgroupOf(pid);
  if ((theirs !== undefined && theirs !== ours) || path?.startsWith('/..')) {
    throw unavailable('the caller is in another cgroup namespace than the service, as in a container');
  }
  if (path === undefined) throw unavailable('the caller has no cgroup in the v2 hierarchy');
  if (!isCgroupPath(path)) throw unavailable(`the caller's cgroup ${quote(path)} is gone or too deep`);
  if (path.split('/').filter((component) => OURS.test(component)).length < MAXIMUM_DEPTH) return path;
  throw unavailable(`the caller is ${MAXIMUM_DEPTH} applications deep: vpnctl run within vpnctl run`);
}

function enter(parent: string, name: string, { peer, pidfd }: Session, root: string): string {
  let directory: string | undefined;
  try {
    directory = makeCgroup(parent, name, root);
    moveToCgroup(directory, { pid: peer.pid, pidfd });
    return directory;
  } catch (error) {
    if (directory !== undefined) removeCgroup(directory);
    if (!(error instanceof KernelError)) throw error;
    throw unavailable(`no cgroup can be made or entered below ${quote(parent)}: ${error.call} says ${error.errnoName}`);
  }
}

/** Now, or when the kernel tells that the last process is gone. Whether it was now. */
function removeWhenEmpty(directory: string, log: Log): boolean {
  let watcher: FSWatcher | undefined;
  const attempt = (): boolean => {
    try {
      if (!removeCgroup(directory)) return false;
    } catch (error) {
      log('warning', 'cgroup-left', { directory, cause: (error as Error).message });
    }
    watcher?.close();
    occupied.delete(directory);
    occupied.get(dirname(directory))?.();
    return true;
  };
  if (attempt()) return true;
  occupied.set(directory, attempt);
  try {
    // `populated` in it changes: cgroups(7). Watched before it is tried again, so that no change is missed.
    watcher = watch(`${directory}/cgroup.events`, { persistent: false }, attempt);
    watcher.on('error', attempt);
  } catch (error) {
    log('warning', 'cgroup-left', { directory, cause: (error as Error).message });
  }
  return attempt();
}

function namespaceOf(pid: number | 'self'): string | undefined {
  const path = `/proc/${pid}/ns/cgroup`;
  return unlessAbsent('readlink', path, () => readlinkSync(path), ['ESRCH', 'EACCES', 'EPERM']);
}

function unavailable(reason: string): BusinessError {
  return new BusinessError(2200003, undefined, reason);
}

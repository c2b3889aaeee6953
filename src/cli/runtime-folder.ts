/**
 * The folder in which a user's tunnels have their control sockets and logs: /run/vpn-manager for root, for others vpn-manager in
 * XDG_RUNTIME_DIR or /run/user/UID, and without these /tmp/vpn-manager-UID. Only one that is the user's own and closed to
 * everybody else counts: in /tmp somebody else may have made it first, or a link to what he wants overwritten.
 *
 * Who makes one takes the first that can be had; who looks for tunnels looks into all of them, because a session with
 * XDG_RUNTIME_DIR and one without may be the same user's.
 */
import { lstatSync, mkdirSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';

/** sun_path of unix(7) has 108 bytes, the last for NUL; this leaves room for the names of sockets. */
const MAX_FOLDER_BYTES = 80;
const OTHERS = 0o077;
const WRITABLE_BY_OTHERS = 0o022;

/** No folder can be had: EX_CANTCREAT of sysexits(3). */
export class RuntimeFolderError extends Error {
  override readonly name = 'RuntimeFolderError';
  readonly exitCode = 73;
}

/** Exists, is no symbolic link, belongs to this user, and nobody else may do what `forbidden` says. */
function isOwnFolder(path: string, uid: number, forbidden: number): boolean {
  const entry = lstatSync(path, { throwIfNoEntry: false });
  return entry?.isDirectory() === true && entry.uid === uid && (entry.mode & forbidden) === 0;
}

/** Where it may be, the best first. */
function candidates(uid: number, environment: NodeJS.ProcessEnv): string[] {
  const sessions = [environment.XDG_RUNTIME_DIR ?? '', `/run/user/${uid}`].filter(
    (path) => isAbsolute(path) && isOwnFolder(path, uid, WRITABLE_BY_OTHERS),
  );
  const run = uid === 0 ? ['/run/vpn-manager'] : sessions.map((path) => join(path, 'vpn-manager'));
  return [...new Set([...run, `/tmp/vpn-manager-${uid}`])].filter(
    (path) => Buffer.byteLength(path) <= MAX_FOLDER_BYTES,
  );
}

function effectiveUid(): number {
  return process.geteuid?.() ?? 0;
}

/** Those that exist, for looking. */
export function runtimeFolders(uid = effectiveUid(), environment = process.env): string[] {
  return candidates(uid, environment).filter((path) => isOwnFolder(path, uid, OTHERS));
}

/** The one to use, made when it is not there. Throws RuntimeFolderError. */
export function makeRuntimeFolder(uid = effectiveUid(), environment = process.env): string {
  const paths = candidates(uid, environment);
  for (const path of paths) {
    try {
      mkdirSync(path, { mode: 0o700 });
    } catch {
      // It exists, or cannot be made: what counts is what is there.
    }
    if (isOwnFolder(path, uid, OTHERS)) return path;
  }
  throw new RuntimeFolderError(`no folder for sockets: ${paths.join(', ')}: not uid ${uid}'s own with mode 0700`);
}

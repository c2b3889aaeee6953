/** File changes that survive a crash of the process or of the machine at any point: fsync(2) before what relies on it. */
import { constants } from 'node:fs';
import { link, lstat, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Who may do what with a file, as stat(2) says it. */
export interface Ownership {
  mode: number;
  uid: number;
  gid: number;
}

/** A plain file's; the usual one of a configuration file where there is none, or a link to a file of somebody else. */
export async function ownershipOf(path: string): Promise<Ownership> {
  const found = await lstat(path).catch(ignoreMissing);
  if (!found?.isFile()) return { mode: 0o644, uid: 0, gid: 0 };
  return { mode: found.mode & 0o777, uid: found.uid, gid: found.gid };
}

/** Replaces or makes the file in one step: at every moment there is the old or the new one, whole. `temporary` is beside it. */
export async function replaceFile(
  path: string,
  temporary: string,
  bytes: Uint8Array,
  { mode, uid, gid }: Ownership,
): Promise<void> {
  await rm(temporary, { force: true });
  const file = await open(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  try {
    await file.writeFile(bytes);
    await file.chown(uid, gid);
    await file.chmod(mode);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  await syncDirectory(path);
}

/**
 * Gives what is at `path` the name `copy` as well, replacing what had it. The very inode: owner, times, extended attributes
 * (SELinux) and a symbolic link as such are kept without naming them. `temporary` stays when `copy` was that inode already,
 * because rename(2) does nothing then.
 */
export async function linkFile(path: string, copy: string, temporary: string): Promise<void> {
  await rm(temporary, { force: true });
  await link(path, temporary);
  await rename(temporary, copy);
  await syncDirectory(copy);
}

/** Makes what happened to the names beside `path` permanent. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

export function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}

/**
 * A sysctl as its file below /proc/sys, which in ordinary containers is read-only, and which a security module may keep from us:
 * read first, written only when it differs. That it may not be written is an answer here, not an error.
 */
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { errnoNameOf, unlessAbsent } from '../kernel/absence.js';

const DENIED: ReadonlySet<string> = new Set(['EROFS', 'EACCES', 'EPERM']);

/** Undefined when there is none. Throws KernelError. */
export function readSysctl(path: string): string | undefined {
  return unlessAbsent('read', path, () => readFileSync(path, 'latin1').trim());
}

/** `as wanted` also when it was so before. Throws KernelError. */
export function setSysctl(path: string, value: string): 'as wanted' | 'absent' | 'denied' {
  const standing = readSysctl(path);
  if (standing === undefined) return 'absent';
  if (standing === value) return 'as wanted';
  const written = unlessDenied(path, () => writeFileSync(path, value, { flag: 'r+' }));
  return written === 'done' ? 'as wanted' : written;
}

/** Asked by opening it: of what a security module forbids access(2) knows nothing. Throws KernelError. */
export function isDenied(path: string | Buffer): boolean {
  return unlessDenied(path, () => closeSync(openSync(path, 'r+'))) === 'denied';
}

export function unlessDenied(path: string | Buffer, write: () => void): 'done' | 'absent' | 'denied' {
  const result = unlessAbsent('write', path.toString('latin1'), () => {
    try {
      write();
      return 'done' as const;
    } catch (error) {
      if (DENIED.has(errnoNameOf(error) ?? '')) return 'denied' as const;
      throw error;
    }
  });
  return result ?? 'absent';
}

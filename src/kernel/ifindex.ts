/** The index of a link in this network namespace by its name: if_nametoindex(3), which opens a socket to ask. */
import { errnoName, lastError } from './errno.js';
import { errno, libc } from './ffi.js';

/** Undefined when there is no such link. Throws KernelError when it cannot be told: its 0 means either. */
export function ifindexOf(name: string): number | undefined {
  const index = libc.if_nametoindex(name);
  if (index !== 0) return index;
  if (errnoName(errno()) === 'ENODEV') return undefined;
  throw lastError('if_nametoindex', name);
}

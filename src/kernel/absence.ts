/**
 * What an error says about what was looked for: that it is not there, or nothing at all. Only the first may be answered with "none";
 * whoever takes the second for it leaves out what is there (a cgroup whose sockets go on, a program that stays attached).
 */
import { KernelError } from '../model/errors.js';

/** ENODEV: what kernfs and netlink say of what went while it was open. ENOTDIR: nothing can be below what is no directory. */
const ABSENT: ReadonlySet<string> = new Set(['ENOENT', 'ENODEV', 'ENOTDIR']);

/** The process, the machine or a device ran out of something, or was disturbed: the next time it may be otherwise. */
const SHORTAGE: ReadonlySet<string> = new Set(['EMFILE', 'ENFILE', 'ENOMEM', 'ENOBUFS', 'EAGAIN', 'EINTR', 'EIO']);

/** The name of the errno in an error of ours or of node's; undefined when there is none. */
export function errnoNameOf(error: unknown): string | undefined {
  if (error instanceof KernelError) return error.errnoName;
  const { code } = (error ?? {}) as NodeJS.ErrnoException;
  return typeof code === 'string' ? code : undefined;
}

/** `also`: what else means "not there" to this call, such as ESRCH of a process. */
export function isAbsent(error: unknown, also: readonly string[] = []): boolean {
  const name = errnoNameOf(error);
  return name !== undefined && (ABSENT.has(name) || also.includes(name));
}

/** Whether the error tells nothing about the machine, the kernel or our rights. */
export function isShortage(error: unknown): boolean {
  return SHORTAGE.has(errnoNameOf(error) ?? '');
}

/** What `look` returns. Throws KernelError in place of what node's file system calls throw. */
export function attempt<T>(call: string, object: string, look: () => T): T {
  try {
    return look();
  } catch (error) {
    if (error instanceof KernelError) throw error;
    throw new KernelError(call, object, errnoNameOf(error) ?? String(error));
  }
}

/** What `look` returns; undefined when it is not there, see isAbsent(). Throws KernelError for any other reason. */
export function unlessAbsent<T>(
  call: string,
  object: string,
  look: () => T,
  also: readonly string[] = [],
): T | undefined {
  try {
    return attempt(call, object, look);
  } catch (error) {
    if (isAbsent(error, also)) return undefined;
    throw error;
  }
}

/** Keys are in memory while a tunnel runs. */
import { checked } from '../kernel/errno.js';
import { libc } from '../kernel/ffi.js';

const PR_SET_DUMPABLE = 4;

/**
 * From now on nobody but root can trace this process or read its memory, not even other processes of the same user, and no
 * core dump is written of it (PR_SET_DUMPABLE(2const)). Programs that it starts are not affected.
 */
export function keepMemoryPrivate(): void {
  checked(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), 'prctl', 'PR_SET_DUMPABLE');
}

/**
 * Why the machine's resolver cannot be told although nothing is wrong with the VPN: its file cannot be written, or is not this
 * network's. No reason to have no VPN, since every query is redirected to its servers all the same; only search domains are lost.
 */
import { isShortage } from '../../kernel/absence.js';

/** What the file system said, and what helps. */
const FIXES: Readonly<Record<string, (path: string) => string>> = {
  EPERM: (path) => `it may be immutable: chattr -i ${path}`,
  EROFS: (path) => `mount ${path} and its folder writable`,
  EISDIR: (path) => `remove ${path}, which is a directory`,
  ENOSPC: (path) => `make room on the file system of ${path}`,
  EDQUOT: (path) => `make room on the file system of ${path}`,
};

export class NotTold extends Error {
  override readonly name = 'NotTold';
  readonly fix: string;

  constructor(reason: string, fix: string) {
    super(reason);
    this.fix = fix;
  }
}

/** For what the file system refused; other errors as they are. */
export function notWritten(path: string, error: unknown): unknown {
  const { code, syscall } = (error ?? {}) as NodeJS.ErrnoException;
  if (code === undefined || syscall === undefined || isShortage(error)) return error;
  const errno = code.replace(/^ERR_FS_/, '');
  const fix = FIXES[errno]?.(path) ?? `make ${path} a file that vpnd can replace`;
  return new NotTold(`${path} cannot be written (${errno})`, fix);
}

/** `ip netns exec` mounts its file over what a link leads to; the link stays the other network's. */
const OWN_FILE =
  'start vpnd by `ip netns exec NAME`, with a file /etc/netns/NAME/resolv.conf; where /etc/resolv.conf is a symbolic link, with an /etc of its own';

export function ofAnotherNetwork(path: string, fix = OWN_FILE): NotTold {
  return new NotTold(`${path} is shared with another network namespace and not changed`, fix);
}

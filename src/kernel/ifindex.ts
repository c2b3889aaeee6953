/**
 * The index of a link in this network namespace by its name (netdevice(7), SIOCGIFINDEX). Not if_nametoindex(3): glibc's leaves
 * ENOENT behind when it gets no socket to ask with.
 */
import { checked, lastError } from './errno.js';
import { libc } from './ffi.js';
import { AF_UNIX, SOCK_DGRAM } from './socket-options.js';

const SIOCGIFINDEX = 0x8933;
const SOCK_CLOEXEC = 0o2000000;
/** struct ifreq: the name, the index. */
const IFREQ_BYTES = 40;
const IFNAMSIZ = 16;

/** Undefined when there is no such link. Throws KernelError when it cannot be told. */
export function ifindexOf(name: string): number | undefined {
  if (name === '' || Buffer.byteLength(name) >= IFNAMSIZ) return undefined;
  const request = Buffer.alloc(IFREQ_BYTES);
  request.write(name);
  const fd = checked(libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket', 'AF_UNIX');
  try {
    if (libc.ioctl(fd, SIOCGIFINDEX, request) === 0) return request.readInt32LE(IFNAMSIZ);
    const error = lastError('SIOCGIFINDEX', name);
    if (error.errnoName === 'ENODEV') return undefined;
    throw error;
  } finally {
    libc.close(fd);
  }
}

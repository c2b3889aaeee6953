/** sd_notify(3): tells the service manager that started us what we are up to. Does nothing without one. */
import { libc } from '../kernel/ffi.js';
import { unixAddress } from '../kernel/unix-socket.js';

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;

export function notify(state: 'READY=1' | 'RELOADING=1' | 'STOPPING=1'): void {
  const path = process.env.NOTIFY_SOCKET;
  if (!path || !/^[/@]/.test(path)) return;
  const fd = libc.socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0);
  if (fd < 0) return;
  // An abstract name is written with @ and starts with NUL; its address has no terminator.
  const abstract = path.startsWith('@');
  const address = unixAddress(abstract ? `\0${path.slice(1)}` : path);
  const message = Buffer.from(state);
  libc.sendto(fd, message, message.length, 0, address, address.length - (abstract ? 1 : 0));
  libc.close(fd);
}

/**
 * Closes what a peer sent, and connections in which something it sent may lie unread. close(2) waits as long as the sender
 * likes: until a FUSE server answers, until a TCP peer takes the rest (SO_LINGER), also for a socket in another one's queue. So
 * it is done in the thread pool, and only by half of it: netlink needs the other half.
 */
import { libc, libcAsync } from './ffi.js';
import { isInetSocket } from './socket-options.js';

const SOL_SOCKET = 1;
const SO_LINGER = 13;
const AT_ONCE = 2;

const waiting: number[] = [];
let running = 0;

/** Never waits. From now on the number is not the caller's any more, although it may still be open for a while. */
export function closeForeign(fd: number): void {
  // struct linger with l_onoff 0: an IP socket without it closes at once, and most of what comes is one. ENOTSOCK for others.
  libc.setsockopt(fd, SOL_SOCKET, SO_LINGER, Buffer.alloc(8), 8);
  if (isInetSocket(fd)) return void libc.close(fd);
  waiting.push(fd);
  closeNext();
}

function closeNext(): void {
  if (running === AT_ONCE) return;
  const fd = waiting.shift();
  if (fd === undefined) return;
  running++;
  const done = (): void => {
    running--;
    closeNext();
  };
  libcAsync.close(fd).then(done, done);
}

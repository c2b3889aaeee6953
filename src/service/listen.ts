/** The socket file: made, kept from a second service, removed. A stale one of a dead service is replaced. */
import { chmodSync, constants, lstatSync, mkdirSync, rmSync, statSync, unlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { checked, errnoName } from '../kernel/errno.js';
import { errno, libc } from '../kernel/ffi.js';
import { unixAddress, unixSocket } from '../kernel/unix-socket.js';

const BACKLOG = 511;
const F_GETFL = 3;
const F_SETFL = 4;

/** Somebody else has what we need; exit 73. */
export class InUseError extends Error {
  override readonly name = 'InUseError';
}

/** A listening socket, non-blocking and close-on-exec. Everybody may connect: the policy decides what they may do. */
export function listenOn(path: string): number {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  const fd = unixSocket();
  libc.fcntl(fd, F_SETFL, libc.fcntl(fd, F_GETFL, 0) | constants.O_NONBLOCK);
  try {
    const address = unixAddress(path);
    if (libc.bind(fd, address, address.length) < 0) {
      if (errnoName(errno()) !== 'EADDRINUSE') checked(-1, 'bind', path);
      removeStale(path, address);
      checked(libc.bind(fd, address, address.length), 'bind', path);
    }
    chmodSync(path, 0o666);
    checked(libc.listen(fd, BACKLOG), 'listen', path);
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/** Which file it is, so that only this one is removed at the end: by then the path may be gone, or a successor's. */
export interface SocketFile {
  path: string;
  dev: number;
  ino: number;
}

export function socketFile(path: string): SocketFile {
  const { dev, ino } = lstatSync(path);
  return { path, dev, ino };
}

export function removeSocketFile({ path, dev, ino }: SocketFile): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found?.dev === dev && found.ino === ino) rmSync(path, { force: true });
}

/** Only a socket that nobody listens on is ever removed. */
function removeStale(path: string, address: Buffer): void {
  if (!statSync(path).isSocket()) throw new InUseError(`${path} exists and is no socket`);
  const probe = unixSocket();
  const connected = libc.connect(probe, address, address.length) === 0;
  const why = errnoName(errno());
  libc.close(probe);
  if (connected) throw new InUseError(`another service listens on ${path}`);
  if (why !== 'ECONNREFUSED') throw new InUseError(`${path} is in use (${why})`);
  unlinkSync(path);
}

/**
 * Unix stream sockets with file descriptors in ancillary data (unix(7), cmsg(3)), which libuv does not offer. Every received
 * descriptor is close-on-exec. The message structs live in one page that never moves.
 *
 *   page:  msghdr 0..56 | iovec 64..80 | control 128..1152 | data 4096..
 */
import { lastError } from './errno.js';
import { addressOf, errno, libc } from './ffi.js';
import { AF_UNIX, SOCK_STREAM } from './socket-options.js';

const SOCK_CLOEXEC = 0o2000000;
const SOCK_NONBLOCK = 0o4000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x08;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const EAGAIN = 11;
const EINTR = 4;
/** EAGAIN, ENOBUFS, and ETOOMANYREFS: too many descriptors of this user are under way. */
const FULL = new Set([11, 105, 109]);
/** ENFILE, EMFILE, ENOMEM, ENOBUFS. */
const EXHAUSTED = new Set([23, 24, 12, 105]);
export const SHUT_RDWR = 2;

const IOVEC = 64;
const CONTROL = 128;
const CONTROL_BYTES = 1024;
const DATA = 4096;
const DATA_BYTES = 64 * 1024;
const CMSG_HEADER = 16;
/** Linux's SCM_MAX_FD: what one message can carry at most, so that nothing a peer sends is truncated unseen. */
const SCM_MAX_FD = 253;

const page = Buffer.alloc(DATA + DATA_BYTES);
const base = addressOf(page);

function header(dataLength: number, controlLength: number): Buffer {
  page.fill(0, 0, IOVEC);
  page.writeBigUInt64LE(base + BigInt(IOVEC), 16);
  page.writeBigUInt64LE(1n, 24);
  page.writeBigUInt64LE(base + BigInt(DATA), IOVEC);
  page.writeBigUInt64LE(BigInt(dataLength), IOVEC + 8);
  if (controlLength > 0) {
    page.writeBigUInt64LE(base + BigInt(CONTROL), 32);
    page.writeBigUInt64LE(BigInt(controlLength), 40);
  }
  return page;
}

/** The address of a path; a leading NUL makes it abstract. Throws when it does not fit sun_path. */
export function unixAddress(path: string): Buffer {
  const bytes = Buffer.from(path);
  if (bytes.length > 107) throw new RangeError(`socket path is longer than 107 bytes: ${path}`);
  const address = Buffer.alloc(2 + bytes.length + 1);
  address.writeUInt16LE(AF_UNIX, 0);
  bytes.copy(address, 2);
  return address;
}

export function unixSocket(): number {
  const fd = libc.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw lastError('socket', 'AF_UNIX');
  return fd;
}

/** A connected pair, close-on-exec and non-blocking. */
export function unixPair(): [number, number] {
  const pair = Buffer.alloc(8);
  if (libc.socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
    throw lastError('socketpair', 'AF_UNIX');
  }
  return [pair.readInt32LE(0), pair.readInt32LE(4)];
}

/** A waiting connection, close-on-exec and non-blocking; undefined when there is none, 'exhausted' when we lack descriptors. */
export function acceptUnix(listenFd: number): number | 'exhausted' | undefined {
  const fd = libc.accept4(listenFd, null, null, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd >= 0) return fd;
  return EXHAUSTED.has(errno()) ? 'exhausted' : undefined;
}

export interface Received {
  data: Uint8Array;
  fds: number[];
  /** Not all descriptors that were sent came: this process may have no more. Those in `fds` are the caller's to close. */
  truncated: boolean;
}

/** One recvmsg: bytes and descriptors; 'wait' when there is nothing yet, 'end' when the peer is gone. */
export function receiveWithFds(fd: number, maximumBytes = DATA_BYTES): Received | 'wait' | 'end' {
  const size = Math.min(maximumBytes, DATA_BYTES);
  const length = libc.recvmsg(fd, header(size, CONTROL_BYTES + CMSG_HEADER), MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (length < 0) {
    const number = errno();
    return number === EAGAIN || number === EINTR ? 'wait' : 'end';
  }
  const fds = readFds(Number(page.readBigUInt64LE(40)));
  const truncated = (page.readInt32LE(48) & MSG_CTRUNC) !== 0;
  if (length === 0) {
    for (const surplus of fds) libc.close(surplus);
    return 'end';
  }
  return { data: Uint8Array.prototype.slice.call(page, DATA, DATA + length), fds, truncated };
}

function readFds(controlLength: number): number[] {
  const fds: number[] = [];
  let offset = CONTROL;
  const end = CONTROL + Math.min(controlLength, CONTROL_BYTES + CMSG_HEADER);
  while (offset + CMSG_HEADER <= end) {
    const length = Number(page.readBigUInt64LE(offset));
    if (length < CMSG_HEADER || offset + length > end) break;
    if (page.readInt32LE(offset + 8) === SOL_SOCKET && page.readInt32LE(offset + 12) === SCM_RIGHTS) {
      for (let at = offset + CMSG_HEADER; at + 4 <= offset + length; at += 4) fds.push(page.readInt32LE(at));
    }
    offset += (length + 7) & ~7;
  }
  return fds;
}

/**
 * One sendmsg that never waits. Returns the bytes taken; 'wait' when the peer's queue is full, 'end' when the peer is gone
 * or a descriptor is bad. The descriptors go with the first byte, or not at all.
 */
export function sendWithFds(fd: number, data: Uint8Array, fds: readonly number[]): number | 'wait' | 'end' {
  if (fds.length > SCM_MAX_FD) throw new RangeError(`${fds.length} descriptors in one message`);
  const size = Math.min(data.length, DATA_BYTES);
  page.set(data.subarray(0, size), DATA);
  const controlLength = fds.length === 0 ? 0 : CMSG_HEADER + ((fds.length * 4 + 7) & ~7);
  const message = header(size, controlLength);
  if (fds.length > 0) {
    page.writeBigUInt64LE(BigInt(CMSG_HEADER + fds.length * 4), CONTROL);
    page.writeInt32LE(SOL_SOCKET, CONTROL + 8);
    page.writeInt32LE(SCM_RIGHTS, CONTROL + 12);
    fds.forEach((one, index) => {
      page.writeInt32LE(one, CONTROL + CMSG_HEADER + 4 * index);
    });
  }
  const sent = libc.sendmsg(fd, message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent >= 0) return sent;
  return FULL.has(errno()) ? 'wait' : 'end';
}

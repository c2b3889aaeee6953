/** Socket options that decide and show where a socket's packets go (socket(7)), and what kind of socket a number is. */
import { lastError } from './errno.js';
import { libc } from './ffi.js';

const SOL_SOCKET = 1;
const SO_TYPE = 3;
const SO_MARK = 36;
const SO_DOMAIN = 39;
const SO_COOKIE = 57;
const SO_NETNS_COOKIE = 71;

export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_NETLINK = 16;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;

function read(fd: number, option: number, size: number): Buffer | undefined {
  const value = Buffer.alloc(8);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(size);
  return libc.getsockopt(fd, SOL_SOCKET, option, value, length) < 0 ? undefined : value;
}

function mustRead(fd: number, option: number, size: number, name: string): Buffer {
  const value = read(fd, option, size);
  if (!value) throw lastError('getsockopt', `${name} of fd ${fd}`);
  return value;
}

/** AF_* of a socket; undefined when the number is closed or no socket. */
export function socketDomain(fd: number): number | undefined {
  return read(fd, SO_DOMAIN, 4)?.readInt32LE(0);
}

/** SOCK_* of a socket; undefined when the number is closed or no socket. */
export function socketType(fd: number): number | undefined {
  return read(fd, SO_TYPE, 4)?.readInt32LE(0);
}

/** True for an open AF_INET or AF_INET6 socket, the only kind that can be protected. */
export function isInetSocket(fd: number): boolean {
  const domain = socketDomain(fd);
  return domain === AF_INET || domain === AF_INET6;
}

/** The kernel's identity of a socket: the same in every process that holds it, never used twice until reboot. */
export function socketCookie(fd: number): bigint {
  return mustRead(fd, SO_COOKIE, 8, 'SO_COOKIE').readBigUInt64LE(0);
}

/** The identity of the network namespace a socket belongs to. */
export function netnsCookie(fd: number): bigint {
  return mustRead(fd, SO_NETNS_COOKIE, 8, 'SO_NETNS_COOKIE').readBigUInt64LE(0);
}

export function socketMark(fd: number): number {
  return mustRead(fd, SO_MARK, 4, 'SO_MARK').readUInt32LE(0);
}

/** Needs CAP_NET_ADMIN. The kernel drops the socket's cached route, so its next packet is routed anew. */
export function setSocketMark(fd: number, mark: number): void {
  const value = Buffer.alloc(4);
  value.writeUInt32LE(mark >>> 0);
  if (libc.setsockopt(fd, SOL_SOCKET, SO_MARK, value, 4) < 0) throw lastError('setsockopt', `SO_MARK of fd ${fd}`);
}

/**
 * Port ids of netlink sockets (netlink(7), nl_pid): in a notification the kernel names the socket whose request was the
 * cause. The process id that nftables tells as well is no use: it is a thread's, as seen from the first pid namespace.
 */
import { readdirSync } from 'node:fs';
import { checked, lastError } from './errno.js';
import { libc } from './ffi.js';

const AF_NETLINK = 16;
const SOL_SOCKET = 1;
const SO_PROTOCOL = 38;
const SOCKADDR_NL = 12;

/** The socket's port id. One that has not sent anything yet is given its id now. */
export function netlinkPort(fd: number): number {
  const port = boundPort(fd);
  if (port !== undefined && port !== 0) return port;
  bindNetlink(fd);
  const bound = boundPort(fd);
  if (bound === undefined) throw lastError('getsockname', `fd ${fd}`);
  return bound;
}

/** Lets the kernel choose the port id. */
export function bindNetlink(fd: number): void {
  const address = Buffer.alloc(SOCKADDR_NL);
  address.writeUInt16LE(AF_NETLINK, 0);
  checked(libc.bind(fd, address, SOCKADDR_NL), 'bind', 'AF_NETLINK');
}

/** Port ids of all sockets of this process for a netlink protocol, also those that libraries made. */
export function netlinkPortsOf(protocol: number): Set<number> {
  const ports = new Set<number>();
  for (const name of readdirSync('/proc/self/fd')) {
    const port = boundPort(Number(name));
    if (port !== undefined && port !== 0 && protocolOf(Number(name)) === protocol) ports.add(port);
  }
  return ports;
}

/** 0 when it has none yet; undefined for what is no netlink socket. */
function boundPort(fd: number): number | undefined {
  // Room for the address of any socket.
  const address = Buffer.alloc(128);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(address.length);
  if (libc.getsockname(fd, address, length) < 0 || address.readUInt16LE(0) !== AF_NETLINK) return undefined;
  return address.readUInt32LE(4);
}

function protocolOf(fd: number): number | undefined {
  const value = Buffer.alloc(4);
  const length = Buffer.from([4, 0, 0, 0]);
  return libc.getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, value, length) < 0 ? undefined : value.readUInt32LE(0);
}

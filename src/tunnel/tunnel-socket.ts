/**
 * The UDP socket of a tunnel: one for IPv4 and IPv6 (IPv4 addresses as ::ffff:a.b.c.d, ipv6(7)), non-blocking, with
 * segmentation both ways (udp(7): UDP_SEGMENT, UDP_GRO), so that one system call carries up to 64 KiB of datagrams.
 */
import { checked, lastError } from '../kernel/errno.js';
import { libc } from '../kernel/ffi.js';
import { AF_INET6, SOCK_DGRAM, socketDomain, socketMark, socketType } from '../kernel/socket-options.js';

const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const IPPROTO_IP = 0;
const IP_MTU_DISCOVER = 10;
const IPPROTO_IPV6 = 41;
const IPV6_MTU_DISCOVER = 23;
/** Both families' IP_PMTUDISC_DONT. */
const PMTUDISC_DONT = 0;
const IPV6_V6ONLY = 26;
const IPV6_RECVPKTINFO = 49;
const SOL_UDP = 17;
const UDP_GRO = 104;
/** As much as a gigabit link brings in 50 ms; without CAP_NET_ADMIN the kernel gives what net.core.rmem_max allows. */
const BUFFER_BYTES = 7 << 20;

export interface TunnelSocket {
  fd: number;
  port: number;
}

/** `port` 0: the kernel chooses. Throws KernelError: EADDRINUSE, EACCES; EAFNOSUPPORT on a kernel without IPv6. */
export function openTunnelSocket(port = 0): TunnelSocket {
  const fd = checked(libc.socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 'socket', 'AF_INET6 UDP');
  try {
    setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    for (const [force, plain] of [
      [SO_RCVBUFFORCE, SO_RCVBUF],
      [SO_SNDBUFFORCE, SO_SNDBUF],
    ] as const) {
      if (!setOption(fd, SOL_SOCKET, force, BUFFER_BYTES)) setOption(fd, SOL_SOCKET, plain, BUFFER_BYTES);
    }
    // Without DF a router that is too narrow makes fragments. With it, one that filters ICMP would swallow every full packet that
    // is sent alone. What the kernel knows of a path (routes, earlier ICMP) still counts: then it makes the fragments here.
    // IP_PMTUDISC_OMIT would pass over that, and IPv6 depends on it.
    setOption(fd, IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT);
    setOption(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DONT);
    // Which of our addresses a datagram came to.
    setOption(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
    // Where the kernel has none, every datagram comes alone.
    setOption(fd, SOL_UDP, UDP_GRO, 1);
    const address = Buffer.alloc(28);
    address.writeUInt16LE(AF_INET6, 0);
    address.writeUInt16BE(port, 2);
    checked(libc.bind(fd, address, address.length), 'bind', `UDP port ${port}`);
    const length = Buffer.from([28, 0, 0, 0]);
    checked(libc.getsockname(fd, address, length), 'getsockname', `fd ${fd}`);
    return { fd, port: address.readUInt16BE(2) };
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/** SO_MARK of it; protected by the service it has one. */
export function markOf({ fd }: TunnelSocket): number {
  return socketMark(fd);
}

function setOption(fd: number, level: number, option: number, value: number): boolean {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return libc.setsockopt(fd, level, option, bytes, 4) === 0;
}

/** Whether the socket can carry segments; the option is probed with the value that changes nothing. */
export function canSegment(fd: number): boolean {
  const UDP_SEGMENT = 103;
  return setOption(fd, SOL_UDP, UDP_SEGMENT, 0);
}

/** A duplicate of `fd`, close-on-exec: whoever closes the number cannot mislead the thread that reads it. */
export function duplicate(fd: number): number {
  const F_DUPFD_CLOEXEC = 1030;
  const copy = libc.fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) throw lastError('F_DUPFD_CLOEXEC', `fd ${fd}`);
  return copy;
}

/** The same of a UDP socket of IPv6; throws for any other descriptor, which poll(2) would find readable for ever. */
export function duplicateSocket(fd: number): number {
  const copy = duplicate(fd);
  if (socketType(copy) === SOCK_DGRAM && socketDomain(copy) === AF_INET6) return copy;
  libc.close(copy);
  throw new Error(`fd ${fd} is no UDP socket of IPv6`);
}

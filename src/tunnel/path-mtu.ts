/**
 * The MTU of the route to an address, asked of the kernel without any right: a UDP socket that is connected, and sends nothing,
 * knows its route (IP_MTU in ip(7), IPV6_MTU in ipv6(7)). Path MTU discovery of earlier connections is in it, as far as the
 * kernel still remembers.
 */
import { checked } from '../kernel/errno.js';
import { libc } from '../kernel/ffi.js';
import { InetSocket } from '../kernel/inet-socket.js';
import { AF_INET6, SOCK_DGRAM } from '../kernel/socket-options.js';
import { familyOf } from '../model/address.js';
import { KernelError } from '../model/errors.js';
import { IPV4 } from '../model/vpn-types.js';
import { Endpoint } from './wireguard/endpoint.js';

const SOL_SOCKET = 1;
const SO_BROADCAST = 6;
const IPPROTO_IP = 0;
const IP_MTU = 14;
const IPPROTO_IPV6 = 41;
const IPV6_MTU = 24;
/** Discard (RFC 863). Nothing is sent there; routing rules may look at ports, but not at one nobody knows yet. */
const ANY_PORT = 9;

/** No host has this address: it is all of a network's. */
export class BroadcastError extends KernelError {
  constructor(address: string) {
    super('connect', `${address}, a broadcast address`, 'EACCES');
  }
}

export interface RouteQuestion {
  /** Of a link-local address. */
  readonly scopeId?: number | undefined;
  /** Called with the socket before it asks: protected, it is told of the route outside of any VPN. */
  readonly protect?: ((fd: number) => Promise<void>) | undefined;
}

/**
 * In bytes. Throws KernelError when there is no way to the address: ENETUNREACH and EHOSTUNREACH, EACCES and EINVAL where a route
 * prohibits it, EADDRNOTAVAIL and EAFNOSUPPORT where the host has no address of the family; BroadcastError; or what `protect` threw.
 *
 * @param address a literal
 */
export async function routeMtu(address: string, { scopeId = 0, protect }: RouteQuestion = {}): Promise<number> {
  const socket = new InetSocket(SOCK_DGRAM);
  try {
    await protect?.(socket.fd);
    if (scopeId === 0 || socket.domain !== AF_INET6) connect(socket, address);
    else {
      const { sockaddr } = Endpoint.of(address, ANY_PORT, scopeId);
      checked(libc.connect(socket.fd, sockaddr, sockaddr.length), 'connect', `${address} on link ${scopeId}`);
    }
    const value = Buffer.alloc(4);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(value.length);
    const [level, option] = familyOf(address) === IPV4 ? [IPPROTO_IP, IP_MTU] : [IPPROTO_IPV6, IPV6_MTU];
    checked(libc.getsockopt(socket.fd, level, option, value, length), 'getsockopt', `MTU of the route to ${address}`);
    return value.readInt32LE(0);
  } finally {
    socket.close();
  }
}

/** EACCES is said by a route that prohibits, and of a broadcast address to who has not asked for such: so it is asked again. */
function connect(socket: InetSocket, address: string): void {
  const there = { address, port: ANY_PORT };
  try {
    socket.connect(there);
  } catch (error) {
    if (!(error instanceof KernelError) || error.errnoName !== 'EACCES' || familyOf(address) !== IPV4) throw error;
    const on = Buffer.from([1, 0, 0, 0]);
    checked(libc.setsockopt(socket.fd, SOL_SOCKET, SO_BROADCAST, on, on.length), 'setsockopt', 'SO_BROADCAST');
    socket.connect(there);
    throw new BroadcastError(address);
  }
}

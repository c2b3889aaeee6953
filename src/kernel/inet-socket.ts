/**
 * TCP and UDP sockets that exist, with a number, before anything is done with them (socket(7), ip(7), ipv6(7)). Node's own
 * sockets get theirs only when they connect or bind. One dual-stack AF_INET6 socket where the kernel has IPv6, with IPv4
 * addresses mapped (RFC 4291, 2.5.5.2), else AF_INET. Close-on-exec, non-blocking. Only literals, no zones, no names.
 *
 *   sockaddr_in   family 0 | port 2 | address 4..8   | zero 8..16
 *   sockaddr_in6  family 0 | port 2 | flow info 4..8 | address 8..24 | scope id 24..28
 */
import { addressBytes, familyOf } from '../model/address.js';
import { KernelError } from '../model/errors.js';
import { IPV4, IPV6 } from '../model/vpn-types.js';
import { checked, errnoName, lastError } from './errno.js';
import { errno, libc } from './ffi.js';
import { AF_INET, AF_INET6 } from './socket-options.js';

const AF_UNSPEC = 0;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;
const F_DUPFD_CLOEXEC = 1030;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

/** An IP literal and a port. */
export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

/** The address a dual-stack socket uses for this literal. */
function mappedAddress(literal: string): string {
  return familyOf(literal) === IPV4 ? `::ffff:${literal}` : literal;
}

/** What a dual-stack socket reports, as its peer would write it. @example unmappedAddress("::ffff:10.0.0.1") // "10.0.0.1" */
export function unmappedAddress(literal: string): string {
  return /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(literal)?.[1] ?? literal;
}

/** Owns one fd from construction until `close`. Every method throws KernelError. */
export class InetSocket {
  readonly domain: number;
  #fd: number;

  /** `type` is SOCK_STREAM or SOCK_DGRAM. */
  constructor(type: number) {
    const flags = type | SOCK_NONBLOCK | SOCK_CLOEXEC;
    const fd = libc.socket(AF_INET6, flags, 0);
    if (fd < 0 && errnoName(errno()) !== 'EAFNOSUPPORT') throw lastError('socket', 'AF_INET6');
    this.domain = fd < 0 ? AF_INET : AF_INET6;
    this.#fd = fd < 0 ? checked(libc.socket(AF_INET, flags, 0), 'socket', 'AF_INET') : fd;
    // The default is a sysctl (bindv6only), so it is set on every socket.
    if (fd >= 0)
      checked(libc.setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, Buffer.alloc(4), 4), 'setsockopt', 'IPV6_V6ONLY');
  }

  /** −1 once closed. */
  get fd(): number {
    return this.#fd;
  }

  bind(endpoint: Endpoint): void {
    const address = this.#socketAddress('bind', endpoint);
    checked(libc.bind(this.#fd, address, address.length), 'bind', text(endpoint));
  }

  /** Starts connecting and returns; how it ends is for the event loop to see. */
  connect(endpoint: Endpoint): void {
    const address = this.#socketAddress('connect', endpoint);
    if (libc.connect(this.#fd, address, address.length) === 0) return;
    if (errnoName(errno()) !== 'EINPROGRESS') throw lastError('connect', text(endpoint));
  }

  /** Gives up a connection or an attempt, so that the same socket can connect again. A bound port stays. */
  disconnect(): void {
    const address = Buffer.alloc(16);
    address.writeUInt16LE(AF_UNSPEC, 0);
    checked(libc.connect(this.#fd, address, address.length), 'connect', 'AF_UNSPEC');
  }

  /** False when the send buffer is full. */
  sendTo(data: Uint8Array, endpoint: Endpoint): boolean {
    const address = this.#socketAddress('sendto', endpoint);
    const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    if (libc.sendto(this.#fd, data, data.length, flags, address, address.length) >= 0) return true;
    if (errnoName(errno()) === 'EAGAIN') return false;
    throw lastError('sendto', text(endpoint));
  }

  /** A second number of the same socket, owned by the caller. */
  duplicate(): number {
    return checked(libc.fcntl(this.#fd, F_DUPFD_CLOEXEC, 0), 'fcntl', 'F_DUPFD_CLOEXEC');
  }

  /** Does nothing the second time. Linux frees the number even when close(2) fails, so it is never tried again. */
  close(): void {
    const fd = this.#fd;
    this.#fd = -1;
    if (fd >= 0) libc.close(fd);
  }

  #socketAddress(call: string, endpoint: Endpoint): Buffer {
    if (this.#fd < 0) throw new KernelError(call, text(endpoint), 'EBADF');
    if (this.domain === AF_INET6) {
      const address = header(28, AF_INET6, endpoint.port);
      address.set(addressBytes(mappedAddress(endpoint.address)), 8);
      return address;
    }
    if (familyOf(endpoint.address) === IPV6) throw new KernelError(call, text(endpoint), 'EAFNOSUPPORT');
    const address = header(16, AF_INET, endpoint.port);
    address.set(addressBytes(endpoint.address), 4);
    return address;
  }
}

function header(length: number, family: number, port: number): Buffer {
  const address = Buffer.alloc(length);
  address.writeUInt16LE(family, 0);
  address.writeUInt16BE(port, 2);
  return address;
}

function text({ address, port }: Endpoint): string {
  return `${address} port ${port}`;
}

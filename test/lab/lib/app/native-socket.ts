/**
 * A socket of one address family, as C programs use it: Node has no socket with a number before it is connected, and none of
 * AF_INET when IPv6 is there. Every call is non-blocking and waits by asking again, so that the process's tunnel goes on.
 */
import { checked, errnoName } from '../../../../src/kernel/errno.js';
import { errno, libc } from '../../../../src/kernel/ffi.js';
import {
  AF_INET,
  AF_INET6,
  SOCK_DGRAM,
  SOCK_STREAM,
  socketCookie,
  socketMark,
} from '../../../../src/kernel/socket-options.js';
import { addressBytes } from '../../../../src/model/address.js';
import { KernelError } from '../../../../src/model/errors.js';
import type { Family } from '../../../../src/model/vpn-types.js';

export type Transport = 'tcp' | 'udp';

const SOL_SOCKET = 1;
const SO_ERROR = 4;
const SOCK_NONBLOCK = 0o4000;
const MSG_NOSIGNAL = 0x4000;
const POLLOUT = 4;
const PAUSE_MS = 4;

export class NativeSocket {
  readonly fd: number;
  readonly transport: Transport;

  constructor(family: Family, transport: Transport) {
    const type = transport === 'tcp' ? SOCK_STREAM : SOCK_DGRAM;
    this.transport = transport;
    this.fd = checked(libc.socket(family === 2 ? AF_INET6 : AF_INET, type | SOCK_NONBLOCK, 0), 'socket', transport);
  }

  /** The kernel's identity of the socket and its mark, both in hexadecimal. */
  get state(): { cookie: string; mark: string } {
    return { cookie: socketCookie(this.fd).toString(16), mark: socketMark(this.fd).toString(16) };
  }

  bind(address: string, port = 0): void {
    const name = socketAddress(address, port);
    checked(libc.bind(this.fd, name, name.length), 'bind', address);
  }

  async connect(address: string, port: number, timeoutMs = 5000): Promise<void> {
    const name = socketAddress(address, port);
    if (libc.connect(this.fd, name, name.length) === 0) return;
    if (errnoName(errno()) !== 'EINPROGRESS') checked(-1, 'connect', address);
    const writable = Buffer.alloc(8);
    writable.writeInt32LE(this.fd, 0);
    writable.writeInt16LE(POLLOUT, 4);
    if (!(await until(() => libc.poll(writable, 1, 0) > 0 || undefined, timeoutMs))) throw silence();
    const value = Buffer.alloc(4);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(4);
    checked(libc.getsockopt(this.fd, SOL_SOCKET, SO_ERROR, value, length), 'getsockopt', 'SO_ERROR');
    if (value.readInt32LE() !== 0) throw new KernelError('connect', address, errnoName(value.readInt32LE()));
  }

  /** To where the socket is connected, unless an address is given. */
  send(data: Uint8Array, to?: { address: string; port: number }): void {
    const name = to ? socketAddress(to.address, to.port) : null;
    checked(
      libc.sendto(this.fd, data, data.length, MSG_NOSIGNAL, name, name?.length ?? 0),
      'sendto',
      to?.address ?? '',
    );
  }

  async receive(timeoutMs = 5000): Promise<Buffer> {
    const buffer = Buffer.alloc(2048);
    const received = await until(() => {
      const length = libc.recv(this.fd, buffer, buffer.length, 0);
      if (length >= 0) return buffer.subarray(0, length);
      if (errnoName(errno()) !== 'EAGAIN') checked(-1, 'recv', '');
      return undefined;
    }, timeoutMs);
    if (!received) throw silence();
    return received;
  }

  close(): void {
    libc.close(this.fd);
  }
}

/** Not an error of the kernel's: nothing came in the time given. */
export function silence(): KernelError {
  return new KernelError('wait', '', 'silence');
}

async function until<T>(attempt: () => T | undefined, timeoutMs: number): Promise<T | undefined> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const result = attempt();
    if (result !== undefined || performance.now() > deadline) return result;
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

/** sockaddr_in: family, port, address at 4. sockaddr_in6: address at 8. */
function socketAddress(address: string, port: number): Buffer {
  const bytes = addressBytes(address);
  const name = Buffer.alloc(bytes.length === 4 ? 16 : 28);
  name.writeUInt16LE(bytes.length === 4 ? AF_INET : AF_INET6, 0);
  name.writeUInt16BE(port, 2);
  name.set(bytes, bytes.length === 4 ? 4 : 8);
  return name;
}

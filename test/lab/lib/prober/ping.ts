/**
 * One ping by a socket of the kernel's ping kind (icmp(7): IPPROTO_ICMP with SOCK_DGRAM, allowed to every user in a lab), and
 * what came back: `NAME SOURCE` from servers/icmp.py, PLAIN_ECHO from a kernel.
 */
import { checked, errnoName } from '../../../../src/kernel/errno.js';
import { errno, libc } from '../../../../src/kernel/ffi.js';
import { AF_INET, AF_INET6, SOCK_DGRAM } from '../../../../src/kernel/socket-options.js';
import { addressBytes } from '../../../../src/model/address.js';
import { silence } from '../app/native-socket.js';

export const PLAIN_ECHO = 'kernel -';
const IPPROTO_ICMP = 1;
const IPPROTO_ICMPV6 = 58;
const SOCK_NONBLOCK = 0o4000;
const ECHO_REQUEST = { 4: 8, 6: 128 };
const HEADER_BYTES = 8;

export interface Ping {
  target: string;
  source?: string;
  /** Called with the socket before it is bound and connected. */
  prepare: (fd: number) => void;
  timeoutMs: number;
}

export async function ping({ target, source, prepare, timeoutMs }: Ping): Promise<string> {
  const isIpv6 = target.includes(':');
  const domain = isIpv6 ? AF_INET6 : AF_INET;
  const protocol = isIpv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
  const fd = checked(libc.socket(domain, SOCK_DGRAM | SOCK_NONBLOCK, protocol), 'socket', 'ping');
  try {
    prepare(fd);
    if (source !== undefined) checked(libc.bind(fd, name(source), name(source).length), 'bind', source);
    checked(libc.connect(fd, name(target), name(target).length), 'connect', target);
    // The kernel fills in checksum and identifier.
    const request = Buffer.from([ECHO_REQUEST[isIpv6 ? 6 : 4], 0, 0, 0, 0, 0, 0, 1]);
    const data = Buffer.concat([request, Buffer.from(PLAIN_ECHO)]);
    checked(libc.send(fd, data, data.length, 0), 'send', target);
    return (await reply(fd, timeoutMs)).subarray(HEADER_BYTES).toString();
  } finally {
    libc.close(fd);
  }
}

async function reply(fd: number, timeoutMs: number): Promise<Buffer> {
  const buffer = Buffer.alloc(2048);
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const length = libc.recv(fd, buffer, buffer.length, 0);
    if (length >= 0) return buffer.subarray(0, length);
    if (errnoName(errno()) !== 'EAGAIN') checked(-1, 'recv', '');
    if (performance.now() > deadline) throw silence();
    await new Promise((resolve) => setTimeout(resolve, 4));
  }
}

/** sockaddr_in or sockaddr_in6 without a port. */
function name(address: string): Buffer {
  const bytes = addressBytes(address);
  const made = Buffer.alloc(bytes.length === 4 ? 16 : 28);
  made.writeUInt16LE(bytes.length === 4 ? AF_INET : AF_INET6, 0);
  made.set(bytes, bytes.length === 4 ? 4 : 8);
  return made;
}

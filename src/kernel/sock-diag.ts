/**
 * A NETLINK_SOCK_DIAG socket (sock_diag(7)): lists the IP sockets of this network namespace, whosever they are, and ends them
 * (SOCK_DESTROY). An ended TCP connection is reset, its buffers are gone and its process gets ECONNABORTED. A UDP or raw
 * socket gets the same error and is disconnected, but lives on, with the address and the port that bind(2) gave it; a port
 * the kernel had chosen is taken away. Needs CAP_NET_ADMIN.
 *
 * Not everything can be listed: no ICMP sockets (ping), raw ones only with CONFIG_INET_RAW_DIAG. SCTP cannot be ended.
 */
import { release } from 'node:os';
import { KernelError } from '../model/errors.js';
import { FAMILIES } from '../model/vpn-types.js';
import { checked } from './errno.js';
import { libc } from './ffi.js';
import { ifindexOf } from './ifindex.js';
import {
  decodeEntry,
  encodeQuery,
  encodeSocket,
  orphansHaveUid,
  type SocketEntry,
  type SocketIdentity,
  type SocketProtocol,
  type SocketQuery,
} from './inet-diag.js';
import { type BatchFailure, type NetlinkRequest, NetlinkSocket } from './netlink-socket.js';
import { AF_INET, SOCK_DGRAM, SOCK_STREAM, socketCookie } from './socket-options.js';

const SOCK_DIAG_BY_FAMILY = 20;
const SOCK_DESTROY = 21;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_BINDTODEVICE = 25;

/** Of a socket found by its addresses another may be the first; each round uncovers the next. More share none in practice. */
const ROUNDS = 16;

export class SockDiag {
  readonly #socket = new NetlinkSocket(undefined, 'NETLINK_SOCK_DIAG');
  readonly #haveUid = orphansHaveUid(release());
  /** Not asked for again: the kernel starts modprobe each time. */
  readonly #missing = new Set<SocketProtocol>();

  /** Both families. None of a protocol that the kernel cannot list; TCP and UDP it must be able to list. */
  async list(query: SocketQuery): Promise<SocketEntry[]> {
    const entries: SocketEntry[] = [];
    for (const family of FAMILIES) {
      if (this.#missing.has(query.protocol)) break;
      for (const payload of await this.#dump(query, encodeQuery(query, family))) {
        const entry = decodeEntry(payload, query, this.#haveUid);
        if (entry !== undefined && (query.states & (1 << entry.state)) !== 0) entries.push(entry);
      }
    }
    return entries;
  }

  /**
   * Ends these sockets and no other; how many it were. Whoever has gone by itself is passed over. For raw sockets the kernel
   * compares no cookie: the caller gives only those that no other has the addresses of.
   */
  async destroy(entries: readonly SocketIdentity[]): Promise<number> {
    let ended = 0;
    let left = entries;
    for (let round = 0; round < ROUNDS && left.length > 0; round++) {
      const failures = await this.#socket.batch(left.map(destroyRequest));
      const failure = failures.find(({ error }) => error.errnoName !== 'ENOENT');
      if (failure) throw failure.error;
      ended += left.length - failures.length;
      if (failures.length === left.length) break;
      left = hidden(left, failures);
    }
    return ended;
  }

  /**
   * Whether this kernel can end TCP and UDP sockets (CONFIG_INET_DIAG_DESTROY, and the modules tcp_diag and udp_diag): tried
   * on two that are made for it, bound to the loopback link, where nobody outside can reach them.
   */
  async canDestroySockets(): Promise<boolean> {
    for (const protocol of ['tcp', 'udp'] as const) {
      const fd = probeSocket(protocol);
      try {
        if ((await this.destroy([identityOf(fd, protocol)])) === 0) return false;
      } catch (error) {
        if (error instanceof KernelError && error.errnoName === 'EOPNOTSUPP') return false;
        throw error;
      } finally {
        libc.close(fd);
      }
    }
    return true;
  }

  close(): void {
    this.#socket.close();
  }

  async #dump(query: SocketQuery, request: Buffer): Promise<Buffer[]> {
    try {
      return await this.#socket.dump(SOCK_DIAG_BY_FAMILY, request, `${query.protocol} sockets`);
    } catch (error) {
      const isOptional = query.protocol === 'raw' || query.protocol === 'udplite';
      if (!(isOptional && error instanceof KernelError && error.errnoName === 'ENOENT')) throw error;
      this.#missing.add(query.protocol);
      return [];
    }
  }
}

/** Those that were not found although they may be there: the kernel found another socket with the same addresses. */
function hidden(entries: readonly SocketIdentity[], failures: readonly BatchFailure[]): SocketIdentity[] {
  return failures.flatMap(({ index }) => {
    const entry = entries[index];
    return entry === undefined || entry.protocol === 'tcp' ? [] : [entry];
  });
}

function destroyRequest(entry: SocketIdentity): NetlinkRequest {
  return {
    call: 'SOCK_DESTROY',
    describe: () => `${entry.protocol} socket, local port ${entry.sockid.readUInt16BE(0)}`,
    write(writer, flags, sequence) {
      writer.begin(SOCK_DESTROY, flags, sequence, encodeSocket(entry));
      writer.end();
    },
  };
}

function probeSocket(protocol: 'tcp' | 'udp'): number {
  const type = protocol === 'tcp' ? SOCK_STREAM : SOCK_DGRAM;
  const fd = checked(libc.socket(AF_INET, type | SOCK_CLOEXEC, 0), 'socket', protocol);
  try {
    const name = Buffer.alloc(16);
    name.writeUInt16LE(AF_INET, 0);
    checked(
      libc.setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, Buffer.from('lo\0'), 3),
      'setsockopt',
      'SO_BINDTODEVICE lo',
    );
    checked(libc.bind(fd, name, name.length), 'bind', 'lo');
    if (protocol === 'tcp') checked(libc.listen(fd, 1), 'listen', 'lo');
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/** Of a probe socket. */
function identityOf(fd: number, protocol: 'tcp' | 'udp'): SocketIdentity {
  const name = Buffer.alloc(16);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(name.length);
  checked(libc.getsockname(fd, name, length), 'getsockname', protocol);
  const sockid = Buffer.alloc(48);
  name.copy(sockid, 0, 2, 4);
  sockid.writeUInt32LE(ifindexOf('lo') ?? 0, 36);
  sockid.writeBigUInt64LE(socketCookie(fd), 40);
  return { protocol, isInet6: false, rawProtocol: 0, sockid };
}

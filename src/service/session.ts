/**
 * One connection: who is at the other end, what has been read and not yet understood, what is to be sent. It owns the
 * connection's descriptor, the peer's pidfd and every descriptor the peer sent that nobody has claimed.
 */

import { encodeLine, FrameReader } from '../ipc/frame.js';
import { cgroupOf, systemdSystemUnits } from '../kernel/cgroup.js';
import { closeForeign } from '../kernel/closing.js';
import { libc } from '../kernel/ffi.js';
import { peerCredentials, peerPidfd, processName } from '../kernel/peer.js';
import { netnsCookie } from '../kernel/socket-options.js';
import { SHUT_RDWR, sendWithFds } from '../kernel/unix-socket.js';
import type { Peer } from './authorize.js';
import type { LiveVpn } from './registry.js';

/** A subscriber that does not read is dropped before it costs memory. */
const MAXIMUM_UNSENT_BYTES = 1024 * 1024;

export class Session {
  readonly fd: number;
  readonly peer: Peer;
  readonly program: string;
  /** Of the caller's network namespace. Read at once: when a call has waited, the descriptor may be another connection's. */
  readonly netnsCookie: bigint;
  readonly pidfd: number;
  readonly reader: FrameReader;
  readonly openedAtMs = performance.now();
  lastReadAtMs = performance.now();
  tag = 0;
  pidfdTag = 0;
  /** Whether hello has been answered. */
  greeted = false;
  subscribed = false;
  /** The last one it set up, which ends with it. Only the last: those before it are down. */
  vpn: LiveVpn | undefined;
  /** How many of its calls are under way. */
  calls = 0;
  closed = false;
  /** What came is being worked off, and no more is taken meanwhile. */
  isReading = false;
  readonly #onClose: (() => void)[] = [];
  readonly #unsent: Buffer[] = [];
  #unsentBytes = 0;

  /** Undefined when the peer is gone already, or cannot be identified. */
  static open(fd: number, maximumLineBytes: (session: Session) => number): Session | undefined {
    let pidfd: number | undefined;
    try {
      const credentials = peerCredentials(fd);
      pidfd = credentials.pid > 0 ? peerPidfd(fd, credentials) : -1;
      if (pidfd !== undefined) return new Session(fd, credentials, pidfd, maximumLineBytes);
    } catch {
      // Whoever cannot be identified, for whatever reason, is not served.
      if (pidfd !== undefined && pidfd >= 0) libc.close(pidfd);
    }
    return undefined;
  }

  private constructor(
    fd: number,
    credentials: Omit<Peer, 'units'>,
    pidfd: number,
    maximumLineBytes: (session: Session) => number,
  ) {
    this.fd = fd;
    this.netnsCookie = netnsCookie(fd);
    this.pidfd = pidfd;
    // Read while the pidfd pins the process, so that it is this process's cgroup and no successor's.
    const cgroup = pidfd >= 0 ? cgroupOf(credentials.pid) : undefined;
    this.peer = { ...credentials, units: cgroup === undefined || !isAlive(pidfd) ? [] : systemdSystemUnits(cgroup) };
    this.program = processName(credentials.pid);
    this.reader = new FrameReader(() => maximumLineBytes(this));
  }

  /** Sends a message as soon as the peer takes it. False when it does not take enough, or is gone: close the session. */
  send(message: object): boolean {
    const line = encodeLine(message);
    this.#unsent.push(line);
    this.#unsentBytes += line.length;
    return this.flush() && this.#unsentBytes <= MAXIMUM_UNSENT_BYTES;
  }

  /** False when the peer is gone. */
  flush(): boolean {
    for (let next = this.#unsent[0]; next; next = this.#unsent[0]) {
      const sent = sendWithFds(this.fd, next, []);
      if (sent === 'wait') return true;
      if (sent === 'end') return false;
      this.#unsentBytes -= sent;
      if (sent < next.length) this.#unsent[0] = next.subarray(sent);
      else this.#unsent.shift();
    }
    return true;
  }

  get hasUnsent(): boolean {
    return this.#unsent.length > 0;
  }

  onClose(action: () => void): void {
    this.#onClose.push(action);
  }

  /** Once. The caller has taken the descriptors out of the epoll set. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    for (const fd of this.reader.unclaimed()) closeForeign(fd);
    libc.shutdown(this.fd, SHUT_RDWR);
    closeForeign(this.fd);
    if (this.pidfd >= 0) libc.close(this.pidfd);
    for (const action of this.#onClose) action();
  }
}

/** A pidfd is readable once its process has ended. */
function isAlive(pidfd: number): boolean {
  const set = Buffer.alloc(8);
  set.writeInt32LE(pidfd, 0);
  set.writeInt16LE(1, 4);
  return libc.poll(set, 1, 0) === 0;
}

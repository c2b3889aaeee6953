/**
 * A tunnel: packets of a TUN sealed by a protocol into datagrams of a UDP socket, and back, in a thread of its own
 * (tunnel-worker.ts). Here is its owner's side: start, questions, end.
 */
import { constants } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { checked } from '../kernel/errno.js';
import { libc, libcAsync } from '../kernel/ffi.js';
import type { TunnelInput, TunnelReply, TunnelRequest, TunnelStatus } from './tunnel-messages.js';
import { duplicate, duplicateSocket } from './tunnel-socket.js';

const EFD_CLOEXEC = 0o2000000;
const F_GETFL = 3;
const F_SETFL = 4;

export interface TunnelOptions {
  /** A TUN (IFF_NO_PI), with or without IFF_VNET_HDR: see withOffload(). It is made non-blocking. */
  tunFd: number;
  /** An AF_INET6 UDP socket that takes IPv4 too: openTunnelSocket(). Protected, if the VPN would cover it. */
  socketFd: number;
  /** Of the vNIC. */
  mtu: number;
  /** The module that exports createProtocol (protocol.ts). It is loaded in the tunnel's thread. */
  protocol: URL;
  /** For createProtocol: what structuredClone takes. */
  options?: unknown;
}

export interface Tunnel {
  /** What the protocol answers to `request`. Rejects with what it throws, or when the tunnel has ended. */
  call(request: unknown): Promise<unknown>;
  status(): Promise<TunnelStatus>;
  /** Goes on with another socket. The one before stays its owner's to close. */
  replaceSocket(socketFd: number): Promise<void>;
  /** Ends the thread; the protocol zeroes its keys. The descriptors stay their owner's. Idempotent. */
  close(): Promise<void>;
  /** Resolves when the thread has ended: undefined when it was closed or the TUN is gone, otherwise the reason. */
  readonly ended: Promise<Error | undefined>;
}

/** Rejects with what createProtocol throws. While a tunnel is open it keeps the process alive, as a server does. */
export async function openTunnel(options: TunnelOptions): Promise<Tunnel> {
  const tunnel = new WorkerTunnel(options);
  await tunnel.started;
  return tunnel;
}

interface Waiting {
  resolve(result: unknown): void;
  reject(error: Error): void;
}

class WorkerTunnel implements Tunnel {
  readonly ended: Promise<Error | undefined>;
  readonly started: Promise<unknown>;
  readonly #worker: Worker;
  readonly #wakeFd = checked(libc.eventfd(0, EFD_CLOEXEC), 'eventfd', '');
  readonly #stop = new Int32Array(new SharedArrayBuffer(4));
  /** The TUN and the socket: duplicates. */
  readonly #fds: number[] = [];
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #isEnded = false;
  #failure: Error | undefined;

  constructor({ tunFd, socketFd, mtu, protocol, options }: TunnelOptions) {
    if (process.arch === 's390x') throw new Error('a tunnel needs a little-endian machine');
    try {
      const tun = duplicate(tunFd);
      this.#fds.push(tun);
      const socket = duplicateSocket(socketFd);
      this.#fds.push(socket);
      const flags = checked(libc.fcntl(tun, F_GETFL, 0), 'F_GETFL', `fd ${tunFd}`);
      checked(libc.fcntl(tun, F_SETFL, flags | constants.O_NONBLOCK), 'F_SETFL', `fd ${tunFd}`);
      const { href } = protocol;
      const [wakeFd, stop] = [this.#wakeFd, this.#stop];
      const workerData: TunnelInput = { tunFd: tun, socketFd: socket, wakeFd, mtu, protocol: href, options, stop };
      // Little garbage is made there, so little young memory does; the default is 16 MiB a half.
      const resourceLimits = { maxYoungGenerationSizeMb: 4 };
      const thread = new URL('./tunnel-worker.js', import.meta.url);
      this.#worker = new Worker(thread, { workerData, resourceLimits, execArgv: [] });
    } catch (error) {
      for (const fd of [...this.#fds, this.#wakeFd]) libc.close(fd);
      throw error;
    }
    tunnels.add(this);
    this.started = new Promise((resolve, reject) => this.#waiting.set(0, { resolve, reject }));
    this.#worker.on('message', (reply: TunnelReply) => this.#settle(reply));
    this.#worker.on('error', (error) => {
      this.#failure = error as Error;
    });
    this.ended = new Promise((resolve) => this.#worker.once('exit', () => resolve(this.#release())));
  }

  call(request: unknown): Promise<unknown> {
    return this.#ask({ kind: 'call', request });
  }

  async status(): Promise<TunnelStatus> {
    return (await this.#ask({ kind: 'status' })) as TunnelStatus;
  }

  async replaceSocket(socketFd: number): Promise<void> {
    if (this.#isEnded) throw new Error('the tunnel has ended');
    const fd = duplicateSocket(socketFd);
    this.#fds.push(fd);
    await this.#ask({ kind: 'socket', fd });
    const [before] = this.#fds.splice(1, 1);
    if (before !== undefined) libc.close(before);
  }

  async close(): Promise<void> {
    this.wake();
    await this.ended;
  }

  /** Synchronous: in process.on('exit') there is no time for more, and a process cannot end while poll(2) is pending. */
  wake(): void {
    if (this.#isEnded) return;
    Atomics.store(this.#stop, 0, 1);
    libc.write(this.#wakeFd, ONE, 8);
  }

  #ask(question: { kind: 'call'; request: unknown } | { kind: 'status' } | { kind: 'socket'; fd: number }) {
    return new Promise((resolve, reject) => {
      if (this.#isEnded) return reject(new Error('the tunnel has ended'));
      const id = this.#nextId++;
      this.#waiting.set(id, { resolve, reject });
      const request: TunnelRequest = { id, ...question };
      this.#worker.postMessage(request);
      libc.write(this.#wakeFd, ONE, 8);
    });
  }

  #settle({ id, result, error }: TunnelReply): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === undefined) waiting?.resolve(result);
    else waiting?.reject(new Error(error));
  }

  #release(): Error | undefined {
    this.#isEnded = true;
    tunnels.delete(this);
    libc.close(this.#wakeFd);
    // The last close of a TUN removes the link, which takes about 20 ms: not on this thread.
    for (const fd of this.#fds.splice(0)) void libcAsync.close(fd);
    for (const { reject } of this.#waiting.values()) reject(this.#failure ?? new Error('the tunnel has ended'));
    this.#waiting.clear();
    return this.#failure;
  }
}

/** The value an eventfd counts up by: a 64-bit 1 in the machine's byte order. */
const ONE = new Uint8Array(new BigUint64Array([1n]).buffer);

const tunnels = new Set<WorkerTunnel>();
process.on('exit', () => {
  for (const tunnel of tunnels) tunnel.wake();
});

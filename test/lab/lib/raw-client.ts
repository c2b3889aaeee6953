/**
 * A peer of the service's socket that keeps no rule of the protocol unless told to: bytes and descriptors go out as given,
 * under any user's identity, and every line that comes back is kept. Runs in the test's own process, as root.
 */
import { closeSync, openSync } from 'node:fs';
import { Socket } from 'node:net';
import { libc } from '../../../src/kernel/ffi.js';
import { receiveWithFds, sendWithFds, unixAddress, unixPair, unixSocket } from '../../../src/kernel/unix-socket.js';
import type { LabHost } from './host.js';

export interface Identity {
  uid: number;
  gid: number;
  groups?: readonly number[];
}

export interface Answer {
  id: number | string | null;
  result?: Record<string, unknown>;
  error?: { code: number; message: string; data?: { field?: string; reason: string } };
}

export interface Event {
  method: string;
  params: { type: string; sequence: number; uid: number; link: string };
}

const SYS_SETNS = process.arch === 'x64' ? 308 : 268;
const CLONE_NEWNET = 0x40000000;
const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;
const SHUT_WR = 1;
const PATIENCE_MS = 40_000;

export class RawClient {
  /** In order of arrival. */
  readonly answers: Answer[] = [];
  readonly events: Event[] = [];
  /** When the service has closed the connection, and all it said before has been read. */
  readonly ended: Promise<void>;
  readonly #identity: Identity | undefined;
  readonly #fd: number;
  readonly #socket: Socket;
  readonly #waiting: (() => void)[] = [];
  readonly #calls = new Map<Answer['id'], (answer: Answer | undefined) => void>();
  #line = '';
  #lastId = 0;
  #closed = false;

  /** From the host's network: the service serves no other. Without an identity as root. `isDeaf`: reads nothing that is sent to it. */
  constructor(host: LabHost, path: string, identity?: Identity, options: { isDeaf?: boolean } = {}) {
    this.#identity = identity;
    this.#fd = inNamespaceOf(host, unixSocket);
    const address = unixAddress(path);
    const status = actAs(identity, () => libc.connect(this.#fd, address, address.length));
    if (status < 0) {
      libc.close(this.#fd);
      throw new Error(`cannot connect to ${path}`);
    }
    this.#socket = new Socket({ fd: this.#fd, readable: true, writable: true, allowHalfOpen: true });
    this.ended = new Promise((resolve) => {
      const end = (): void => {
        this.#closed = true;
        resolve();
        for (const settle of this.#calls.values()) settle(undefined);
        this.#notify();
      };
      this.#socket.on('end', end).on('error', end).on('close', end);
    });
    if (!options.isDeaf) this.#socket.on('data', (data) => this.#take(data));
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  /** Waits while the service does not take more. The descriptors go with the first byte. False when it has gone. */
  async send(data: string | Uint8Array, fds: readonly number[] = []): Promise<boolean> {
    let rest: Uint8Array = typeof data === 'string' ? Buffer.from(data) : data;
    let unsent = fds;
    while (rest.length > 0) {
      if (this.#closed) return false;
      const sent = sendWithFds(this.#fd, rest, unsent);
      if (sent === 'end') return false;
      if (sent === 'wait') await new Promise((resolve) => setTimeout(resolve, 1));
      else {
        rest = rest.subarray(sent);
        unsent = [];
      }
    }
    return true;
  }

  /** A well-formed request; its answer. Rejects when the connection ends without one. */
  async call(method: string, params: object = {}, fds: readonly number[] = []): Promise<Answer> {
    const id = ++this.#lastId;
    const answered = new Promise<Answer | undefined>((resolve) => this.#calls.set(id, resolve));
    await this.send(`${JSON.stringify({ jsonrpc: '2.0', id, method, fds: fds.length, params })}\n`, fds);
    if (this.#closed) this.#calls.get(id)?.(undefined);
    const answer = await answered;
    if (!answer) throw new Error(`${method}: the connection ended without an answer`);
    return answer;
  }

  /** What every connection begins with. */
  hello(): Promise<Answer> {
    return this.call('hello', { protocol: 1 });
  }

  /** A socketpair that this client made; the service takes no other's. The caller closes both ends. */
  mailbox(): [number, number] {
    return actAs(this.#identity, unixPair);
  }

  /** The answer, and the TUN's descriptor when there is one. */
  async setUp(config: object): Promise<{ answer: Answer; fd: number | undefined }> {
    const [mine, theirs] = this.mailbox();
    try {
      const answer = await this.call('setUp', { config }, [theirs]);
      const received = receiveWithFds(mine);
      return { answer, fd: typeof received === 'string' ? undefined : received.fds[0] };
    } finally {
      for (const fd of [mine, theirs]) libc.close(fd);
    }
  }

  /** Resolves when the condition holds; it is asked again after everything that comes. Rejects at the end, or when it lasts. */
  async until(condition: () => boolean, what: string): Promise<void> {
    const deadline = Date.now() + PATIENCE_MS;
    while (!condition()) {
      const left = deadline - Date.now();
      if (this.#closed || left <= 0) {
        const last = JSON.stringify(this.answers.at(-1));
        throw new Error(`${what}: ${this.#closed ? 'the connection ended' : 'nothing came'}; last answer: ${last}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#waiting.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  /** Says that nothing more will be sent. */
  halfClose(): void {
    libc.shutdown(this.#fd, SHUT_WR);
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(data: Buffer): void {
    const lines = (this.#line + data.toString()).split('\n');
    this.#line = lines.pop() ?? '';
    for (const line of lines) {
      const message = JSON.parse(line) as Answer | Event;
      if ('method' in message) {
        this.events.push(message);
      } else {
        this.answers.push(message);
        this.#calls.get(message.id)?.(message);
        this.#calls.delete(message.id);
      }
    }
    this.#notify();
  }

  #notify(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }
}

/** SO_PEERCRED and SO_PEERGROUPS are those of the moment of connect. */
function actAs<T>(identity: Identity | undefined, work: () => T): T {
  if (!identity || !process.seteuid || !process.setegid || !process.setgroups) return work();
  const groups = process.getgroups?.() ?? [];
  process.setgroups([...(identity.groups ?? [])]);
  process.setegid(identity.gid);
  process.seteuid(identity.uid);
  try {
    return work();
  } finally {
    process.seteuid(0);
    process.setegid(0);
    process.setgroups(groups);
  }
}

/** Runs on this thread inside the host's network namespace; for making descriptors that belong there. */
export function inNamespaceOf<T>(host: LabHost, work: () => T): T {
  const [own, theirs] = ['self', host.pid].map((pid) => openSync(`/proc/${pid}/ns/net`, 'r')) as [number, number];
  try {
    if (libc.syscall(SYS_SETNS, theirs, CLONE_NEWNET, 0) !== 0) throw new Error(`cannot enter ${host.name}`);
    try {
      return work();
    } finally {
      if (libc.syscall(SYS_SETNS, own, CLONE_NEWNET, 0) !== 0) process.abort();
    }
  } finally {
    closeSync(own);
    closeSync(theirs);
  }
}

/** A UDP socket in the host. The caller closes it. */
export function udpSocketIn(host: LabHost): number {
  return inNamespaceOf(host, () => libc.socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0));
}

/**
 * A client's connection to the service. No thread and no pending native call: connect and hello on the raw descriptor, then
 * node's own socket for lines. Descriptors go out by a sendmsg of our own when node has nothing queued.
 */
import { constants } from 'node:fs';
import { Socket } from 'node:net';
import { errnoName } from '../kernel/errno.js';
import { errno, libc } from '../kernel/ffi.js';
import { peerCredentials } from '../kernel/peer.js';
import { SHUT_RDWR, sendWithFds, unixAddress, unixSocket } from '../kernel/unix-socket.js';
import { BusinessError, isVpnErrorCode } from '../model/errors.js';
import { encodeLine, FrameReader } from './frame.js';
import { type Method, type Methods, PROTOCOL_VERSION, type ServiceEvent } from './methods.js';
import { startHint } from './start-hint.js';

const F_GETFL = 3;
const F_SETFL = 4;
const POLLIN = 1;
const MSG_NOSIGNAL = 0x4000;

/** How long a call may take until it counts as unanswered. */
const TIMEOUT_MS: Partial<Record<Method, number>> = { protect: 5_000 };
const DEFAULT_TIMEOUT_MS = 30_000;
/** While the peer's queue is full, how long to wait before a line with descriptors is tried again. */
const RETRY_MS = 1;

interface Pending {
  resolve(result: unknown): void;
  reject(error: BusinessError): void;
  timer: NodeJS.Timeout | undefined;
}

interface Outgoing {
  line: Buffer;
  fds: readonly number[];
  sent?: () => void;
}

/** Nobody is there, or nobody is there any more. */
export function unreachable(path: string, why: string): BusinessError {
  // EACCES: somebody may well be there.
  const what = why === 'EACCES' ? 'this user may not open it' : startHint(path);
  return new BusinessError(2200002, undefined, `no answer at ${path} (${why}); ${what}`);
}

/** Somebody is there and says nothing: to start another one would be no help. */
function silent(path: string, why: string, pid: number): BusinessError {
  const who = pid > 0 ? `the service, process ${pid},` : 'the service';
  const end = pid > 0 ? `kill -9 ${pid}` : 'kill -9 and its process id';
  const reason = `no answer at ${path} (${why}): ${who} runs and hangs, or has too much to do; its log may say why; if that lasts, end it by ${end}, as root, then ${startHint(path)}`;
  return new BusinessError(2200002, undefined, reason);
}

export class ServiceConnection {
  readonly path: string;
  readonly #fd: number;
  /** Who listens there; 0 when it cannot be seen from here. */
  readonly #servicePid: number;
  readonly #socket: Socket;
  readonly #reader = new FrameReader();
  readonly #pending = new Map<number, Pending>();
  readonly #outgoing: Outgoing[] = [];
  #nextId = 1;
  #held = false;
  #closed = false;
  #queued = false;
  #retry: NodeJS.Timeout | undefined;
  /** Called once, when the connection has ended, for whatever reason. */
  onClose: (() => void) | undefined;
  onEvent: ((event: ServiceEvent) => void) | undefined;
  /** The answer to hello, when it came in time. */
  hello: Methods['hello']['result'] | undefined;

  /**
   * Connects at once, without waiting. Throws BusinessError 2200002. With `helloTimeoutMs` it also waits that long for the
   * service's hello; one that comes later is still taken.
   */
  constructor(path: string, helloTimeoutMs = 0) {
    this.path = path;
    this.#fd = connect(path);
    this.#servicePid = listenerOf(this.#fd);
    const hello = { jsonrpc: '2.0', id: 0, method: 'hello', params: { protocol: PROTOCOL_VERSION } };
    const line = encodeLine(hello);
    libc.send(this.#fd, line, line.length, MSG_NOSIGNAL);
    this.#expect(0, (result) => {
      this.hello = result as Methods['hello']['result'];
    });
    const early = helloTimeoutMs > 0 ? receiveWithin(this.#fd, helloTimeoutMs) : undefined;
    this.#socket = new Socket({ fd: this.#fd, readable: true, writable: true });
    this.#socket.on('data', (data) => this.#take(data));
    this.#socket.on('error', () => this.#socket.destroy());
    this.#socket.on('close', () => this.#ended());
    this.#socket.unref();
    if (early) this.#take(early);
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  get isHeld(): boolean {
    return this.#held;
  }

  /** While held, the connection keeps the process alive, as a listening server does. A call in flight always does. */
  hold(held: boolean): void {
    this.#held = held;
    this.#reference();
  }

  /** Rejects with a BusinessError of the service's, or 2200002. `sent` runs when the descriptors have gone. */
  call<M extends Method>(
    method: M,
    params: Methods[M]['params'],
    fds: readonly number[] = [],
    sent?: () => void,
  ): Promise<Methods[M]['result']> {
    const id = this.#nextId++;
    const line = encodeLine({ jsonrpc: '2.0', id, method, ...(fds.length > 0 && { fds: fds.length }), params });
    return new Promise((resolve, reject) => {
      if (this.#closed || this.#socket.destroyed) {
        sent?.();
        return reject(unreachable(this.path, 'the service went away'));
      }
      const timeoutMs = TIMEOUT_MS[method] ?? DEFAULT_TIMEOUT_MS;
      const timer = setTimeout(() => {
        const why = `${method} was not answered within ${timeoutMs / 1000} s`;
        this.#settle(id)?.reject(silent(this.path, why, this.#servicePid));
      }, timeoutMs);
      this.#expect(id, (result) => resolve(result as Methods[M]['result']), reject, timer);
      this.#outgoing.push({ line, fds, ...(sent && { sent }) });
      this.#flush();
    });
  }

  /** Ends the connection now, from any state; also in an exit handler, where nothing asynchronous runs any more. */
  shutdown(): void {
    // Once node has closed the descriptor, the number may be somebody else's.
    if (!this.#closed && !this.#socket.destroyed) libc.shutdown(this.#fd, SHUT_RDWR);
  }

  #expect(id: number, resolve: Pending['resolve'], reject: Pending['reject'] = () => {}, timer?: NodeJS.Timeout): void {
    this.#pending.set(id, { resolve, reject, timer });
    this.#reference();
  }

  #settle(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    if (!pending) return undefined;
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    this.#reference();
    return pending;
  }

  #reference(): void {
    if (this.#socket === undefined) return;
    const busy = this.#held || this.#pending.size > (this.#pending.has(0) ? 1 : 0);
    if (busy) this.#socket.ref();
    else this.#socket.unref();
  }

  #flush(): void {
    // Not once it is destroyed: the number may be somebody else's then. `#ended` deals with what is left.
    for (let next = this.#outgoing[0]; next && !this.#socket.destroyed; next = this.#outgoing[0]) {
      if (next.fds.length > 0) {
        if (this.#socket.writableLength > 0) return this.#flushBehindQueue();
        const sent = sendWithFds(this.#fd, next.line, next.fds);
        if (sent === 'wait') {
          clearTimeout(this.#retry);
          this.#retry = setTimeout(() => this.#flush(), RETRY_MS);
          return;
        }
        next.sent?.();
        if (sent === 'end') this.#socket.destroy();
        else if (sent < next.line.length) this.#socket.write(next.line.subarray(sent));
      } else {
        this.#socket.write(next.line);
      }
      this.#outgoing.shift();
    }
  }

  /** An empty write's callback comes when all before it has left. */
  #flushBehindQueue(): void {
    if (this.#queued) return;
    this.#queued = true;
    this.#socket.write(new Uint8Array(0), () => {
      this.#queued = false;
      this.#flush();
    });
  }

  #take(data: Uint8Array): void {
    try {
      for (const { message } of this.#reader.push(data)) this.#message(message);
    } catch {
      // A service that does not speak the protocol is none.
      this.#socket.destroy();
    }
  }

  #message(message: Record<string, unknown>): void {
    if (message.method === 'event') {
      this.onEvent?.(message.params as ServiceEvent);
    } else if (typeof message.id === 'number') {
      const pending = this.#settle(message.id);
      if (message.error) pending?.reject(toBusinessError(message.error));
      else pending?.resolve(message.result);
    } else if (message.error) {
      // About the connection as a whole: the service could not tell which call it was.
      const error = toBusinessError(message.error);
      for (const id of [...this.#pending.keys()]) this.#settle(id)?.reject(error);
    }
  }

  #ended(): void {
    this.#closed = true;
    clearTimeout(this.#retry);
    for (const { sent } of this.#outgoing.splice(0)) sent?.();
    for (const id of [...this.#pending.keys()]) {
      this.#settle(id)?.reject(unreachable(this.path, 'the service went away before it answered'));
    }
    this.onClose?.();
  }
}

function connect(path: string): number {
  const fd = unixSocket();
  const flags = libc.fcntl(fd, F_GETFL, 0);
  libc.fcntl(fd, F_SETFL, flags | constants.O_NONBLOCK);
  const address = unixAddress(path);
  if (libc.connect(fd, address, address.length) === 0) return fd;
  const why = errnoName(errno());
  libc.close(fd);
  // Its queue is full: it takes no connection any more.
  throw why === 'EAGAIN' ? silent(path, why, 0) : unreachable(path, why);
}

/** For a sentence only: whatever the reason, 0 is unknown. */
function listenerOf(fd: number): number {
  try {
    return peerCredentials(fd).pid;
  } catch {
    return 0;
  }
}

/** Bytes up to and including the first line's end, or nothing when that takes longer. Blocks this thread for so long. */
function receiveWithin(fd: number, timeoutMs: number): Uint8Array | undefined {
  const deadline = performance.now() + timeoutMs;
  const chunks: Buffer[] = [];
  const buffer = Buffer.alloc(4096);
  for (;;) {
    const left = Math.ceil(deadline - performance.now());
    const set = Buffer.alloc(8);
    set.writeInt32LE(fd, 0);
    set.writeInt16LE(POLLIN, 4);
    if (left <= 0 || libc.poll(set, 1, left) <= 0) break;
    const length = libc.recv(fd, buffer, buffer.length, 0);
    if (length <= 0) break;
    chunks.push(Buffer.from(buffer.subarray(0, length)));
    if (buffer.subarray(0, length).includes(0x0a)) break;
  }
  return chunks.length > 0 ? Buffer.concat(chunks) : undefined;
}

function toBusinessError(error: unknown): BusinessError {
  const { code, message, data } = error as {
    code?: unknown;
    message?: unknown;
    data?: { field?: string; reason?: string };
  };
  if (isVpnErrorCode(code)) return new BusinessError(code, data?.field, data?.reason ?? String(message));
  return new BusinessError(2200003, undefined, `the service refused the request: ${String(message)}`);
}

/**
 * The main thread's side of the epoll worker: members come and go here, events arrive through one callback. Level-triggered
 * one-shot, so that a connection is read no further until the main thread has taken what came: a peer that floods is slowed
 * down by its own full socket, and an end is told once.
 */
import { Worker } from 'node:worker_threads';
import { EPOLLIN, EPOLLOUT, type EpollEvent, epollEvent, PIDFD_TAG, SOCKET_TAG } from './epoll-worker.js';
import { checked } from './errno.js';
import { libc } from './ffi.js';

const EPOLL_CLOEXEC = 0o2000000;
const EFD_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;
const EPOLLONESHOT = 1 << 30;

export class Epoll {
  readonly #epollFd = checked(libc.epoll_create1(EPOLL_CLOEXEC), 'epoll_create1', '');
  /** Writing to it ends the worker; exported so that another thread can end it when the process exits. */
  readonly wakeFd = checked(libc.eventfd(0, EFD_CLOEXEC), 'eventfd', '');
  readonly #worker: Worker;
  readonly #ended: Promise<void>;
  readonly #onExit = (): void => this.#wake();
  readonly #sockets = new Map<number, { fd: number; onReadable: () => void }>();
  #nextTag = 1;

  /** Starts waiting on `listenFd` for connections. `onEvent` runs on this thread. */
  constructor(listenFd: number, onEvent: (event: EpollEvent) => void) {
    this.#add(this.wakeFd, EPOLLIN, 0);
    this.#add(listenFd, EPOLLIN, 0);
    this.#worker = new Worker(new URL('./epoll-worker.js', import.meta.url), {
      workerData: { epollFd: this.#epollFd, wakeFd: this.wakeFd, listenFd },
      trackUnmanagedFds: false,
    });
    this.#worker.on('message', (event: EpollEvent) => {
      if (event.kind === 'readable') this.#onReadable(event.tag);
      else onEvent(event);
    });
    this.#ended = new Promise((resolve) => this.#worker.once('exit', () => resolve()));
    process.on('exit', this.#onExit);
  }

  /** Watches a connection; its data, end and writability arrive under the tag that is returned. Call `resume` for more. */
  addConnection(fd: number): number {
    const tag = this.#tag();
    this.#add(fd, EPOLLIN | EPOLLONESHOT, tag);
    return tag;
  }

  /** Takes more from a connection if `wantReadable`, and tells when it can be written again if `wantWritable`. */
  resume(fd: number, tag: number, want: { wantReadable: boolean; wantWritable: boolean }): void {
    const events = EPOLLONESHOT | (want.wantReadable ? EPOLLIN : 0) | (want.wantWritable ? EPOLLOUT : 0);
    libc.epoll_ctl(this.#epollFd, EPOLL_CTL_MOD, fd, epollEvent(events, fd, tag));
  }

  /** Watches a process; one 'exited' event under the tag that is returned. */
  addPidfd(fd: number): number {
    const tag = (this.#tag() | PIDFD_TAG) >>> 0;
    this.#add(fd, EPOLLIN | EPOLLONESHOT, tag);
    return tag;
  }

  /** Watches a socket that is read on this thread: `onReadable` runs when something has come, and again while some is left. */
  addSocket(fd: number, onReadable: () => void): void {
    const tag = (this.#tag() | SOCKET_TAG) >>> 0;
    this.#add(fd, EPOLLIN | EPOLLONESHOT, tag);
    this.#sockets.set(tag, { fd, onReadable });
  }

  /** Before the descriptor is closed. Events that were already posted may still arrive: look the tag up. */
  remove(fd: number): void {
    for (const [tag, socket] of this.#sockets) if (socket.fd === fd) this.#sockets.delete(tag);
    libc.epoll_ctl(this.#epollFd, EPOLL_CTL_DEL, fd, null);
  }

  /** Ends the worker and closes the set; connections are the caller's to close. */
  async stop(): Promise<void> {
    process.off('exit', this.#onExit);
    this.#wake();
    await this.#ended;
    libc.close(this.#epollFd);
    libc.close(this.wakeFd);
  }

  #onReadable(tag: number): void {
    const socket = this.#sockets.get(tag);
    if (!socket) return;
    socket.onReadable();
    // It may have been closed meanwhile, and the number be another's.
    if (this.#sockets.has(tag)) this.resume(socket.fd, tag, { wantReadable: true, wantWritable: false });
  }

  #tag(): number {
    const tag = this.#nextTag;
    this.#nextTag = (tag % (SOCKET_TAG - 1)) + 1;
    return tag;
  }

  #add(fd: number, events: number, tag: number): void {
    checked(libc.epoll_ctl(this.#epollFd, EPOLL_CTL_ADD, fd, epollEvent(events, fd, tag)), 'epoll_ctl', `fd ${fd}`);
  }

  #wake(): void {
    wakeEpoll(this.wakeFd);
  }
}

/** Ends the worker whose `wakeFd` this is, from any thread of the process. */
export function wakeEpoll(wakeFd: number): void {
  const one = Buffer.alloc(8);
  one.writeBigUInt64LE(1n);
  libc.write(wakeFd, one, 8);
}

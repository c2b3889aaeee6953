/**
 * The thread that waits (epoll(7)) so that the main thread never does: it reads bytes and descriptors from connections with
 * recvmsg, accepts new ones, watches pidfds, and posts what came to the main thread. It decides nothing and parses nothing.
 * A native call cannot be interrupted, so an eventfd in the set wakes it for its end.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { libc } from './ffi.js';
import { acceptUnix, receiveWithFds } from './unix-socket.js';

/** What the main thread hands over. The epoll set belongs to the process: the main thread adds and removes members itself. */
export interface EpollWorkerData {
  epollFd: number;
  wakeFd: number;
  listenFd: number;
}

/** `tag` is the 32-bit number given when the descriptor was added; it is never used twice, unlike the descriptor itself. */
export type EpollEvent =
  | { kind: 'connection'; fd: number }
  | { kind: 'data'; tag: number; data: Uint8Array; fds: number[]; truncated: boolean }
  | { kind: 'end'; tag: number }
  | { kind: 'writable'; tag: number }
  | { kind: 'exited'; tag: number }
  | { kind: 'readable'; tag: number };

export const EPOLLIN = 0x001;
export const EPOLLOUT = 0x004;
/** Tags of pidfds have this bit, so that the worker knows not to read them. */
export const PIDFD_TAG = 0x40000000;
/** Tags of sockets that the main thread reads by itself. */
export const SOCKET_TAG = 0x20000000;

/** struct epoll_event is packed on x86_64 only. */
export const EVENT_SIZE = process.arch === 'x64' ? 12 : 16;
const DATA_OFFSET = EVENT_SIZE === 12 ? 4 : 8;
const MAXIMUM_EVENTS = 64;
const BACK_OFF_MS = 50;
const NEVER = new Int32Array(new SharedArrayBuffer(4));
/** Still posted, so that the main thread resumes the connection: every member is one-shot. */
const NOTHING = { data: new Uint8Array(0), fds: [], truncated: false };

/** epoll_event with the descriptor in the low and the tag in the high half of its data. */
export function epollEvent(events: number, fd: number, tag: number): Buffer {
  const event = Buffer.alloc(EVENT_SIZE);
  event.writeUInt32LE(events, 0);
  event.writeInt32LE(fd, DATA_OFFSET);
  event.writeUInt32LE(tag >>> 0, DATA_OFFSET + 4);
  return event;
}

function wait({ epollFd, wakeFd, listenFd }: EpollWorkerData, post: (event: EpollEvent) => void): void {
  const events = Buffer.alloc(4096);
  for (;;) {
    const count = libc.epoll_wait(epollFd, events, MAXIMUM_EVENTS, -1);
    for (let index = 0; index < count; index++) {
      const at = index * EVENT_SIZE;
      const fd = events.readInt32LE(at + DATA_OFFSET);
      if (fd === wakeFd) return;
      const tag = events.readUInt32LE(at + DATA_OFFSET + 4);
      if (fd === listenFd) acceptAll(listenFd, post);
      else if (tag & PIDFD_TAG) post({ kind: 'exited', tag });
      else if (tag & SOCKET_TAG) post({ kind: 'readable', tag });
      else serve(fd, tag, events.readUInt32LE(at), post);
    }
  }
}

function acceptAll(listenFd: number, post: (event: EpollEvent) => void): void {
  for (;;) {
    const fd = acceptUnix(listenFd);
    if (fd === undefined) return;
    // Out of descriptors: the connection stays in the queue, and asking again at once would spin.
    if (fd === 'exhausted') return void Atomics.wait(NEVER, 0, 0, BACK_OFF_MS);
    post({ kind: 'connection', fd });
  }
}

/** One read an event: a peer that floods waits for the main thread to ask for more. */
function serve(fd: number, tag: number, flags: number, post: (event: EpollEvent) => void): void {
  if (flags & EPOLLOUT) post({ kind: 'writable', tag });
  if (flags === EPOLLOUT) return;
  const received = receiveWithFds(fd);
  if (received === 'end') post({ kind: 'end', tag });
  else post({ kind: 'data', tag, ...(received === 'wait' ? NOTHING : received) });
}

const port = parentPort;
if (port && workerData && typeof workerData.epollFd === 'number') {
  wait(workerData as EpollWorkerData, (event) => port.postMessage(event));
  // An open port would keep this thread alive; the main thread closes the descriptors when it has gone.
  port.close();
}

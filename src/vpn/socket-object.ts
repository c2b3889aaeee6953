/**
 * What TCP and UDP socket objects have in common: the socket and its number, which exist from construction and stay the same
 * until `close`; bind; the events. I/O runs on a duplicate number that libuv watches and owns, so that nothing but `close`
 * ever frees the number an application holds, and a protected socket cannot be replaced behind its back.
 */
import { EventEmitter } from 'node:events';
import { type Endpoint, InetSocket } from '../kernel/inet-socket.js';
import type { AsyncCallback } from './callbacks.js';
import { settle } from './settle.js';
import { checkCallback, checkCount, checkEndpoint, checkEvent, checkListener } from './socket-arguments.js';
import { SocketError, socketError } from './socket-error.js';
import type { NetAddress } from './socket-types.js';

type Listener = (...values: never[]) => void;

export abstract class SocketObject<Events extends Record<keyof Events, Listener>> {
  readonly #events = new EventEmitter();
  readonly #eventNames: readonly string[];
  readonly #socket: InetSocket;

  /** Throws SocketError when the kernel gives no socket. */
  constructor(type: number, eventNames: readonly (keyof Events & string)[]) {
    this.#eventNames = eventNames;
    try {
      this.#socket = new InetSocket(type);
    } catch (error) {
      throw socketError(error);
    }
  }

  /** Takes effect before it returns; only the outcome comes later. Port 0 or none: the kernel chooses. */
  bind(address: NetAddress): Promise<void>;
  bind(address: NetAddress, callback: AsyncCallback<void>): void;
  bind(...given: [NetAddress, AsyncCallback<void>?]): Promise<void> | undefined {
    checkCount('bind', given, 2);
    const endpoint = checkEndpoint(given[0], 'address', 0);
    checkCallback(given[1]);
    return settle(given[1], () => this.bound(endpoint), socketError);
  }

  /** The number for `protect`; −1 once closed. */
  getSocketFd(): Promise<number>;
  getSocketFd(callback: AsyncCallback<number>): void;
  getSocketFd(...given: [AsyncCallback<number>?]): Promise<number> | undefined {
    checkCount('getSocketFd', given, 1);
    checkCallback(given[0]);
    return settle(given[0], () => this.#socket.fd, socketError);
  }

  /** Takes effect before it returns. Calls in flight fail with 2301009. Closing twice is no error. */
  close(): Promise<void>;
  close(callback: AsyncCallback<void>): void;
  close(...given: [AsyncCallback<void>?]): Promise<void> | undefined {
    checkCount('close', given, 1);
    checkCallback(given[0]);
    return settle(
      given[0],
      () => {
        if (this.#socket.fd < 0) return;
        this.closing();
        this.#socket.close();
      },
      socketError,
    );
  }

  on<Name extends keyof Events & string>(type: Name, callback: Events[Name]): void {
    checkEvent(type, this.#eventNames);
    checkListener(callback);
    this.#events.on(type, callback as never);
    this.listenersChanged();
  }

  /** Without a callback: all of this event. */
  off<Name extends keyof Events & string>(type: Name, callback?: Events[Name]): void {
    checkEvent(type, this.#eventNames);
    checkCallback(callback);
    if (callback) this.#events.off(type, callback as never);
    else this.#events.removeAllListeners(type);
    this.listenersChanged();
  }

  /** The open socket. Throws SocketError EBADF once closed. */
  protected open(call: string): InetSocket {
    if (this.#socket.fd < 0) throw new SocketError('EBADF', `${call}: the socket is closed`);
    return this.#socket;
  }

  protected get isClosed(): boolean {
    return this.#socket.fd < 0;
  }

  protected bound(endpoint: Endpoint): void {
    this.open('bind').bind(endpoint);
  }

  protected hasListener(...types: (keyof Events & string)[]): boolean {
    return types.some((type) => this.#events.listenerCount(type) > 0);
  }

  /** Nobody listening is no error, not even for 'error'. */
  protected emit<Name extends keyof Events & string>(type: Name, ...values: Parameters<Events[Name]>): void {
    if (this.hasListener(type)) this.#events.emit(type, ...values);
  }

  protected abstract closing(): void;
  protected abstract listenersChanged(): void;
}

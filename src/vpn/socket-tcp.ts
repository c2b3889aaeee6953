/**
 * `TCPSocket` of `@ohos.net.socket`: connect, send and receive on one socket that stays the same through failed attempts and
 * ended connections, with its number, its mark (`protect`) and its bound port. No TLS, no server, no socket options.
 */
import { Socket } from 'node:net';
import { type Endpoint, unmappedAddress } from '../kernel/inet-socket.js';
import { SOCK_STREAM } from '../kernel/socket-options.js';
import type { AsyncCallback, Callback, ErrorCallback } from './callbacks.js';
import { settle } from './settle.js';
import { checkCallback, checkCount, checkData, checkEndpoint, checkObject, checkTimeout } from './socket-arguments.js';
import { SocketError, socketError } from './socket-error.js';
import { SocketObject } from './socket-object.js';
import type { SocketMessageInfo, TCPConnectOptions, TCPSendOptions } from './socket-types.js';

type TcpEvents = {
  message: Callback<SocketMessageInfo>;
  connect: Callback<void>;
  close: Callback<void>;
  error: ErrorCallback;
};

/**
 * While somebody listens to 'message' or 'close', received bytes flow and an open connection keeps the process alive, as
 * node's own sockets do; otherwise they wait in the kernel and only calls in flight keep it alive.
 */
export class TCPSocket extends SocketObject<TcpEvents> {
  #stream: Socket | undefined;
  #connected = false;
  #closeTold = false;
  #sending = 0;

  constructor() {
    super(SOCK_STREAM, ['message', 'connect', 'close', 'error']);
  }

  /** Fails with 2301110 after `timeout`; the attempt is over then and another may be made. */
  connect(options: TCPConnectOptions): Promise<void>;
  connect(options: TCPConnectOptions, callback: AsyncCallback<void>): void;
  connect(...given: [TCPConnectOptions, AsyncCallback<void>?]): Promise<void> | undefined {
    checkCount('connect', given, 2);
    const { address, timeout } = checkObject(given[0], 'options');
    const endpoint = checkEndpoint(address, 'options.address', 1);
    const timeoutMs = checkTimeout(timeout, 'options.timeout');
    checkCallback(given[1]);
    return settle(given[1], () => this.#connect(endpoint, timeoutMs), socketError);
  }

  /** Settles when the kernel has taken all of it. During `connect` it waits for the connection. */
  send(options: TCPSendOptions): Promise<void>;
  send(options: TCPSendOptions, callback: AsyncCallback<void>): void;
  send(...given: [TCPSendOptions, AsyncCallback<void>?]): Promise<void> | undefined {
    checkCount('send', given, 2);
    const options = checkObject(given[0], 'options');
    const data = checkData(options.data, 'options.data', options.encoding);
    checkCallback(given[1]);
    return settle(given[1], () => this.#send(data), socketError);
  }

  async #connect(endpoint: Endpoint, timeoutMs: number): Promise<void> {
    const socket = this.open('connect');
    if (this.#stream && !this.#stream.destroyed) {
      throw new SocketError(
        this.#connected ? 'EISCONN' : 'EALREADY',
        'connect: the socket has a connection or an attempt',
      );
    }
    if (this.#stream) socket.disconnect();
    socket.connect(endpoint);
    const stream = new Socket({ fd: socket.duplicate(), readable: true, writable: true }).pause();
    this.#stream = stream;
    this.#connected = false;
    try {
      await this.#outcome(stream, endpoint, timeoutMs);
    } catch (error) {
      if (!this.isClosed) socket.disconnect();
      throw error;
    }
    this.#connected = true;
    this.#closeTold = false;
    stream.on('error', (error) => this.emit('error', socketError(error)));
    stream.on('data', (chunk: Buffer) => this.#received(stream, chunk));
    stream.on('close', () => this.#ended(stream));
    this.listenersChanged();
    this.emit('connect', undefined);
  }

  /**
   * An empty write completes when the connection does: the kernel answers EAGAIN to every send before, and libuv tries again
   * when the socket has become writable or has failed.
   */
  #outcome(stream: Socket, { address, port }: Endpoint, timeoutMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const expired = new SocketError('ETIMEDOUT', `connect ${address} port ${port}: no answer in ${timeoutMs} ms`);
      const timer = timeoutMs > 0 ? setTimeout(() => stream.destroy(expired), timeoutMs) : undefined;
      const closed = (): void => {
        clearTimeout(timer);
        reject(new SocketError('EBADF', `connect ${address} port ${port}: the socket was closed`));
      };
      stream.once('error', reject).once('close', closed);
      stream.write('', (error) => {
        if (error || stream.destroyed) return;
        clearTimeout(timer);
        stream.off('error', reject).off('close', closed);
        resolve();
      });
    });
  }

  #send(data: Buffer): Promise<void> {
    this.open('send');
    const stream = this.#stream;
    if (!stream || stream.destroyed) throw new SocketError('ENOTCONN', 'send: the socket is not connected');
    this.#sending++;
    this.listenersChanged();
    return new Promise<void>((resolve, reject) => {
      stream.write(data, (error) => {
        this.#sending--;
        this.listenersChanged();
        if (this.isClosed) reject(new SocketError('EBADF', 'send: the socket was closed'));
        else if (error) reject(error);
        else if (stream.destroyed) reject(new SocketError('EPIPE', 'send: the connection has ended'));
        else resolve();
      });
    });
  }

  #received(stream: Socket, chunk: Buffer): void {
    const { remoteAddress = '', remotePort = 0 } = stream;
    const address = unmappedAddress(remoteAddress);
    const family = address.includes(':') ? 'IPv6' : 'IPv4';
    const message = new Uint8Array(chunk).buffer as ArrayBuffer;
    this.emit('message', { message, remoteInfo: { address, family, port: remotePort, size: chunk.length } });
  }

  #ended(stream: Socket): void {
    if (this.#stream !== stream) return;
    this.#connected = false;
    this.#tellClose();
  }

  #tellClose(): void {
    if (this.#closeTold) return;
    this.#closeTold = true;
    this.emit('close', undefined);
  }

  protected override closing(): void {
    this.#stream?.destroy();
    queueMicrotask(() => this.#tellClose());
  }

  protected override listenersChanged(): void {
    const stream = this.#stream;
    if (!stream || !this.#connected) return;
    const listening = this.hasListener('message', 'close');
    if (listening) stream.resume();
    else stream.pause();
    if (listening || this.#sending > 0) stream.ref();
    else stream.unref();
  }
}

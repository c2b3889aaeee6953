/**
 * `UDPSocket` of `@ohos.net.socket`: bind, send and receive on one socket that stays the same until `close`. No multicast, no
 * socket options.
 */
import { createSocket, type Socket } from 'node:dgram';
import { setTimeout as delay } from 'node:timers/promises';
import { type Endpoint, unmappedAddress } from '../kernel/inet-socket.js';
import { AF_INET6, SOCK_DGRAM } from '../kernel/socket-options.js';
import type { AsyncCallback, Callback, ErrorCallback } from './callbacks.js';
import { settle } from './settle.js';
import { checkCallback, checkCount, checkData, checkEndpoint, checkObject } from './socket-arguments.js';
import { socketError } from './socket-error.js';
import { SocketObject } from './socket-object.js';
import type { SocketMessageInfo, UDPSendOptions } from './socket-types.js';

type UdpEvents = {
  message: Callback<SocketMessageInfo>;
  listening: Callback<void>;
  close: Callback<void>;
  error: ErrorCallback;
};

/**
 * Datagrams are read, and the process kept alive, while the socket has a local port and somebody listens to 'message'; until
 * then they wait in the kernel.
 */
export class UDPSocket extends SocketObject<UdpEvents> {
  #datagrams: Socket | undefined;
  #hasPort = false;

  constructor() {
    super(SOCK_DGRAM, ['message', 'listening', 'close', 'error']);
  }

  /** Settles when the kernel has taken the datagram. An unbound socket gets a port of the kernel's choice. */
  send(options: UDPSendOptions): Promise<void>;
  send(options: UDPSendOptions, callback: AsyncCallback<void>): void;
  send(...given: [UDPSendOptions, AsyncCallback<void>?]): Promise<void> | undefined {
    checkCount('send', given, 2);
    const options = checkObject(given[0], 'options');
    const endpoint = checkEndpoint(options.address, 'options.address', 1);
    const data = checkData(options.data, 'options.data');
    checkCallback(given[1]);
    return settle(given[1], () => this.#send(data, endpoint), socketError);
  }

  /** The first try is made before it returns. A full send buffer empties within milliseconds. */
  async #send(data: Buffer, endpoint: Endpoint): Promise<void> {
    while (!this.open('send').sendTo(data, endpoint)) await delay(1);
    this.#hasPort = true;
    this.listenersChanged();
  }

  #receive(): Socket {
    const socket = this.open('receive');
    const datagrams = createSocket(socket.domain === AF_INET6 ? 'udp6' : 'udp4');
    datagrams.on('error', (error) => this.emit('error', socketError(error)));
    datagrams.on('message', (data, { address: from, port, size }) => {
      const address = unmappedAddress(from);
      const family = address.includes(':') ? 'IPv6' : 'IPv4';
      const message = new Uint8Array(data).buffer as ArrayBuffer;
      this.emit('message', { message, remoteInfo: { address, family, port, size } });
    });
    return datagrams.bind({ fd: socket.duplicate() });
  }

  protected override bound(endpoint: Endpoint): void {
    super.bound(endpoint);
    this.#hasPort = true;
    this.listenersChanged();
    queueMicrotask(() => this.emit('listening', undefined));
  }

  protected override closing(): void {
    this.#datagrams?.close();
    this.#datagrams = undefined;
    queueMicrotask(() => this.emit('close', undefined));
  }

  protected override listenersChanged(): void {
    if (this.isClosed) return;
    if (this.#hasPort && this.hasListener('message')) {
      this.#datagrams ??= this.#receive();
      return;
    }
    this.#datagrams?.close();
    this.#datagrams = undefined;
  }
}

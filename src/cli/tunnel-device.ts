/** A WireGuard that runs, with the socket that it owns: what wg(8) may ask and set, and what status tells. */
import { closeSync } from 'node:fs';
import { KernelError } from '../model/errors.js';
import { markOf, openTunnelSocket, type TunnelSocket } from '../tunnel/tunnel-socket.js';
import type { PeerChange } from '../tunnel/wireguard/device-config.js';
import { type UapiDevice, UapiError, type UapiRequest } from '../tunnel/wireguard/uapi.js';
import type { WireGuardStatus, WireGuardTunnel } from '../tunnel/wireguard-tunnel.js';
import { wipeKeys } from './tunnel-order.js';
import type { UapiBackend } from './uapi-server.js';

export class TunnelDevice implements UapiBackend {
  readonly #wireguard: WireGuardTunnel;
  readonly #protect: (fd: number) => Promise<void>;
  #socket: TunnelSocket;
  /** Changes are made one after the other, in the order in which they came. */
  #last: Promise<void> = Promise.resolve();

  /** Takes the socket over, and closes it when it is replaced or in close(). */
  constructor(wireguard: WireGuardTunnel, socket: TunnelSocket, protect: (fd: number) => Promise<void>) {
    this.#wireguard = wireguard;
    this.#socket = socket;
    this.#protect = protect;
  }

  get listenPort(): number {
    return this.#socket.port;
  }

  get fwmark(): number {
    return markOf(this.#socket);
  }

  status(): Promise<WireGuardStatus> {
    return this.#wireguard.status();
  }

  begin(): Promise<void> {
    return this.#wireguard.begin();
  }

  async get(): Promise<UapiDevice> {
    const [{ peers }, secrets] = await Promise.all([this.#wireguard.status(), this.#wireguard.secrets()]);
    const text = (key: Uint8Array) => Buffer.from(key).toString('base64');
    const presharedKeys = new Map(secrets.presharedKeys.map((each) => [text(each.publicKey), each.presharedKey]));
    return {
      privateKey: secrets.privateKey,
      listenPort: this.#socket.port,
      fwmark: this.fwmark,
      peers: peers.map((peer) => ({ ...peer, presharedKey: presharedKeys.get(text(peer.publicKey)) })),
    };
  }

  set({ change, listenPort }: UapiRequest & { operation: 'set' }): Promise<void> {
    return this.#inTurn(async () => {
      // Either can be refused, and then nothing has changed: so the socket is there before the change and used after it.
      const isMove = listenPort !== undefined && listenPort !== this.#socket.port;
      const socket = isMove ? await this.#open(listenPort) : undefined;
      try {
        await this.#wireguard.configure(change).finally(() => wipeKeys(change));
        if (socket) await this.#wireguard.replaceSocket(socket.fd);
      } catch (error) {
        if (socket) closeSync(socket.fd);
        throw error;
      }
      if (!socket) return;
      closeSync(this.#socket.fd);
      this.#socket = socket;
    });
  }

  /** Changes one peer that is there. */
  move(change: PeerChange): Promise<void> {
    return this.#inTurn(() => this.#wireguard.configure({ peers: [{ ...change, updateOnly: true }] }));
  }

  /** Keys are zeroed; idempotent. */
  async close(): Promise<void> {
    await this.#wireguard.close();
    const { fd } = this.#socket;
    this.#socket = { fd: -1, port: 0 };
    if (fd >= 0) closeSync(fd);
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#last.then(work);
    this.#last = done.catch(() => {});
    return done;
  }

  /** Protected. */
  async #open(port: number): Promise<TunnelSocket> {
    const socket = open(port);
    try {
      await this.#protect(socket.fd);
      return socket;
    } catch (error) {
      closeSync(socket.fd);
      throw error;
    }
  }
}

function open(port: number): TunnelSocket {
  try {
    return openTunnelSocket(port);
  } catch (error) {
    const name = error instanceof KernelError ? error.errnoName : '';
    throw name === 'EADDRINUSE' || name === 'EACCES' ? new UapiError(name, `port ${port}`) : error;
  }
}

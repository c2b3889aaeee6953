/** WireGuard on a TUN and a UDP socket, as its owner sees it: configuration, status, end. The work is done in a thread. */
import { openTunnel, type Tunnel } from './tunnel.js';
import type { TunnelStatus } from './tunnel-messages.js';
import type { DeviceChange, DeviceSecrets, DeviceStatus } from './wireguard/device-config.js';
import type { WireGuardRequest } from './wireguard/protocol.js';

export interface WireGuardOptions {
  /** Of the VPN: see withOffload(). Made non-blocking. The descriptors stay the caller's to close. */
  tunFd: number;
  /** openTunnelSocket(), protected. */
  socketFd: number;
  /** Of the vNIC: no packet is padded beyond it. */
  mtu: number;
  /** The private key and the peers. */
  change: DeviceChange;
}

export interface WireGuardStatus extends DeviceStatus {
  /** Which offloads are on. */
  offload: TunnelStatus['offload'];
  /** What the data path has done. */
  traffic: TunnelStatus['counters'];
}

export interface WireGuardTunnel {
  /** All or nothing; rejects with an Error that begins with the field. */
  configure(change: DeviceChange): Promise<void>;
  /** Begins a handshake with every peer that has an endpoint and no session, as a packet for it would. */
  begin(): Promise<void>;
  /** Without secrets. */
  status(): Promise<WireGuardStatus>;
  /** The private key and preshared keys, for the owner's own eyes. */
  secrets(): Promise<DeviceSecrets>;
  /** Goes on with another socket; the one before stays the caller's to close. */
  replaceSocket(socketFd: number): Promise<void>;
  /** Zeroes the keys and ends the thread. Idempotent. */
  close(): Promise<void>;
  /** Resolves when it has ended: undefined when it was closed or the TUN is gone, otherwise the reason. */
  readonly ended: Promise<Error | undefined>;
}

/** Rejects with an Error that names the field of `change` that is wrong. */
export async function startWireGuard(options: WireGuardOptions): Promise<WireGuardTunnel> {
  const { tunFd, socketFd, mtu, change } = options;
  const protocol = new URL('./wireguard/protocol.js', import.meta.url);
  return new Running(await openTunnel({ tunFd, socketFd, mtu, protocol, options: change }));
}

class Running implements WireGuardTunnel {
  readonly #tunnel: Tunnel;

  constructor(tunnel: Tunnel) {
    this.#tunnel = tunnel;
  }

  get ended(): Promise<Error | undefined> {
    return this.#tunnel.ended;
  }

  async configure(change: DeviceChange): Promise<void> {
    await this.#call({ question: 'configure', change });
  }

  async begin(): Promise<void> {
    await this.#call({ question: 'begin' });
  }

  async status(): Promise<WireGuardStatus> {
    const [device, tunnel] = await Promise.all([this.#call({ question: 'status' }), this.#tunnel.status()]);
    return { ...(device as DeviceStatus), offload: tunnel.offload, traffic: tunnel.counters };
  }

  async secrets(): Promise<DeviceSecrets> {
    return (await this.#call({ question: 'secrets' })) as DeviceSecrets;
  }

  replaceSocket(socketFd: number): Promise<void> {
    return this.#tunnel.replaceSocket(socketFd);
  }

  close(): Promise<void> {
    return this.#tunnel.close();
  }

  #call(request: WireGuardRequest): Promise<unknown> {
    return this.#tunnel.call(request);
  }
}

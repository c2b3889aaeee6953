/**
 * `vpn-manager/tunnel`: packet I/O for any TUN file descriptor. packets(): one IP packet a read and a write, on the main thread.
 * openTunnel(): a protocol of one's own between a TUN and a UDP socket, in a thread of its own, with segmentation offload.
 * startWireGuard(): the same with WireGuard.
 */
export { withOffload } from '../model/offload.js';
export { type PacketCounters, type PacketStream, packets } from './packets.js';
export type { CreateProtocol, Destination, Outgoing, ProtocolContext, TunnelProtocol } from './protocol.js';
export { openTunnel, type Tunnel, type TunnelOptions } from './tunnel.js';
export type { TunnelStatus } from './tunnel-messages.js';
export { openTunnelSocket, type TunnelSocket } from './tunnel-socket.js';
export type {
  DeviceChange,
  DeviceSecrets,
  DeviceStatus,
  EndpointText,
  PeerChange,
  PeerStatus,
} from './wireguard/device-config.js';
export { Endpoint } from './wireguard/endpoint.js';
export { generatePrivateKey, publicKeyOf } from './wireguard/x25519.js';
export {
  startWireGuard,
  type WireGuardOptions,
  type WireGuardStatus,
  type WireGuardTunnel,
} from './wireguard-tunnel.js';

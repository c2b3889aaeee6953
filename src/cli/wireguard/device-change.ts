/** From a wg-quick file to what the WireGuard device is told at its start: the whole of it, nothing stays from before. */
import type { DeviceChange, PeerChange } from '../../tunnel/wireguard/device-config.js';
import type { Endpoints, NotYet } from './endpoints.js';
import { prefixText, type QuickFile, type QuickPeer } from './quick-file.js';

/** The keys are those of `file`, not copies: who zeroes them ends both. `endpoints` is what `chooseEndpoints` found. */
export function deviceChangeOf(file: QuickFile, { chosen, notYet }: Endpoints): DeviceChange {
  return {
    ...(file.interface.privateKey && { privateKey: file.interface.privateKey.value }),
    replacePeers: true,
    peers: file.peers.map((peer) => peerChange(peer, chosen.get(peer) ?? notYet.get(peer)?.endpoint)),
  };
}

function peerChange(peer: QuickPeer, endpoint: NotYet['endpoint']): PeerChange {
  return {
    publicKey: peer.publicKey.value,
    ...(peer.presharedKey && { presharedKey: peer.presharedKey.value }),
    ...(endpoint && { endpoint: endpointOf(endpoint) }),
    persistentKeepaliveSeconds: peer.persistentKeepaliveSeconds,
    replaceAllowedIps: true,
    allowedIps: peer.allowedIps.map(({ value }) => prefixText(value)),
  };
}

function endpointOf({ address, port, scopeId }: NonNullable<NotYet['endpoint']>): NonNullable<PeerChange['endpoint']> {
  return { address, port, ...(scopeId === undefined ? {} : { scopeId }) };
}

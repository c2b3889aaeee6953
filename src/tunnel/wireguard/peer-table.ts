/** The peers of a device, in the order in which they came, and which addresses are theirs. */
import { AllowedIps } from './allowed-ips.js';
import { type CheckedPeerChange, type DeviceSecrets, isZero, type PeerStatus } from './device-config.js';
import type { Endpoint } from './endpoint.js';
import { Peer, type PeerSurroundings } from './peer.js';

/** DH of our static key with this public key; undefined while we have none. */
export type SecretWith = (publicKey: Uint8Array) => Uint8Array | undefined;

export class PeerTable {
  readonly allowedIps = new AllowedIps<Peer>();
  readonly #peers = new Map<string, Peer>();
  readonly #surroundings: PeerSurroundings;

  constructor(surroundings: PeerSurroundings) {
    this.#surroundings = surroundings;
  }

  get size(): number {
    return this.#peers.size;
  }

  get(publicKey: Uint8Array): Peer | undefined {
    return this.#peers.get(keyText(publicKey));
  }

  /** May be changed while it is walked through. */
  all(): readonly Peer[] {
    return [...this.#peers.values()];
  }

  /** Returns the peer, if there then is one. */
  change(change: CheckedPeerChange, secretWith: SecretWith, nowMs: number): Peer | undefined {
    const existing = this.get(change.publicKey);
    if (change.remove) {
      if (existing) this.remove(existing);
      return undefined;
    }
    if (!existing && change.updateOnly) return undefined;
    const peer = existing ?? this.#add(change.publicKey, secretWith);
    if (change.presharedKey !== undefined) {
      peer.presharedKey.fill(0);
      if (change.presharedKey) peer.presharedKey.set(change.presharedKey);
    }
    if (change.endpoint) peer.roam(change.endpoint);
    const seconds = change.persistentKeepaliveSeconds;
    if (seconds !== undefined) peer.timers.setPersistent(seconds, nowMs);
    if (change.replaceAllowedIps) this.allowedIps.removeAll(peer);
    for (const prefix of change.removeAllowedIps) this.allowedIps.remove(prefix, peer);
    for (const prefix of change.allowedIps) this.allowedIps.insert(prefix, peer);
    return peer;
  }

  remove(peer: Peer): void {
    this.#peers.delete(keyText(peer.publicKey));
    this.allowedIps.removeAll(peer);
    peer.remove();
  }

  removeAll(): void {
    for (const peer of this.all()) this.remove(peer);
  }

  status(): PeerStatus[] {
    return this.all().map((peer) => ({
      publicKey: peer.publicKey.slice(),
      hasPresharedKey: !isZero(peer.presharedKey),
      ...(peer.endpoint && { endpoint: textOf(peer.endpoint) }),
      lastHandshakeMs: peer.lastHandshakeMs,
      receivedBytes: peer.receivedBytes,
      sentBytes: peer.sentBytes,
      persistentKeepaliveSeconds: peer.timers.persistentIntervalMs / 1000,
      allowedIps: this.allowedIps.listOf(peer),
    }));
  }

  presharedKeys(): DeviceSecrets['presharedKeys'] {
    return this.all()
      .filter(({ presharedKey }) => !isZero(presharedKey))
      .map(({ publicKey, presharedKey }) => ({ publicKey: publicKey.slice(), presharedKey: presharedKey.slice() }));
  }

  #add(publicKey: Uint8Array, secretWith: SecretWith): Peer {
    const peer = new Peer(publicKey, this.#surroundings);
    peer.staticSecret = secretWith(publicKey);
    this.#peers.set(keyText(publicKey), peer);
    return peer;
  }
}

/** A Map key for a public key. */
export function keyText(publicKey: Uint8Array): string {
  return Buffer.from(publicKey.buffer, publicKey.byteOffset, publicKey.byteLength).toString('latin1');
}

function textOf({ address, port, scopeId }: Endpoint): NonNullable<PeerStatus['endpoint']> {
  return scopeId === 0 ? { address, port } : { address, port, scopeId };
}

/**
 * A device and what a driver does around it, without sockets: packets go in with send(), datagrams with receive(); what comes
 * out is in `delivered` and goes to `transmit`. The outbox is emptied after every call, as the device wants it.
 */
import assert from 'node:assert/strict';
import { Device } from '../../../../../src/tunnel/wireguard/device.js';
import type { DeviceChange, PeerChange } from '../../../../../src/tunnel/wireguard/device-config.js';
import { Endpoint } from '../../../../../src/tunnel/wireguard/endpoint.js';
import { SCRATCH_BYTES } from '../../../../../src/tunnel/wireguard/outbound.js';
import { generatePrivateKey, publicKeyOf } from '../../../../../src/tunnel/wireguard/x25519.js';
import { CipherRecord, recordingSuite } from './recording-ciphers.js';
import { Seeded } from './seeded.js';

const PACKET_AT = SCRATCH_BYTES;
const DATAGRAM_AT = PACKET_AT + 2048;
const PLAIN_AT = DATAGRAM_AT + 2048;
const MEMORY_BYTES = PLAIN_AT + 2048;
/** 2025-01-01. Wall clock of a simulation's time 0. */
export const EPOCH_MS = Date.UTC(2025, 0, 1);

export type Transmit = (datagram: Uint8Array, from: Endpoint, to: Endpoint) => void;

export class Host {
  readonly device: Device;
  readonly record = new CipherRecord();
  readonly privateKey = generatePrivateKey();
  readonly publicKey = publicKeyOf(this.privateKey);
  readonly memory = new Uint8Array(MEMORY_BYTES);
  readonly delivered: Uint8Array[] = [];
  endpoint: Endpoint;
  transmit: Transmit = () => {};
  /** What becomes of packets that came in. */
  deliver: (packet: Uint8Array) => void = (packet) => this.delivered.push(packet);
  nowMs = 0;

  constructor(address: string, port = 51820, seed = 1) {
    this.endpoint = Endpoint.of(address, port);
    this.device = new Device({
      ciphers: recordingSuite(this.memory, this.record),
      scratch: 0,
      random: new Seeded(seed).bytes,
      wallClockMs: () => EPOCH_MS + this.nowMs,
    });
    this.configure({ privateKey: this.privateKey });
  }

  configure(change: DeviceChange): void {
    this.device.configure(change, this.nowMs);
    this.flush();
  }

  /** As a peer of another host. `reachable`: that one knows where. */
  asPeer(allowedIps: string[], reachable = true, more: Partial<PeerChange> = {}): PeerChange {
    const { address, port } = this.endpoint;
    return { publicKey: this.publicKey, allowedIps, ...(reachable && { endpoint: { address, port } }), ...more };
  }

  send(packet: Uint8Array): void {
    this.memory.set(packet, PACKET_AT);
    const peer = this.device.peerFor(PACKET_AT, packet.length);
    if (!peer) return;
    const length = this.device.seal(peer, PACKET_AT, packet.length, DATAGRAM_AT, this.nowMs);
    if (length > 0) {
      assert.ok(peer.endpoint);
      this.transmit(this.memory.slice(DATAGRAM_AT, DATAGRAM_AT + length), this.endpoint, peer.endpoint);
    }
    this.flush();
  }

  receive(datagram: Uint8Array, source: Endpoint): void {
    if (datagram[0] === 4) {
      this.memory.set(datagram, DATAGRAM_AT);
      const length = this.device.open(DATAGRAM_AT, datagram.length, PLAIN_AT, this.nowMs);
      if (length > 0) {
        assert.ok(this.device.lastPeer);
        this.deliver(this.memory.slice(PLAIN_AT, PLAIN_AT + length));
      }
      this.device.lastPeer?.roam(source);
    } else {
      this.device.handle(datagram, source, this.nowMs);
    }
    this.flush();
  }

  tick(): void {
    this.device.tick(this.nowMs);
    this.flush();
  }

  flush(): void {
    for (const { datagram, endpoint } of this.device.outbox.splice(0)) this.transmit(datagram, this.endpoint, endpoint);
  }
}

/**
 * A WireGuard device without a network: datagrams, packets, a clock and configuration go in, datagrams and packets come out
 * (WireGuard paper, sections 5 and 6). No I/O, no timers of its own: the driver calls tick() when `nextDeadlineMs` has come, and
 * sends and empties `outbox` after every call. All times are of one monotonic clock, in milliseconds.
 *
 * Offsets are into the memory of the cipher suite. seal() and open() are called for every packet, hundreds of thousands of
 * times a second: they allocate nothing, and nothing is done in them that tick() can do.
 */
import { randomBytes } from 'node:crypto';
import { Admission } from './admission.js';
import type { CipherSuite } from './cipher-suite.js';
import { checkDeviceChange } from './configuration.js';
import {
  KEEPALIVE_TIMEOUT_MS,
  MESSAGE_TRANSPORT,
  REJECT_AFTER_TIME_MS,
  REKEY_TIMEOUT_MS,
  TRANSPORT_HEADER_BYTES,
  TRANSPORT_MIN_BYTES,
} from './constants.js';
import { Counters } from './counters.js';
import type { DeviceChange, DeviceSecrets, DeviceStatus } from './device-config.js';
import type { Endpoint } from './endpoint.js';
import { Expiry } from './expiry.js';
import { Handshakes } from './handshakes.js';
import { IndexTable } from './index-table.js';
import {
  IPV4_DESTINATION,
  IPV4_SOURCE,
  IPV6_DESTINATION,
  IPV6_SOURCE,
  ipPacketLength,
  ipVersion,
} from './inner-packet.js';
import { staticSecretOf } from './noise.js';
import { MAX_PACKET_BYTES, Outbound, type Outgoing } from './outbound.js';
import type { Peer } from './peer.js';
import { PeerTable } from './peer-table.js';
import { Schedule } from './schedule.js';
import type { Session } from './session.js';
import { StagingRoom } from './staged-packets.js';
import { Jitter, type PeerTimers } from './timers.js';

const NEVER = Number.POSITIVE_INFINITY;
/** A session this old of which we only receive gets a successor while there is time for it (section 6.2). */
const ASK_IN_TIME_MS = REJECT_AFTER_TIME_MS - KEEPALIVE_TIMEOUT_MS - REKEY_TIMEOUT_MS;
const DEFAULT_MTU = 1420;

export interface DeviceOptions {
  readonly ciphers: CipherSuite;
  /** Where in the memory SCRATCH_BYTES are the device's own. */
  readonly scratch: number;
  readonly mtu?: number;
  readonly random?: (bytes: number) => Uint8Array;
  /** For timestamps and the time of the last handshake. */
  readonly wallClockMs?: () => number;
}

export class Device {
  /** Whose the datagram was that open() saw last; undefined: it was not authentic. */
  lastPeer: Peer | undefined = undefined;
  readonly counters = new Counters();
  readonly #memory: Uint8Array;
  readonly #view: DataView;
  readonly #cipherName: string;
  readonly #wallClockMs: () => number;
  readonly #outbound: Outbound;
  readonly #handshakes: Handshakes;
  readonly #indexes: IndexTable<Peer>;
  readonly #peers: PeerTable;
  readonly #schedule = new Schedule<PeerTimers<Peer>>();
  readonly #expiry: Expiry;

  constructor(options: DeviceOptions) {
    const { ciphers, random = randomBytes, wallClockMs = Date.now } = options;
    const { memory } = ciphers;
    this.#memory = memory;
    this.#view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
    this.#cipherName = ciphers.name;
    this.#wallClockMs = wallClockMs;
    this.#outbound = new Outbound(ciphers, options.scratch, options.mtu ?? DEFAULT_MTU);
    this.#indexes = new IndexTable<Peer>(random);
    const admission = new Admission(seedOf(random));
    this.#peers = new PeerTable({
      indexes: this.#indexes,
      schedule: this.#schedule,
      jitter: new Jitter(seedOf(random)),
      stagingRoom: new StagingRoom(),
      known: admission.known,
    });
    this.#handshakes = new Handshakes({
      ciphers,
      indexes: this.#indexes,
      outbound: this.#outbound,
      counters: this.counters,
      admission,
      random,
      wallClockMs,
      peerOf: (publicKey) => this.#peers.get(publicKey),
    });
    this.#expiry = new Expiry(this.#schedule, this.#handshakes, this.#outbound, this.counters);
  }

  /** Datagrams to send, in order. The driver empties it after each call into the device. */
  get outbox(): Outgoing[] {
    return this.#outbound.outbox;
  }

  /** When tick() is next wanted; Infinity: never. In the past when a tick has left something to do. */
  get nextDeadlineMs(): number {
    return this.#schedule.nextMs;
  }

  /** Of the vNIC. No packet is padded beyond it. */
  get mtu(): number {
    return this.#outbound.mtu;
  }

  set mtu(mtu: number) {
    this.#outbound.mtu = mtu;
  }

  /** Who gets the IP packet of `length` bytes at `from`, by its destination; undefined: nobody, or it is no IP packet. */
  peerFor(from: number, length: number): Peer | undefined {
    const version = ipVersion(this.#memory, from, length);
    if (version === 4) return this.#peers.allowedIps.lookup4(this.#view.getInt32(from + IPV4_DESTINATION));
    return version === 6 ? this.#peers.allowedIps.lookup6(this.#memory, from + IPV6_DESTINATION) : undefined;
  }

  /**
   * Seals a packet of `length` bytes at `from` into a transport message at `to`, to be sent to `peer.endpoint`, and returns its
   * length: up to 15 bytes more than the packet, and 32. `to` + 16 may be `from`; no other overlap. Behind the packet there must
   * be 15 bytes of memory; they stay as they are.
   *
   * 0: there is no session yet, or no endpoint. A copy is kept, a handshake begun, and the packet comes to the outbox when there
   * is a session.
   */
  seal(peer: Peer, from: number, length: number, to: number, nowMs: number): number {
    if (length <= 0 || length > MAX_PACKET_BYTES) {
      this.counters.malformed++;
      return 0;
    }
    const session = peer.current;
    if (session === undefined || !session.canSend(nowMs) || peer.endpoint === undefined) {
      this.#stage(peer, from, length, nowMs);
      return 0;
    }
    const bytes = this.#outbound.seal(session, from, length, to);
    peer.sentBytes += bytes;
    peer.timers.dataSent(nowMs);
    if (session.isWorn(nowMs)) this.#handshakes.begin(peer, nowMs);
    return bytes;
  }

  /**
   * Opens the transport message of `length` bytes at `from`. Above 0: the length of the IP packet that is now at `to`, authentic
   * and from an address that the peer may send from. 0: nothing to deliver, counted by its reason.
   *
   * `lastPeer` then is set if the message was authentic, also when its packet was empty or refused, and otherwise undefined:
   * where it came from is where the peer is (Peer.roam). `to` may be `from` + 16; no other overlap.
   */
  open(from: number, length: number, to: number, nowMs: number): number {
    this.lastPeer = undefined;
    const counters = this.counters;
    const view = this.#view;
    if (length < TRANSPORT_MIN_BYTES || view.getUint32(from, true) !== MESSAGE_TRANSPORT) {
      counters.malformed++;
      return 0;
    }
    const session = this.#indexes.sessionAt(view.getInt32(from + 4, true));
    if (session === undefined) {
      counters.noSession++;
      return 0;
    }
    if (nowMs >= session.rejectAtMs) {
      counters.expired++;
      return 0;
    }
    const low = view.getUint32(from + 8, true);
    const high = view.getUint32(from + 12, true);
    if (!session.replay.isFresh(low, high)) {
      counters.replayed++;
      return 0;
    }
    if (!session.opener.open(low, high, from + TRANSPORT_HEADER_BYTES, length - TRANSPORT_HEADER_BYTES, to)) {
      counters.unauthentic++;
      return 0;
    }
    session.replay.accept(low, high);
    const peer = session.owner;
    this.lastPeer = peer;
    this.#received(peer, session, length, nowMs);
    if (length === TRANSPORT_MIN_BYTES) {
      counters.keepalives++;
      return 0;
    }
    peer.timers.dataReceived(nowMs);
    return this.#allowed(peer, to, length - TRANSPORT_MIN_BYTES);
  }

  /** A message of types 1 to 3; `message` is the device's to keep. */
  handle(message: Uint8Array, source: Endpoint, nowMs: number): void {
    this.#handshakes.handle(message, source, nowMs);
  }

  /** Does what is due. */
  tick(nowMs: number): void {
    this.#expiry.tick(nowMs);
  }

  /** All or nothing: throws an Error that begins with the field, and then nothing is changed. */
  configure(change: DeviceChange, nowMs: number): void {
    const checked = checkDeviceChange(change, this.#handshakes.identity, this.#peers);
    const secretWith = (publicKey: Uint8Array) => this.#secretWith(publicKey);
    if (checked.replacePeers) this.#peers.removeAll();
    if (checked.identity !== undefined) {
      this.#handshakes.setIdentity(checked.identity ?? undefined);
      for (const peer of this.#peers.all()) peer.setStaticSecret(this.#secretWith(peer.publicKey));
    }
    const changed = checked.peers.map((each) => this.#peers.change(each, secretWith, nowMs));
    for (const peer of checked.identity ? this.#peers.all() : changed) if (peer) this.#resume(peer, nowMs);
  }

  /** Without secrets. */
  status(): DeviceStatus {
    const publicKey = this.#handshakes.identity?.publicKey.slice();
    const peers = this.#peers.status();
    return { ...(publicKey && { publicKey }), cipher: this.#cipherName, peers, counters: { ...this.counters } };
  }

  /** Copies of the private key and the preshared keys, for the owner who asks for them. */
  secrets(): DeviceSecrets {
    const privateKey = this.#handshakes.identity?.privateKey.slice();
    return { ...(privateKey && { privateKey }), presharedKeys: this.#peers.presharedKeys() };
  }

  /** Zeroes every key. The device can be configured again, from nothing. */
  close(): void {
    this.#peers.removeAll();
    this.#handshakes.setIdentity(undefined);
    this.outbox.length = 0;
    this.lastPeer = undefined;
  }

  /** What a handshake is to be begun for. */
  #stage(peer: Peer, from: number, length: number, nowMs: number): void {
    if (peer.isRemoved) return;
    this.counters.staged++;
    this.counters.stagedDropped += peer.staged.push(this.#memory, from, length, nowMs);
    this.#handshakes.begin(peer, nowMs);
  }

  /** An authentic transport message, before anything of its content counts. */
  #received(peer: Peer, session: Session<Peer>, length: number, nowMs: number): void {
    peer.receivedBytes += length;
    peer.timers.anyReceived(nowMs);
    if (peer.confirm(session)) {
      peer.handshakeDone(this.#wallClockMs());
      this.counters.handshakes++;
      this.#outbound.sendStaged(peer, session, nowMs);
    }
    const current = peer.current;
    if (current === undefined || !current.isInitiator || nowMs - current.createdMs < ASK_IN_TIME_MS) return;
    this.#handshakes.begin(peer, nowMs);
  }

  /** The length of the IP packet in `length` bytes at `from`, without padding; 0: there is none, or the peer may not send it. */
  #allowed(peer: Peer, from: number, length: number): number {
    const memory = this.#memory;
    const version = ipVersion(memory, from, length);
    const bytes = version === 0 ? 0 : ipPacketLength(memory, from, length, version);
    if (bytes === 0) {
      this.counters.badPacket++;
      return 0;
    }
    const owner =
      version === 4
        ? this.#peers.allowedIps.lookup4(this.#view.getInt32(from + IPV4_SOURCE))
        : this.#peers.allowedIps.lookup6(memory, from + IPV6_SOURCE);
    if (owner === peer) return bytes;
    this.counters.notAllowed++;
    return 0;
  }

  /** Begins a handshake with every peer that has an endpoint and no session to send in. */
  begin(nowMs: number): void {
    for (const peer of this.#peers.all()) {
      if (peer.endpoint && !peer.current?.canSend(nowMs)) this.#handshakes.begin(peer, nowMs);
    }
  }

  #secretWith(publicKey: Uint8Array): Uint8Array | undefined {
    const identity = this.#handshakes.identity;
    return identity && staticSecretOf(identity, publicKey);
  }

  /** Packets that waited for a key or an endpoint, and keepalives. */
  #resume(peer: Peer, nowMs: number): void {
    const { timers } = peer;
    if (peer.staged.length > 0 && peer.current === undefined) this.#handshakes.begin(peer, nowMs);
    if (timers.persistentIntervalMs !== 0 && timers.persistentMs === NEVER) timers.persistentNow(nowMs);
  }
}

function seedOf(random: (bytes: number) => Uint8Array): number {
  const bytes = random(4);
  return new DataView(bytes.buffer, bytes.byteOffset).getInt32(0, true);
}

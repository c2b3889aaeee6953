/** Two hosts that are each other's only peer: 10.0.0.1 and fd00::1 behind alice, 10.0.0.2 and fd00::2 behind bob. */
import type { PeerChange } from '../../../../../src/tunnel/wireguard/device-config.js';
import { Host } from './host.js';
import { type Datagram, FAIR, Network, type Weather } from './network.js';
import { idOf, ipPacket } from './packets.js';

export interface PairOptions {
  weather?: Weather;
  seed?: number;
  /** In alice's change for bob, and in bob's for alice. */
  more?: Partial<PeerChange>;
  /** Bob does not know where alice is until she speaks. */
  bobIsServer?: boolean;
}

export class Pair {
  readonly network: Network;
  readonly alice: Host;
  readonly bob: Host;
  #nextId = 1;

  constructor({ weather = FAIR, seed = 1, more = {}, bobIsServer = false }: PairOptions = {}) {
    this.network = new Network(weather, seed);
    this.alice = new Host('192.0.2.1', 51820, seed);
    this.bob = new Host('192.0.2.2', 51820, seed + 1);
    this.alice.configure({ peers: [this.bob.asPeer(['10.0.0.2/32', 'fd00::2/128'], true, more)] });
    this.bob.configure({ peers: [this.alice.asPeer(['10.0.0.1/32', 'fd00::1/128'], !bobIsServer, more)] });
    this.network.add(this.alice, this.bob);
  }

  /** From alice to bob, or the other way; returns the number in the packet. */
  send(from: Host, length = 60): number {
    const id = this.#nextId++;
    const [source, destination] = from === this.alice ? ['10.0.0.1', '10.0.0.2'] : ['10.0.0.2', '10.0.0.1'];
    this.network.now(from, () => from.send(ipPacket(source, destination, id, length)));
    return id;
  }

  run(forMs: number): void {
    this.network.run(this.network.nowMs + forMs);
  }

  /** A packet each way and time for both: there is a session, and both know it. */
  connect(): void {
    this.send(this.alice);
    this.run(1000);
    this.send(this.bob);
    this.run(1000);
    this.take(this.alice);
    this.take(this.bob);
    this.network.sent.length = 0;
  }

  /** Numbers of the packets that have been delivered to the host since last asked. */
  take(host: Host): number[] {
    return host.delivered.splice(0).map(idOf);
  }

  /** What was sent by the host since last asked. */
  sentBy(host: Host): Datagram[] {
    const own = this.network.sent.filter(({ from }) => from.equals(host.endpoint));
    const others = this.network.sent.filter(({ from }) => !from.equals(host.endpoint));
    this.network.sent.splice(0, Number.POSITIVE_INFINITY, ...others);
    return own;
  }

  close(): void {
    for (const host of [this.alice, this.bob]) host.device.close();
  }
}

export const KEEPALIVE = 'keepalive';
const NAMES = ['', 'initiation', 'response', 'cookie', 'data'];

/** 'initiation', 'response', 'cookie', 'data' or 'keepalive'. */
export function kindOf({ bytes }: Datagram): string {
  return bytes[0] === 4 && bytes.length === 32 ? KEEPALIVE : (NAMES[bytes[0] as number] ?? '');
}

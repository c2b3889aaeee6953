/**
 * A network in memory with simulated time: datagrams are delayed, so that they overtake each other, lost, doubled and damaged,
 * by a seeded chance. Hosts get their ticks exactly when they ask for them.
 */

import type { Endpoint } from '../../../../../src/tunnel/wireguard/endpoint.js';
import type { Host } from './host.js';
import { Seeded } from './seeded.js';

export interface Weather {
  loss: number;
  duplication: number;
  /** Probability that one bit of a datagram is wrong. */
  damage: number;
  minDelayMs: number;
  maxDelayMs: number;
}

export const FAIR: Weather = { loss: 0, duplication: 0, damage: 0, minDelayMs: 10, maxDelayMs: 10 };
export const FOUL: Weather = { loss: 0.05, duplication: 0.02, damage: 0.01, minDelayMs: 5, maxDelayMs: 80 };

export interface Datagram {
  readonly atMs: number;
  readonly bytes: Uint8Array;
  readonly from: Endpoint;
  readonly to: Endpoint;
}

export class Network {
  nowMs = 0;
  weather: Weather;
  /** Nothing gets through. */
  isDown = false;
  /** Every datagram that was sent; cleared by whoever looks. */
  readonly sent: Datagram[] = [];
  keepsSent = true;
  /** Wake-ups. */
  ticks = 0;
  readonly #events = new EventQueue();
  readonly #hosts = new Map<string, Host>();
  readonly #random: Seeded;

  constructor(weather: Weather = FAIR, seed = 1) {
    this.weather = weather;
    this.#random = new Seeded(seed);
  }

  add(...hosts: Host[]): void {
    for (const host of hosts) {
      this.#hosts.set(host.endpoint.toString(), host);
      host.nowMs = this.nowMs;
      host.transmit = (bytes, from, to) => this.#transmit(bytes, from, to);
      this.#arm(host);
    }
  }

  /** The host is elsewhere from now on; what is under way to the old place is lost. */
  move(host: Host, to: Endpoint): void {
    this.#hosts.delete(host.endpoint.toString());
    host.endpoint = to;
    this.#hosts.set(to.toString(), host);
  }

  /** Does something to the host at that time. */
  at(atMs: number, host: Host, action: (host: Host) => void): void {
    this.#events.push(atMs, () => this.#act(host, action));
  }

  /** Something that is not a host's, such as a change of the weather. */
  later(atMs: number, action: () => void): void {
    this.#events.push(atMs, action);
  }

  now(host: Host, action: (host: Host) => void): void {
    this.#act(host, action);
  }

  run(untilMs: number): void {
    for (let event = this.#events.pop(untilMs); event; event = this.#events.pop(untilMs)) {
      this.nowMs = event.atMs;
      event.run();
    }
    this.nowMs = untilMs;
    for (const host of this.#hosts.values()) host.nowMs = untilMs;
  }

  #act(host: Host, action: (host: Host) => void): void {
    host.nowMs = this.nowMs;
    action(host);
    this.#arm(host);
  }

  /** One event for the host's deadline; if the deadline is another by then, it is nothing. */
  #arm(host: Host): void {
    const due = host.device.nextDeadlineMs;
    if (due === Number.POSITIVE_INFINITY || due === armed.get(host)) return;
    armed.set(host, due);
    this.#events.push(Math.max(due, this.nowMs), () => {
      if (armed.get(host) === due) armed.delete(host);
      if (host.device.nextDeadlineMs === due) {
        this.ticks++;
        host.nowMs = this.nowMs;
        host.tick();
      }
      this.#arm(host);
    });
  }

  #transmit(bytes: Uint8Array, from: Endpoint, to: Endpoint): void {
    if (this.keepsSent) this.sent.push({ atMs: this.nowMs, bytes, from, to });
    const { loss, duplication, damage, minDelayMs, maxDelayMs } = this.weather;
    const copies = this.#random.chance(duplication) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      if (this.#random.chance(loss) || this.isDown) continue;
      const arriving = this.#random.chance(damage) ? this.#damaged(bytes) : bytes.slice();
      const delayMs = minDelayMs + this.#random.next() * (maxDelayMs - minDelayMs);
      this.#events.push(this.nowMs + delayMs, () => {
        const host = this.#hosts.get(to.toString());
        if (host) this.#act(host, () => host.receive(arriving, from));
      });
    }
  }

  #damaged(bytes: Uint8Array): Uint8Array {
    const copy = bytes.slice();
    const bit = this.#random.integer(copy.length * 8);
    copy[bit >> 3] = (copy[bit >> 3] as number) ^ (1 << (bit & 7));
    return copy;
  }
}

const armed = new WeakMap<Host, number>();

interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

/** Events of the same time come in the order in which they were pushed. */
class EventQueue {
  readonly #heap: Event[] = [];
  #order = 0;

  push(atMs: number, run: () => void): void {
    const heap = this.#heap;
    heap.push({ atMs, order: this.#order++, run });
    for (let at = heap.length - 1; at > 0; ) {
      const above = (at - 1) >> 1;
      if (!this.#swapIfLater(above, at)) return;
      at = above;
    }
  }

  pop(untilMs: number): Event | undefined {
    const heap = this.#heap;
    const first = heap[0];
    if (!first || first.atMs > untilMs) return undefined;
    const last = heap.pop() as Event;
    if (heap.length === 0) return first;
    heap[0] = last;
    for (let at = 0; ; ) {
      const left = 2 * at + 1;
      const right = left + 1;
      const below = right < heap.length && isLater(heap[left] as Event, heap[right] as Event) ? right : left;
      if (below >= heap.length || !this.#swapIfLater(at, below)) return first;
      at = below;
    }
  }

  #swapIfLater(above: number, below: number): boolean {
    const [upper, lower] = [this.#heap[above] as Event, this.#heap[below] as Event];
    if (!isLater(upper, lower)) return false;
    this.#heap[above] = lower;
    this.#heap[below] = upper;
    return true;
  }
}

function isLater(a: Event, b: Event): boolean {
  return a.atMs > b.atMs || (a.atMs === b.atMs && a.order > b.order);
}

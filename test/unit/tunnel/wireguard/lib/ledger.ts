/** Which packets were sent and which arrived: every one that arrives was sent to there, and has not arrived before. */
import assert from 'node:assert/strict';
import type { Host } from './host.js';
import { idOf, ipPacket } from './packets.js';

export interface Entry {
  readonly to: Host;
  readonly sentMs: number;
  /** undefined: not yet, or never. */
  arrivedMs: number | undefined;
}

export class Ledger {
  readonly entries: Entry[] = [];
  readonly #expected: Buffer[] = [];

  /** The packet is entered when it is given to a device, whether or not it can leave. */
  packet(source: string, destination: string, to: Host, nowMs: number, length = 60): Uint8Array {
    const packet = ipPacket(source, destination, this.entries.length, length);
    this.entries.push({ to, sentMs: nowMs, arrivedMs: undefined });
    this.#expected.push(Buffer.from(packet));
    return packet;
  }

  arrived(packet: Uint8Array, at: Host, nowMs: number): void {
    const id = idOf(packet);
    const entry = this.entries[id];
    assert.ok(entry, `packet ${id} was never sent`);
    assert.equal(entry.to, at, `packet ${id} is somebody else's`);
    assert.equal(entry.arrivedMs, undefined, `packet ${id} came twice`);
    assert.equal(Buffer.compare(packet, this.#expected[id] as Buffer), 0, `packet ${id} is not as it was sent`);
    entry.arrivedMs = nowMs;
  }

  /** Of the packets sent in this time: how many there were, and which part of them has arrived. */
  between(startMs: number, endMs: number, to?: Host): { sent: number; part: number; firstArrivalMs: number } {
    const sent = this.entries.filter(
      (each) => each.sentMs >= startMs && each.sentMs < endMs && (!to || each.to === to),
    );
    const arrivals = sent.flatMap(({ arrivedMs }) => (arrivedMs === undefined ? [] : [arrivedMs]));
    return { sent: sent.length, part: arrivals.length / sent.length, firstArrivalMs: Math.min(...arrivals) };
  }
}

/**
 * Days of simulated time over a network that loses 5 % of the datagrams, doubles 2 %, damages 1 % and lets them overtake each
 * other. Seeded: except for the keys, every run is the same.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Endpoint } from '../../../../src/tunnel/wireguard/endpoint.js';
import { EPOCH_MS, Host } from './lib/host.js';
import { Ledger } from './lib/ledger.js';
import { FOUL, Network } from './lib/network.js';
import { Seeded } from './lib/seeded.js';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const NEVER = Number.POSITIVE_INFINITY;
/** REKEY_TIMEOUT with the most jitter there is. */
const ATTEMPT = 5334;

class TwoHosts {
  readonly network: Network;
  readonly alice = new Host('192.0.2.1', 51820, 11);
  readonly bob = new Host('192.0.2.2', 51820, 12);
  readonly ledger = new Ledger();
  readonly random: Seeded;

  constructor(seed: number) {
    this.network = new Network(FOUL, seed);
    this.network.keepsSent = false;
    this.random = new Seeded(seed + 1);
    this.alice.configure({ peers: [this.bob.asPeer(['10.0.0.2/32'])] });
    this.bob.configure({ peers: [this.alice.asPeer(['10.0.0.1/32'])] });
    this.network.add(this.alice, this.bob);
    for (const host of [this.alice, this.bob]) {
      host.deliver = (packet) => this.ledger.arrived(packet, host, this.network.nowMs);
    }
  }

  sendAt(atMs: number, from: Host): void {
    const isAlice = from === this.alice;
    const to = isAlice ? this.bob : this.alice;
    const [source, destination] = isAlice ? ['10.0.0.1', '10.0.0.2'] : ['10.0.0.2', '10.0.0.1'];
    const length = 24 + this.random.integer(200) * 4;
    this.network.at(atMs, from, (host) =>
      host.send(this.ledger.packet(source, destination, to, this.network.nowMs, length)),
    );
  }

  /** At random times, on average every `everyMs`, in each of the directions. */
  talk(startMs: number, endMs: number, everyMs: number, from: readonly Host[]): void {
    for (const host of from) {
      for (let atMs = startMs + this.random.next() * everyMs; atMs < endMs; ) {
        this.sendAt(atMs, host);
        atMs += 2 * everyMs * this.random.next();
      }
    }
  }

  outage(startMs: number, endMs: number): void {
    this.network.later(startMs, () => {
      this.network.isDown = true;
    });
    this.network.later(endMs, () => {
      this.network.isDown = false;
    });
  }

  /** When the host had a new session, watched once a second. */
  watchHandshakes(host: Host, startMs: number, endMs: number): number[] {
    const times: number[] = [];
    let last = 0;
    for (let atMs = startMs; atMs < endMs; atMs += SECOND) {
      this.network.later(atMs, () => {
        const { lastHandshakeMs = 0 } = host.device.status().peers[0] ?? {};
        if (lastHandshakeMs > last) times.push(lastHandshakeMs - EPOCH_MS);
        last = lastHandshakeMs;
      });
    }
    return times;
  }
}

test('24 hours of two devices: talk, bursts, silence, one-way talk, outages', () => {
  const two = new TwoHosts(7);
  const { network, alice, bob, ledger, random } = two;
  const both = [alice, bob];
  const steadyHandshakes: number[][] = [];
  const outages: [number, number][] = [];
  let idleTicks = 0;
  for (let start = 0; start < 24 * HOUR; start += 6 * HOUR) {
    two.talk(start, start + HOUR, SECOND, both);
    steadyHandshakes.push(two.watchHandshakes(alice, start, start + HOUR));

    for (let atMs = start + HOUR; atMs < start + 2 * HOUR; atMs += SECOND * (30 + 120 * random.next())) {
      const from = random.chance(0.5) ? alice : bob;
      for (let count = 0; count < 60; count++) two.sendAt(atMs + count * 2, from);
    }

    // Nobody says anything in the third hour. When the keys are gone nothing may be left to do.
    network.later(start + 2 * HOUR + 12 * MINUTE, () => {
      for (const { device, record } of both) assert.deepEqual([device.nextDeadlineMs, record.live], [NEVER, 0]);
      idleTicks = network.ticks;
    });
    network.later(start + 3 * HOUR - 1, () => assert.equal(network.ticks, idleTicks, 'wake-ups while idle'));

    two.talk(start + 3 * HOUR, start + 4 * HOUR, 2 * SECOND, [alice]);
    two.talk(start + 4 * HOUR, start + 5 * HOUR, 2 * SECOND, [bob]);

    two.talk(start + 5 * HOUR, start + 6 * HOUR, 2 * SECOND, both);
    for (const [at, lengthMs] of [
      [3, 5],
      [8, 20],
      [14, 70],
      [22, 200],
      [35, 700],
    ] as const) {
      const from = start + 5 * HOUR + at * MINUTE;
      outages.push([from, from + lengthMs * SECOND]);
      two.outage(from, from + lengthMs * SECOND);
    }
  }
  network.run(24 * HOUR);

  for (let start = 0; start < 24 * HOUR; start += 6 * HOUR) {
    const parts = [0, 1, 3, 4].map((hour) => ledger.between(start + hour * HOUR, start + (hour + 1) * HOUR));
    for (const { sent, part } of parts) assert.ok(sent > 1000 && part > 0.92, `${sent} sent, ${part} arrived`);
  }
  for (const [, end] of outages) {
    for (const host of both) {
      const { firstArrivalMs } = ledger.between(end - 90 * SECOND, end + MINUTE, host);
      const arrivals = ledger.entries.flatMap(({ to, arrivedMs }) => (to === host && arrivedMs ? [arrivedMs] : []));
      const next = Math.min(...arrivals.filter((ms) => ms >= end));
      assert.ok(firstArrivalMs > 0 && next - end < 4 * ATTEMPT, `${next - end} ms after an outage`);
    }
  }
  for (const times of steadyHandshakes) {
    const gaps = times.slice(1).map((ms, index) => ms - (times[index] ?? 0));
    assert.ok(gaps.length >= 26, `${gaps.length} new sessions in an hour`);
    // A responder hears of its session a little late: with the first packet that is not lost.
    for (const gap of gaps)
      assert.ok(gap >= 110 * SECOND && gap < 120 * SECOND + 4 * ATTEMPT, `${gap} ms between sessions`);
  }
  for (const { record, device } of both) {
    assert.ok(record.mostLive <= 6, 'three sessions at most');
    assert.ok(record.keys > 200, `${record.keys}`);
    assert.ok(device.counters.replayed > 500 && device.counters.unauthentic > 100, 'the weather was foul');
  }
  assert.ok(network.ticks < 24 * 60 * 6 * 2, `${network.ticks} wake-ups`);
  network.run(24 * HOUR + 11 * MINUTE);
  for (const { record, device } of both) assert.deepEqual([record.live, device.nextDeadlineMs], [0, NEVER]);
});

test('24 hours of a hub and thirty spokes that come, go, move and talk to each other', () => {
  const network = new Network(FOUL, 23);
  network.keepsSent = false;
  const random = new Seeded(24);
  const ledger = new Ledger();
  const hub = new Host('192.0.2.1', 51820, 1);
  const spokes = Array.from({ length: 30 }, (_, index) => new Host(`198.51.100.${index + 1}`, 4000, 100 + index));
  const addressOf = (index: number): string => `10.0.0.${index + 1}`;
  let moves = 0;
  for (const [index, spoke] of spokes.entries()) {
    hub.configure({ peers: [spoke.asPeer([addressOf(index)], false)] });
    const keepalive = index < 3 ? { persistentKeepaliveSeconds: 25 } : {};
    spoke.configure({ peers: [hub.asPeer(['10.0.0.0/8'], true, keepalive)] });
    spoke.deliver = (packet) => ledger.arrived(packet, spoke, network.nowMs);
  }
  // The hub forwards. A spoke whose place it does not know yet gets what waited when it speaks.
  hub.deliver = (packet) => hub.send(packet);
  network.add(hub, ...spokes);

  for (const [index, spoke] of spokes.entries()) {
    for (let start = random.next() * 2 * HOUR; start < 24 * HOUR; start += HOUR * (0.5 + 2 * random.next())) {
      const other = (index + 1 + random.integer(spokes.length - 1)) % spokes.length;
      const partner = spokes[other] as Host;
      for (let atMs = start; atMs < start + 4 * MINUTE; atMs += 8 * SECOND * random.next()) {
        const [from, to] = random.chance(0.5) ? [index, other] : [other, index];
        network.at(atMs, spokes[from] as Host, (host) => {
          host.send(ledger.packet(addressOf(from), addressOf(to), from === index ? partner : spoke, network.nowMs));
        });
      }
      if (!random.chance(0.4)) continue;
      network.later(start + 2 * MINUTE, () => {
        network.move(spoke, Endpoint.of(`203.0.113.${index + 1}`, 5000 + (moves++ % 60_000)));
      });
    }
  }
  network.run(24 * HOUR);
  assert.ok(moves > 100, `${moves}`);
  const { sent, part } = ledger.between(0, 24 * HOUR);
  assert.ok(sent > 20_000 && part > 0.8, `${sent} sent, ${part} arrived over two hops`);

  for (const host of [hub, ...spokes]) {
    const { status, peers } = { status: host.device.counters, peers: host.device.status().peers.length };
    assert.ok(host.record.mostLive <= 6 * peers);
    assert.equal(status.badPacket + status.notAllowed, 0);
  }
  for (const spoke of spokes.slice(0, 3)) {
    spoke.configure({ peers: [{ publicKey: hub.publicKey, persistentKeepaliveSeconds: 0 }] });
  }
  network.run(24 * HOUR + 15 * MINUTE);
  for (const { record, device } of [hub, ...spokes]) assert.deepEqual([record.live, device.nextDeadlineMs], [0, NEVER]);
});

test('two thousand peers of which one talks cost the others nothing', () => {
  const network = new Network(FOUL, 5);
  network.keepsSent = false;
  const [hub, spoke] = [new Host('192.0.2.1', 1, 1), new Host('192.0.2.2', 2, 2)];
  const peers = Array.from({ length: 2000 }, (_, index) => {
    const publicKey = new Uint8Array(32).fill(9);
    new DataView(publicKey.buffer).setUint32(4, index);
    return { publicKey, allowedIps: [`10.${(index >> 8) + 1}.${index & 255}.0/24`] };
  });
  hub.configure({ peers: [...peers, spoke.asPeer(['10.0.0.2'], true)] });
  spoke.configure({ peers: [hub.asPeer(['10.0.0.1'])] });
  network.add(hub, spoke);
  const ledger = new Ledger();
  hub.deliver = (packet) => ledger.arrived(packet, hub, network.nowMs);
  for (let atMs = 0; atMs < HOUR; atMs += SECOND) {
    network.at(atMs, spoke, (host) => host.send(ledger.packet('10.0.0.2', '10.0.0.1', hub, atMs)));
  }
  network.run(HOUR);
  assert.ok(ledger.between(0, HOUR).part > 0.92);
  assert.ok(network.ticks < 1000, `${network.ticks}`);
});

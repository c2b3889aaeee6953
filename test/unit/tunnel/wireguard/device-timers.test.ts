/** When a device does something by itself (WireGuard paper, section 6). The network delays by 10 ms and loses nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { REKEY_AFTER_COUNTER } from '../../../../src/tunnel/wireguard/session.js';
import type { Host } from './lib/host.js';
import { KEEPALIVE, kindOf, Pair } from './lib/pair.js';

const NEVER = Number.POSITIVE_INFINITY;

/** What the host has sent since last asked, as [ms since `since`, kind]. */
function sent(pair: Pair, host: Host, since: number): [number, string][] {
  return pair.sentBy(host).map((datagram) => [Math.round(datagram.atMs - since), kindOf(datagram)]);
}

function isBetween(value: number | undefined, low: number, high: number): void {
  assert.ok(value !== undefined && value >= low && value <= high, `${value} is not between ${low} and ${high}`);
}

/** One packet a second each way for that long. */
function talk(pair: Pair, seconds: number, hosts: Host[] = [pair.alice, pair.bob]): void {
  for (let count = 0; count < seconds; count++) {
    for (const host of hosts) pair.send(host);
    pair.run(1000);
  }
}

test('a device that is only configured never wakes', () => {
  const pair = new Pair();
  pair.run(1e9);
  assert.equal(pair.network.ticks, 0);
  assert.deepEqual(
    [pair.alice, pair.bob].map((host) => host.device.nextDeadlineMs),
    [NEVER, NEVER],
  );
});

test('who received and had nothing to say for 10 s says so with a keepalive, once', () => {
  const pair = new Pair();
  pair.connect();
  pair.run(60_000);
  pair.sentBy(pair.alice);
  pair.sentBy(pair.bob);
  const start = pair.network.nowMs;
  pair.send(pair.alice);
  pair.run(60_000);
  assert.deepEqual(sent(pair, pair.alice, start), [[0, 'data']]);
  assert.deepEqual(sent(pair, pair.bob, start), [[10_010, KEEPALIVE]]);
});

test('who received and had something to say within 10 s sends no keepalive', () => {
  const pair = new Pair();
  pair.connect();
  pair.run(60_000);
  for (const host of [pair.alice, pair.bob]) pair.sentBy(host);
  const start = pair.network.nowMs;
  pair.send(pair.alice);
  pair.run(9000);
  pair.send(pair.bob);
  pair.run(40_000);
  assert.deepEqual(sent(pair, pair.bob, start), [[9000, 'data']]);
  assert.deepEqual(sent(pair, pair.alice, start), [
    [0, 'data'],
    [19_010, KEEPALIVE],
  ]);
});

test('who receives all the time without saying anything sends a keepalive every 10 s', () => {
  const pair = new Pair();
  pair.connect();
  pair.run(60_000);
  pair.sentBy(pair.bob);
  const start = pair.network.nowMs;
  talk(pair, 40, [pair.alice]);
  pair.run(60_000);
  const times = sent(pair, pair.bob, start).map(([ms, kind]) => (kind === KEEPALIVE ? ms : Number.NaN));
  assert.deepEqual(times, [10_010, 20_010, 30_010, 40_010, 50_010]);
});

test('who sent and heard nothing for 15 s begins a new handshake', () => {
  const pair = new Pair();
  pair.connect();
  pair.network.isDown = true;
  pair.run(20_000);
  pair.sentBy(pair.alice);
  const start = pair.network.nowMs;
  pair.send(pair.alice);
  pair.run(16_000);
  const [first, second] = sent(pair, pair.alice, start);
  assert.deepEqual(first, [0, 'data']);
  assert.equal(second?.[1], 'initiation');
  isBetween(second?.[0], 15_000, 15_333);
});

test('who sent what had waited and heard nothing for 15 s begins a new handshake as well', () => {
  const pair = new Pair();
  pair.send(pair.alice);
  pair.run(25);
  assert.deepEqual(sent(pair, pair.alice, 0).at(-1), [20, 'data']);
  pair.network.isDown = true;
  pair.run(16_000);
  const [initiation] = sent(pair, pair.alice, 20);
  assert.equal(initiation?.[1], 'initiation');
  isBetween(initiation?.[0], 15_000, 15_333);
});

test('an initiation without an answer is repeated every 5 s and some random time, for 90 s, then never', () => {
  const pair = new Pair();
  pair.network.isDown = true;
  pair.send(pair.alice);
  pair.run(1e7);
  const times = sent(pair, pair.alice, 0).map(([ms, kind]) => (kind === 'initiation' ? ms : Number.NaN));
  for (const [index, ms] of times.slice(1).entries()) isBetween(ms - (times[index] ?? 0), 5000, 5334);
  const gaps = times.slice(1).map((ms, index) => ms - (times[index] ?? 0));
  assert.ok(new Set(gaps).size > 8, 'the random time is random');
  isBetween(times.at(-1), 84_000, 90_000);
  assert.equal(pair.alice.device.nextDeadlineMs, NEVER);
  assert.equal(pair.alice.device.counters.stagedDropped, 1);
});

test('a packet begins the 90 s anew, and after giving up a new attempt', () => {
  const pair = new Pair();
  pair.network.isDown = true;
  pair.send(pair.alice);
  pair.run(60_000);
  pair.send(pair.alice);
  pair.run(1e6);
  isBetween(sent(pair, pair.alice, 0).at(-1)?.[0], 144_000, 150_000);
  pair.network.isDown = false;
  const id = pair.send(pair.alice);
  pair.run(100);
  assert.deepEqual(pair.take(pair.bob), [id]);
});

test('after an outage a packet that waits gets through as soon as an initiation does', () => {
  const pair = new Pair();
  pair.network.isDown = true;
  const id = pair.send(pair.alice);
  pair.run(42_000);
  pair.network.isDown = false;
  pair.run(5333 + 40);
  assert.deepEqual(pair.take(pair.bob), [id]);
});

test('in use the initiator makes a new session every 120 s, and the responder none', () => {
  const pair = new Pair();
  pair.connect();
  talk(pair, 1000);
  const initiations = sent(pair, pair.alice, 0).filter(([, kind]) => kind === 'initiation');
  assert.equal(initiations.length, 8);
  for (const [index, [ms]] of initiations.entries()) isBetween(ms, 120_000 * (index + 1), 122_000 * (index + 1));
  assert.equal(
    sent(pair, pair.bob, 0).some(([, kind]) => kind === 'initiation'),
    false,
  );
  assert.equal(pair.take(pair.alice).length, 1000, 'and no packet is lost over it');
  assert.equal(pair.take(pair.bob).length, 1000);
});

test('a session that nobody uses is not renewed', () => {
  const pair = new Pair();
  pair.connect();
  pair.run(170_000);
  const ofEither = [...sent(pair, pair.alice, 0), ...sent(pair, pair.bob, 0)];
  assert.deepEqual(
    ofEither.filter(([, kind]) => kind !== KEEPALIVE),
    [],
  );
});

test('keepalives renew a session as data does', () => {
  const pair = new Pair();
  pair.connect();
  talk(pair, 140, [pair.bob]);
  const [initiation] = sent(pair, pair.alice, 0).filter(([, kind]) => kind === 'initiation');
  isBetween(initiation?.[0], 120_000, 130_100);
});

test('an initiator that only receives asks for a new session 15 s before the old one ends, once', () => {
  const pair = new Pair();
  pair.connect();
  pair.network.run(164_000);
  pair.sentBy(pair.alice);
  pair.send(pair.bob);
  pair.network.run(165_100);
  assert.deepEqual(sent(pair, pair.alice, 0), []);
  for (let count = 0; count < 3; count++) {
    pair.send(pair.bob);
    pair.run(1);
  }
  pair.run(100);
  assert.deepEqual(
    sent(pair, pair.alice, 165_100).map(([, kind]) => kind),
    ['initiation', KEEPALIVE],
  );
});

test('after 180 s a session neither sends nor receives', () => {
  const pair = new Pair({ bobIsServer: true });
  pair.send(pair.alice);
  pair.network.run(180_005);
  pair.sentBy(pair.bob);
  // Bob's session is of 10 ms, alice's of 20 ms: what he sends now comes when hers is over.
  pair.network.weather = { ...pair.network.weather, minDelayMs: 20, maxDelayMs: 20 };
  const late = pair.send(pair.bob);
  pair.network.run(180_011);
  const waiting = pair.send(pair.bob);
  assert.deepEqual(
    sent(pair, pair.bob, 0).map(([, kind]) => kind),
    ['data', 'initiation'],
  );
  pair.network.run(180_026);
  assert.equal(pair.alice.device.counters.expired, 1);
  pair.run(1000);
  const received = pair.take(pair.alice);
  assert.deepEqual(received, [waiting], `without ${late}`);
});

test('540 s after the last handshake all keys are gone, and then nothing is ever due', () => {
  const pair = new Pair();
  pair.connect();
  pair.network.run(500_000);
  assert.equal(pair.alice.record.live, 2);
  assert.equal(pair.bob.record.live, 2);
  const { ticks } = pair.network;
  pair.network.run(540_100);
  assert.equal(pair.alice.record.live, 0);
  assert.equal(pair.bob.record.live, 0);
  assert.equal(pair.network.ticks, ticks + 2, 'one wake-up each');
  pair.network.run(1e9);
  assert.equal(pair.network.ticks, ticks + 2);
  const id = pair.send(pair.alice);
  pair.run(100);
  assert.deepEqual(pair.take(pair.bob), [id]);
});

test('a persistent keepalive is sent at once, and then whenever nothing was for its interval', () => {
  const pair = new Pair();
  pair.network.now(pair.alice, ({ device }) =>
    device.configure({ peers: [{ publicKey: pair.bob.publicKey, persistentKeepaliveSeconds: 25 }] }, 0),
  );
  pair.run(80_000);
  const ofAlice = sent(pair, pair.alice, 0);
  assert.deepEqual(ofAlice, [
    [0, 'initiation'],
    [20, KEEPALIVE],
    [25_020, KEEPALIVE],
    [50_020, KEEPALIVE],
    [75_020, KEEPALIVE],
  ]);
  pair.run(1000);
  const start = pair.network.nowMs;
  pair.send(pair.alice);
  pair.run(37_000);
  // Bob's own keepalive, 10 s later, counts as well.
  assert.deepEqual(sent(pair, pair.alice, start), [
    [0, 'data'],
    [10_010 + 10 + 25_000, KEEPALIVE],
  ]);
});

test('persistent keepalives go on through outages of any length', () => {
  const pair = new Pair({ more: { persistentKeepaliveSeconds: 25 }, bobIsServer: true });
  pair.run(1000);
  pair.network.isDown = true;
  pair.run(3_600_000);
  pair.network.isDown = false;
  pair.run(25_000 + 5333 + 100);
  const id = pair.send(pair.bob);
  pair.run(100);
  assert.deepEqual(pair.take(pair.alice), [id]);
});

test('persistent keepalives wait for an endpoint, without waking anybody', () => {
  const pair = new Pair({ bobIsServer: true });
  pair.network.now(pair.bob, ({ device }) =>
    device.configure({ peers: [{ publicKey: pair.alice.publicKey, persistentKeepaliveSeconds: 1 }] }, 0),
  );
  pair.run(1e6);
  assert.ok(pair.network.ticks <= 1);
  pair.send(pair.alice);
  pair.run(10_500);
  assert.ok(sent(pair, pair.bob, 0).filter(([, kind]) => kind === KEEPALIVE).length >= 9);
});

test('persistent keepalives begin with the endpoint that is configured later', () => {
  const pair = new Pair({ bobIsServer: true });
  const { publicKey } = pair.alice;
  pair.network.now(pair.bob, (host) => host.configure({ peers: [{ publicKey, persistentKeepaliveSeconds: 25 }] }));
  pair.run(1000);
  assert.deepEqual(pair.network.sent, []);
  const { endpoint } = pair.alice.asPeer([]);
  assert.ok(endpoint);
  pair.network.now(pair.bob, (host) => host.configure({ peers: [{ publicKey, endpoint }] }));
  pair.run(1000);
  assert.deepEqual(
    sent(pair, pair.bob, 1000).map(([, kind]) => kind),
    ['initiation', KEEPALIVE],
  );
});

test('persistent keepalives that are turned off, or whose peer is removed, wake nobody', () => {
  const pair = new Pair({ more: { persistentKeepaliveSeconds: 25 } });
  pair.run(1000);
  const [toBob, toAlice] = [pair.bob.publicKey, pair.alice.publicKey];
  pair.network.now(pair.alice, (host) =>
    host.configure({ peers: [{ publicKey: toBob, persistentKeepaliveSeconds: 0 }] }),
  );
  pair.network.now(pair.bob, (host) => host.configure({ peers: [{ publicKey: toAlice, remove: true }] }));
  assert.equal(pair.bob.device.nextDeadlineMs, NEVER);
  assert.equal(pair.bob.record.live, 0);
  for (const host of [pair.alice, pair.bob]) pair.sentBy(host);
  pair.run(600_000);
  assert.deepEqual(pair.network.sent, []);
  assert.equal(pair.alice.device.nextDeadlineMs, NEVER);
  assert.equal(pair.alice.record.live, 0);
});

test('setting the interval that is set already sends nothing', () => {
  const pair = new Pair({ more: { persistentKeepaliveSeconds: 25 } });
  pair.run(1000);
  pair.sentBy(pair.alice);
  const { nextDeadlineMs } = pair.alice.device;
  pair.alice.configure({ peers: [{ publicKey: pair.bob.publicKey, persistentKeepaliveSeconds: 25 }] });
  assert.equal(pair.alice.device.nextDeadlineMs, nextDeadlineMs);
});

test('a session whose counter is almost used up gets a successor, from either side', () => {
  for (const side of ['alice', 'bob'] as const) {
    const pair = new Pair();
    pair.connect();
    pair.run(10_000);
    const host = pair[side];
    const peer = host.device.peerFor(...packetFor(pair, host));
    assert.ok(peer?.current);
    peer.current.sendCounter = REKEY_AFTER_COUNTER;
    pair.sentBy(host);
    pair.send(host);
    assert.deepEqual(
      sent(pair, host, 0).map(([, kind]) => kind),
      ['data', 'initiation'],
      side,
    );
    peer.current.sendCounter = Number.MAX_SAFE_INTEGER;
    pair.send(host);
    assert.deepEqual(sent(pair, host, 0), [], 'nothing is sent with a counter that a double cannot count up');
    pair.run(100);
    assert.deepEqual(pair.take(host === pair.alice ? pair.bob : pair.alice).length, 2);
  }
});

test('thousands of peers that are due at once are served a few a tick', () => {
  const pair = new Pair();
  const { alice } = pair;
  const peers = Array.from({ length: 300 }, (_, index) => {
    const publicKey = new Uint8Array(32).fill(9);
    new DataView(publicKey.buffer).setUint32(4, index);
    return { publicKey, endpoint: { address: '198.51.100.1', port: 1 + index }, persistentKeepaliveSeconds: 1 };
  });
  alice.transmit = () => {};
  alice.configure({ peers });
  let ticks = 0;
  while (alice.device.nextDeadlineMs <= alice.nowMs && ticks < 1000) {
    const before = alice.device.counters.initiationsSent;
    alice.tick();
    ticks++;
    assert.ok(alice.device.counters.initiationsSent - before <= 32);
  }
  assert.equal(alice.device.counters.initiationsSent, 300);
  assert.equal(ticks, 10);
});

/** Where a packet to the other side lies in the host's memory. */
function packetFor(pair: Pair, host: Host): [number, number] {
  const at = 66_000;
  const last = host === pair.alice ? 2 : 1;
  host.memory.set([0x45, 0, 0, 20], at);
  host.memory.set([10, 0, 0, last], at + 16);
  return [at, 20];
}

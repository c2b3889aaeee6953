/**
 * A hundred thousand handshake messages from people who mean no good, within a second of simulated time (WireGuard paper,
 * section 5.3). What is bounded is work: Diffie-Hellman, cookies, answers, memory. What goes on is an established session.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MacSender } from '../../../../src/tunnel/wireguard/cookie.js';
import { Endpoint } from '../../../../src/tunnel/wireguard/endpoint.js';
import {
  consumeInitiation,
  createInitiation,
  identityOf,
  staticSecretOf,
} from '../../../../src/tunnel/wireguard/noise.js';
import { tai64n } from '../../../../src/tunnel/wireguard/tai64n.js';
import { generatePrivateKey } from '../../../../src/tunnel/wireguard/x25519.js';
import { heapBytes } from './lib/heap.js';
import { EPOCH_MS, type Host } from './lib/host.js';
import { kindOf, Pair } from './lib/pair.js';
import { Seeded } from './lib/seeded.js';

const FLOOD = 100_000;
/** By admission.ts: what a second can cost at most. */
const MOST_HANDSHAKES = 120 + 400;
const MOST_COOKIES = 200 + 2500;

interface Flood {
  /** The message with this number; called once for each. */
  message(index: number): Uint8Array;
  source(index: number): Endpoint;
}

const random = new Seeded(42);

const spoofed = (): Endpoint =>
  Endpoint.of(
    `${1 + random.integer(223)}.${random.integer(256)}.${random.integer(256)}.${random.integer(256)}`,
    1 + random.integer(65_535),
  );

/** An initiation of somebody, with a right mac1. */
function initiation(to: Host, privateKey = generatePrivateKey(), wallClockMs = EPOCH_MS): Uint8Array {
  const identity = identityOf(privateKey);
  const staticSecret = staticSecretOf(identity, to.publicKey);
  assert.ok(staticSecret);
  const timestamp = tai64n(wallClockMs);
  const { message } = createInitiation({
    identity,
    peerPublicKey: to.publicKey,
    staticSecret,
    localIndex: 1,
    timestamp,
  });
  return sealed(message, to);
}

function sealed(message: Uint8Array, to: Host): Uint8Array {
  new MacSender(to.publicKey).addMacs(message, 0);
  return message;
}

/** Different each time, for the price of a mac: the ephemeral key is replaced, so that only mac1 is right. */
function varied(message: Uint8Array, to: Host, index: number): Uint8Array {
  const copy = message.slice();
  copy.set(random.bytes(32), 8);
  new DataView(copy.buffer).setUint32(4, index, true);
  return sealed(copy, to);
}

/** Floods bob in the second from now on, while alice and he talk 100 packets each way. Returns how many got through, and bob. */
function endure(pair: Pair, { message, source }: Flood, count = FLOOD): { delivered: number; answers: string[] } {
  const { alice, bob, network } = pair;
  const before = network.nowMs;
  network.keepsSent = false;
  const answers: string[] = [];
  const transmit = bob.transmit;
  let delivered = 0;
  for (let index = 0; index < count; index++) {
    bob.nowMs = before + (1000 * index) / count;
    bob.transmit = (bytes, from, to) => answers.push(kindOf({ bytes, from, to, atMs: 0 }));
    bob.receive(message(index), source(index));
    bob.transmit = transmit;
    if (index % (count / 100) !== 0) continue;
    network.run(bob.nowMs);
    pair.send(alice);
    pair.send(bob);
  }
  pair.run(1000);
  delivered = pair.take(bob).length + pair.take(alice).length;
  return { delivered, answers };
}

function connected(): Pair {
  const pair = new Pair();
  pair.connect();
  return pair;
}

test('messages without a right mac1 cost no more than that, and are not answered', () => {
  const pair = connected();
  const message = initiation(pair.bob);
  const { delivered, answers } = endure(pair, {
    message: (index) => {
      const copy = message.slice();
      copy[116 + (index & 15)] = (copy[116 + (index & 15)] as number) ^ (1 + (index % 255));
      return copy;
    },
    source: spoofed,
  });
  assert.deepEqual([delivered, answers.length], [200, 0]);
  const { badMac, overload, badInitiation } = pair.bob.device.counters;
  assert.equal(badMac + overload, FLOOD);
  assert.equal(badInitiation, 0);
  assert.ok(badMac <= 5000 + 50_000, `${badMac}`);
});

test('with a right mac1 from made-up addresses they get few handshakes, some cookies, and otherwise nothing', () => {
  const pair = connected();
  const message = initiation(pair.bob);
  const { delivered, answers } = endure(
    pair,
    { message: (index) => varied(message, pair.bob, index), source: spoofed },
    30_000,
  );
  assert.equal(delivered, 200);
  const { badInitiation, cookiesSent } = pair.bob.device.counters;
  assert.ok(badInitiation >= 60 && badInitiation <= 80, `${badInitiation} before mac2 is wanted`);
  assert.ok(cookiesSent > 30_000 / 15 && cookiesSent <= MOST_COOKIES, `${cookiesSent}`);
  assert.equal(answers.length, cookiesSent);
  assert.ok(answers.every((kind) => kind === 'cookie'));
});

test('a peer gets its handshake in the middle of such a flood, by way of a cookie', () => {
  const pair = new Pair();
  const message = initiation(pair.bob);
  const id = pair.send(pair.alice);
  let seconds = 0;
  const received: number[] = [];
  while (received.length === 0 && seconds < 20) {
    endureQuietly(pair, message, 3000);
    received.push(...pair.take(pair.bob));
    seconds++;
  }
  assert.deepEqual(received, [id]);
  assert.ok(seconds <= 7, `${seconds}`);
  assert.ok(pair.bob.device.counters.cookiesSent > 0);
});

test('an established peer renews its session in the middle of such a flood', () => {
  const pair = connected();
  const message = initiation(pair.bob);
  const { handshakes } = pair.bob.device.counters;
  pair.network.run(118_000);
  for (let second = 0; second < 14; second++) {
    pair.send(pair.alice);
    endureQuietly(pair, message, 3000);
  }
  assert.equal(pair.bob.device.counters.handshakes, handshakes + 1);
});

test('initiations that were recorded cost a few Diffie-Hellmans and change nothing', () => {
  const pair = new Pair({ bobIsServer: true });
  pair.send(pair.alice);
  pair.run(1000);
  const [recorded] = pair.sentBy(pair.alice);
  assert.ok(recorded);
  pair.connect();
  const { delivered } = endure(pair, { message: () => recorded.bytes.slice(), source: () => pair.alice.endpoint });
  assert.equal(delivered, 200);
  const { replayedInitiation, handshakes } = pair.bob.device.counters;
  assert.ok(replayedInitiation > 0 && replayedInitiation <= MOST_HANDSHAKES, `${replayedInitiation}`);
  assert.equal(handshakes, 1);
});

test('strangers who receive at their address get five handshakes at once, and twenty a second', () => {
  const pair = connected();
  const message = initiation(pair.bob);
  const source = Endpoint.of('198.51.100.1', 1);
  exhaust(pair, message);
  const sender = new MacSender(pair.bob.publicKey);
  const first = varied(message, pair.bob, 1);
  sender.addMacs(first, 0);
  let reply: Uint8Array | undefined;
  pair.bob.transmit = (bytes) => {
    reply = bytes;
  };
  pair.bob.receive(first.slice(), source);
  assert.ok(reply && sender.takeCookieReply(reply, 0));
  const before = pair.bob.device.counters.badInitiation;
  for (let index = 0; index < 100; index++) {
    const next = varied(message, pair.bob, index);
    sender.addMacs(next, 0);
    pair.bob.receive(next, source);
  }
  assert.equal(pair.bob.device.counters.badInitiation, before + 5);
});

test('a peer that floods by itself gets fifty sessions a second, and keeps three', () => {
  const pair = new Pair();
  const messages = Array.from({ length: 200 }, (_, index) =>
    initiation(pair.bob, pair.alice.privateKey, EPOCH_MS + 100 * index),
  );
  const answers: Uint8Array[] = [];
  pair.bob.transmit = (bytes) => answers.push(bytes);
  for (const [index, message] of messages.entries()) {
    pair.bob.nowMs = index * 5;
    pair.bob.receive(message, pair.alice.endpoint);
    assert.ok(pair.bob.record.live <= 6);
  }
  assert.ok(answers.length <= 50, `${answers.length}`);
  assert.ok(pair.bob.device.counters.hastyInitiation > 100);
});

test('responses and cookies that nobody asked for are dropped unread', () => {
  const pair = connected();
  const lengths = new Map([
    [2, 92],
    [3, 64],
  ]);
  const { delivered, answers } = endure(pair, {
    message: (index) => {
      const type = 2 + (index & 1);
      const message = random.bytes(lengths.get(type) ?? 0);
      message.set([type, 0, 0, 0]);
      return message;
    },
    source: spoofed,
  });
  assert.deepEqual([delivered, answers.length], [200, 0]);
  const { badResponse, badCookie, overload } = pair.bob.device.counters;
  assert.equal(badResponse + badCookie, FLOOD);
  assert.equal(overload, 0);
});

test('a flood leaves no memory behind', () => {
  const pair = connected();
  const message = initiation(pair.bob);
  endure(pair, { message: (index) => varied(message, pair.bob, index), source: spoofed }, 5000);
  const before = heapBytes();
  endure(pair, { message: (index) => varied(message, pair.bob, index), source: spoofed }, 20_000);
  const left = heapBytes() - before;
  assert.ok(left < 1_000_000, `${left} bytes`);
  assert.deepEqual(pair.bob.device.outbox, []);
  assert.equal(pair.bob.record.live, 2);
});

test('the flood of these tests is one: its messages are well-formed but for who sends them', () => {
  const pair = new Pair();
  const message = initiation(pair.bob, pair.alice.privateKey);
  assert.ok(consumeInitiation(identityOf(pair.bob.privateKey), message));
});

/** A second of flood, without talk. */
function endureQuietly(pair: Pair, message: Uint8Array, count: number): void {
  const { bob, network } = pair;
  const start = network.nowMs;
  network.keepsSent = false;
  for (let index = 0; index < count; index++) {
    const atMs = start + (1000 * index) / count;
    if (index % 20 === 0) network.run(atMs);
    network.now(bob, () => {
      bob.nowMs = atMs;
      const transmit = bob.transmit;
      bob.transmit = () => {};
      bob.receive(varied(message, bob, index), spoofed());
      bob.transmit = transmit;
    });
  }
  network.run(start + 1000);
}

/** Until mac2 is wanted. */
function exhaust(pair: Pair, message: Uint8Array): void {
  pair.bob.transmit = () => {};
  for (let index = 0; index < 100; index++) pair.bob.receive(varied(message, pair.bob, index), spoofed());
}

/** Whatever comes from the network: nothing throws, nothing is delivered, nothing that works stops working. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { addressBytes } from '../../../../src/model/address.js';
import { Endpoint } from '../../../../src/tunnel/wireguard/endpoint.js';
import { Pair } from './lib/pair.js';
import { Seeded } from './lib/seeded.js';

const stranger = Endpoint.of('198.51.100.1', 1);

function connected(): Pair {
  const pair = new Pair();
  pair.connect();
  return pair;
}

/** Each direction still works, and the session is the one that it was. */
function assertWorking(pair: Pair): void {
  const handshakes = pair.bob.device.counters.handshakes;
  const ids = [pair.send(pair.alice), pair.send(pair.bob)];
  pair.run(100);
  assert.deepEqual([pair.take(pair.bob), pair.take(pair.alice)], [[ids[0]], [ids[1]]]);
  assert.equal(pair.bob.device.counters.handshakes, handshakes);
}

/** Datagrams of every kind, as they are sent. */
function recorded(): Uint8Array[] {
  const pair = new Pair();
  pair.send(pair.alice);
  pair.run(1000);
  pair.send(pair.bob, 200);
  return pair.network.sent.map(({ bytes }) => bytes);
}

test('every type at every length, with random bytes behind the type', () => {
  const pair = connected();
  const random = new Seeded(3);
  for (const type of [0, 1, 2, 3, 4, 5, 255]) {
    for (let length = 0; length <= 300; length++) {
      const message = random.bytes(length);
      message.set([type, 0, 0, 0].slice(0, length));
      pair.bob.receive(message, stranger);
    }
  }
  assert.deepEqual(pair.bob.delivered, []);
  assertWorking(pair);
});

test('every datagram of a session cut at every length, and with every bit wrong', () => {
  for (const bytes of recorded()) {
    const pair = connected();
    for (let length = 0; length < bytes.length; length++) pair.bob.receive(bytes.slice(0, length), stranger);
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const copy = bytes.slice();
      copy[bit >> 3] = (copy[bit >> 3] as number) ^ (1 << (bit & 7));
      pair.bob.receive(copy, stranger);
    }
    assert.deepEqual(pair.bob.delivered, []);
    assertWorking(pair);
  }
});

test('transport messages for the right session, wrong in every bit and at every length', () => {
  const pair = connected();
  // It does not come, so that its counter stays fresh.
  pair.network.isDown = true;
  pair.send(pair.alice, 100);
  pair.network.isDown = false;
  const [datagram] = pair.sentBy(pair.alice);
  assert.ok(datagram);
  const { endpoint } = pair.bob.device.status().peers[0] ?? {};
  for (let bit = 0; bit < datagram.bytes.length * 8; bit++) {
    const copy = datagram.bytes.slice();
    copy[bit >> 3] = (copy[bit >> 3] as number) ^ (1 << (bit & 7));
    pair.bob.receive(copy, stranger);
  }
  for (let length = 0; length < datagram.bytes.length; length++)
    pair.bob.receive(datagram.bytes.slice(0, length), stranger);
  assert.deepEqual(pair.bob.delivered, []);
  assert.deepEqual(pair.bob.device.status().peers[0]?.endpoint, endpoint, 'what is not authentic moves nobody');
  pair.bob.receive(datagram.bytes, pair.alice.endpoint);
  assert.equal(pair.take(pair.bob).length, 1, 'and takes nothing from what is');
  assertWorking(pair);
});

test('a handshake in the middle of damaged copies of its own messages comes to its end', () => {
  const pair = new Pair({ bobIsServer: true });
  const random = new Seeded(5);
  for (const host of [pair.alice, pair.bob]) {
    const transmit = host.transmit;
    host.transmit = (bytes, from, to) => {
      for (let copies = 0; copies < 5; copies++) {
        const copy = bytes.slice();
        // Not in mac2, which nobody looks at without load.
        const at = random.integer(Math.max(1, copy.length - 16));
        copy[at] = (copy[at] as number) ^ (1 + random.integer(255));
        transmit(copy, from, to);
      }
      transmit(bytes, from, to);
    };
  }
  const id = pair.send(pair.alice);
  pair.run(100);
  assert.deepEqual(pair.take(pair.bob), [id]);
});

test('random datagrams of any length', () => {
  const pair = connected();
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400, size: 'max' }), fc.integer({ min: 0, max: 5 }), (bytes, type) => {
      const message = bytes.slice();
      message.set([type, 0, 0, 0].slice(0, message.length));
      pair.bob.receive(message, stranger);
      assert.deepEqual(pair.bob.delivered, []);
    }),
    { numRuns: 2000 },
  );
  assertWorking(pair);
});

test('any bytes in a packet of the peer are delivered up to where the packet says that it ends, or not at all', () => {
  const pair = connected();
  const peer = pair.alice.device.peerFor(...toBob(pair));
  assert.ok(peer);
  const first = fc.constantFrom(0x45, 0x60, 0x50);
  let delivered = 0;
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 200, size: 'max' }),
      first,
      fc.nat({ max: 220 }),
      (bytes, version, says) => {
        const packet = new Uint8Array(Math.max(bytes.length, 40));
        packet.set(bytes);
        new DataView(packet.buffer).setUint16(version === 0x60 ? 4 : 2, says);
        packet[0] = version;
        packet.set(addressBytes(version === 0x60 ? 'fd00::1' : '10.0.0.1'), version === 0x60 ? 8 : 12);
        pair.alice.memory.set(packet, PACKET);
        const length = pair.alice.device.seal(peer, PACKET, bytes.length, DATAGRAM, pair.alice.nowMs);
        pair.bob.receive(pair.alice.memory.slice(DATAGRAM, DATAGRAM + length), pair.alice.endpoint);
        const padded = length - 32;
        const [header, total] = version === 0x60 ? [40, 40 + says] : [20, says];
        const isPacket = version !== 0x50 && padded >= header && total >= header && total <= padded;
        const expected = new Uint8Array(isPacket ? total : 0);
        expected.set(packet.subarray(0, Math.min(bytes.length, expected.length)));
        assert.deepEqual(pair.bob.delivered.splice(0), isPacket ? [expected] : []);
        delivered += isPacket ? 1 : 0;
      },
    ),
    { numRuns: 1000 },
  );
  assert.ok(delivered > 50, `${delivered}`);
  assertWorking(pair);
});

const PACKET = 66_000;
const DATAGRAM = 68_000;

function toBob(pair: Pair): [number, number] {
  pair.alice.memory.set([0x45, 0, 0, 20], PACKET);
  pair.alice.memory.set([10, 0, 0, 2], PACKET + 16);
  return [PACKET, 20];
}

/** Packets through a session: padding, what is delivered and what is counted instead, roaming, memory that is not ours. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { nodeCipherSuite } from '../../../../src/tunnel/wireguard/cipher-suite.js';
import { Device } from '../../../../src/tunnel/wireguard/device.js';
import { Endpoint } from '../../../../src/tunnel/wireguard/endpoint.js';
import { MAX_PACKET_BYTES } from '../../../../src/tunnel/wireguard/outbound.js';
import { ipPacket } from './lib/packets.js';
import { KEEPALIVE, kindOf, Pair } from './lib/pair.js';

/** Somewhere in a host's memory that the host itself does not use at that moment. */
const PACKET = 66_000;
const DATAGRAM = 68_000;

function connected(): Pair {
  const pair = new Pair();
  pair.connect();
  return pair;
}

/** Seals in alice's memory, as a driver does. */
function seal(pair: Pair, packet: Uint8Array, from = PACKET, to = DATAGRAM): number {
  const { alice } = pair;
  alice.memory.set(packet, from);
  const peer = alice.device.peerFor(from, packet.length);
  assert.ok(peer);
  return alice.device.seal(peer, from, packet.length, to, alice.nowMs);
}

const toBob = (length: number): Uint8Array => ipPacket('10.0.0.1', '10.0.0.2', 7, length);

test('a packet is padded to a multiple of 16, but not beyond the MTU', () => {
  const pair = connected();
  for (const [length, mtu, expected] of [
    [20, 1420, 32],
    [32, 1420, 32],
    [33, 1420, 48],
    [1409, 1420, 1420],
    [1420, 1420, 1420],
  ] as const) {
    pair.alice.device.mtu = mtu;
    assert.equal(seal(pair, toBob(length)), 16 + expected + 16, `${length} of ${mtu}`);
  }
  pair.alice.device.mtu = 100;
  assert.equal(seal(pair, toBob(101)), 16 + 101 + 16);
});

test('sealing changes nothing but the datagram, apart or in place', () => {
  fc.assert(
    fc.property(fc.integer({ min: 20, max: 200 }), fc.boolean(), (length, isInPlace) => {
      const pair = shared;
      const { memory } = pair.alice;
      memory.fill(0xa5, PACKET - 100, DATAGRAM + 500);
      const to = isInPlace ? PACKET - 16 : DATAGRAM;
      memory.set(toBob(length), PACKET);
      const before = memory.slice();
      const bytes = seal(pair, toBob(length), PACKET, to);
      const datagram = memory.slice(to, to + bytes);
      before.set(datagram, to);
      assert.ok(
        Buffer.compare(memory.subarray(PACKET - 100, DATAGRAM + 500), before.subarray(PACKET - 100, DATAGRAM + 500)) ===
          0,
      );
      pair.bob.receive(datagram, pair.alice.endpoint);
      assert.deepEqual(pair.bob.delivered.pop(), toBob(length), 'without its padding');
    }),
  );
});

const shared = connected();

test('padding is zeros, whatever was behind the packet', () => {
  const pair = connected();
  pair.alice.memory.fill(0xa5, PACKET, DATAGRAM);
  const bytes = seal(pair, toBob(33));
  pair.bob.memory.set(pair.alice.memory.subarray(DATAGRAM, DATAGRAM + bytes), DATAGRAM);
  assert.equal(pair.bob.device.open(DATAGRAM, bytes, PACKET, pair.bob.nowMs), 33);
  assert.deepEqual(pair.bob.memory.slice(PACKET + 33, PACKET + 48), new Uint8Array(15));
});

test('the header is type 4, the receiver index and a counter that goes up by one', () => {
  const pair = connected();
  const headers = [0, 1, 2].map(() => {
    seal(pair, toBob(20));
    return Buffer.from(pair.alice.memory.slice(DATAGRAM, DATAGRAM + 16));
  });
  assert.deepEqual(
    headers.map((header) => header.readUInt32LE(0)),
    [4, 4, 4],
  );
  assert.equal(new Set(headers.map((header) => header.readUInt32LE(4))).size, 1);
  assert.deepEqual(
    headers.map((header) => Number(header.readBigUInt64LE(8))),
    [1, 2, 3],
    'the first was of connect()',
  );
});

test('a counter above 2^32 has its upper half in the header and in the nonce', () => {
  const pair = connected();
  const peer = pair.alice.device.peerFor(...at(pair, toBob(20)));
  assert.ok(peer?.current);
  for (const counter of [2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 45 + 3, 2 ** 52]) {
    peer.current.sendCounter = counter;
    const bytes = seal(pair, toBob(20));
    const datagram = Buffer.from(pair.alice.memory.slice(DATAGRAM, DATAGRAM + bytes));
    assert.equal(datagram.readBigUInt64LE(8), BigInt(counter));
    pair.bob.receive(datagram, pair.alice.endpoint);
    assert.equal(pair.bob.delivered.length, 1);
    pair.bob.delivered.length = 0;
  }
});

test('the same datagram is delivered once, and any order will do', () => {
  const pair = connected();
  const datagrams = Array.from({ length: 50 }, (_, id) => {
    const bytes = seal(pair, ipPacket('10.0.0.1', '10.0.0.2', id));
    return pair.alice.memory.slice(DATAGRAM, DATAGRAM + bytes);
  });
  for (const datagram of [...datagrams.reverse(), ...datagrams]) pair.bob.receive(datagram, pair.alice.endpoint);
  assert.deepEqual(
    pair.take(pair.bob),
    Array.from({ length: 50 }, (_, index) => 49 - index),
  );
  assert.equal(pair.bob.device.counters.replayed, 50);
});

test("what comes from an address that is not the peer's is not delivered", () => {
  const pair = connected();
  for (const packet of [ipPacket('10.0.0.3', '10.0.0.2', 1), ipPacket('fd00::3', 'fd00::2', 1)]) {
    pair.network.now(pair.alice, (host) => host.send(packet));
  }
  pair.run(100);
  assert.deepEqual(pair.take(pair.bob), []);
  assert.equal(pair.bob.device.counters.notAllowed, 2);
  pair.network.now(pair.alice, (host) => host.send(ipPacket('fd00::1', 'fd00::2', 5, 80)));
  pair.run(100);
  assert.deepEqual(pair.take(pair.bob), [5]);
});

test('what is no IP packet, or says that it is longer than it is, is not delivered', () => {
  const pair = connected();
  const wrong = [
    Uint8Array.of(0x45, 0),
    new Uint8Array(40).fill(0x50),
    with16(toBob(60), 2, 93),
    with16(toBob(60), 2, 19),
    with16(ipPacket('fd00::1', 'fd00::2', 1, 60), 4, 60),
    ipPacket('fd00::1', 'fd00::2', 1, 60).subarray(0, 39),
  ];
  for (const packet of wrong) {
    // Alice's own peerFor() would not take them all.
    const peer = pair.alice.device.peerFor(...at(pair, toBob(20)));
    assert.ok(peer);
    pair.alice.memory.set(packet, PACKET);
    const bytes = pair.alice.device.seal(peer, PACKET, packet.length, DATAGRAM, pair.alice.nowMs);
    pair.bob.receive(pair.alice.memory.slice(DATAGRAM, DATAGRAM + bytes), pair.alice.endpoint);
  }
  assert.deepEqual(pair.take(pair.bob), []);
  assert.equal(pair.bob.device.counters.badPacket, wrong.length);
});

test('a packet that says that it is shorter than it is comes out shorter', () => {
  const pair = connected();
  pair.network.now(pair.alice, (host) => host.send(with16(toBob(100), 2, 60)));
  pair.run(100);
  assert.equal(pair.bob.delivered[0]?.length, 60);
});

test('peerFor() knows the destinations of both families, and nobody for what is no IP packet', () => {
  const pair = connected();
  const known = [toBob(20), ipPacket('fd00::1', 'fd00::2', 1, 40)];
  for (const packet of known) assert.ok(pair.alice.device.peerFor(...at(pair, packet)));
  const unknown = [ipPacket('10.0.0.1', '10.0.0.3', 1), ipPacket('fd00::1', 'fd00::3', 1), new Uint8Array(60)];
  for (const packet of unknown) assert.equal(pair.alice.device.peerFor(...at(pair, packet)), undefined);
  for (const packet of known) {
    for (let length = 0; length < packet.length; length++) {
      assert.equal(pair.alice.device.peerFor(at(pair, packet)[0], length), undefined, `${length}`);
    }
  }
});

test('a peer that speaks from elsewhere is answered there', () => {
  const pair = connected();
  pair.network.move(pair.alice, Endpoint.of('2001:db8::77', 4000));
  pair.send(pair.alice);
  pair.run(100);
  assert.equal(pair.take(pair.bob).length, 1);
  const id = pair.send(pair.bob);
  pair.run(100);
  assert.deepEqual(pair.take(pair.alice), [id]);
  assert.deepEqual(pair.bob.device.status().peers[0]?.endpoint, { address: '2001:db8::77', port: 4000 });
});

test('a keepalive, and a packet that is refused, show where the peer is as well; a replay does not', () => {
  const pair = connected();
  const keepalive = pair.alice.device;
  pair.alice.configure({ peers: [{ publicKey: pair.bob.publicKey, persistentKeepaliveSeconds: 5 }] });
  keepalive.tick(pair.alice.nowMs);
  pair.alice.flush();
  const [datagram] = pair.sentBy(pair.alice);
  assert.ok(datagram && kindOf(datagram) === KEEPALIVE);
  const seen = (): number | undefined => pair.bob.device.status().peers[0]?.endpoint?.port;
  pair.bob.receive(datagram.bytes, Endpoint.of('192.0.2.1', 7777));
  assert.equal(seen(), 7777);
  pair.bob.receive(datagram.bytes, Endpoint.of('192.0.2.1', 8888));
  assert.equal(seen(), 7777);
  const bytes = seal(pair, ipPacket('10.9.9.9', '10.0.0.2', 1));
  pair.bob.receive(pair.alice.memory.slice(DATAGRAM, DATAGRAM + bytes), Endpoint.of('192.0.2.1', 9999));
  assert.equal(seen(), 9999);
});

test('bytes are counted as they are on the wire', () => {
  const pair = new Pair({ bobIsServer: true });
  pair.send(pair.alice, 60);
  pair.run(5000);
  const [ofAlice, ofBob] = [pair.alice, pair.bob].map((host) => host.device.status().peers[0]);
  const data = 16 + 64 + 16;
  assert.deepEqual([ofAlice?.sentBytes, ofBob?.receivedBytes], [148 + data, 148 + data]);
  assert.deepEqual([ofAlice?.receivedBytes, ofBob?.sentBytes], [92, 92]);
});

test('the longest packet makes the longest datagram there is, and a longer one none', () => {
  const memory = new Uint8Array(400_000);
  const device = new Device({ ciphers: nodeCipherSuite(memory), scratch: 200_000, mtu: 65_535 });
  const pair = connected();
  device.configure({ privateKey: new Uint8Array(32).fill(0x41), peers: [pair.bob.asPeer(['10.0.0.2'])] }, 0);
  memory.set(toBob(20));
  const peer = device.peerFor(0, 20);
  assert.ok(peer);
  for (const length of [0, -1, MAX_PACKET_BYTES + 1]) assert.equal(device.seal(peer, 0, length, 100_000, 0), 0);
  assert.equal(device.counters.malformed, 3);
  assert.equal(device.counters.staged, 0);
  device.seal(peer, 0, MAX_PACKET_BYTES, 100_000, 0);
  assert.equal(device.counters.staged, 1);
});

test('a peer that has been removed is sent nothing', () => {
  const pair = connected();
  const peer = pair.alice.device.peerFor(...at(pair, toBob(20)));
  assert.ok(peer);
  pair.alice.configure({ peers: [{ publicKey: pair.bob.publicKey, remove: true }] });
  peer.roam(pair.bob.endpoint);
  assert.equal(peer.endpoint, undefined);
  assert.equal(pair.alice.device.seal(peer, PACKET, 20, DATAGRAM, pair.alice.nowMs), 0);
  assert.equal(peer.staged.length, 0);
  assert.equal(pair.alice.device.peerFor(...at(pair, toBob(20))), undefined);
  assert.deepEqual(pair.alice.device.outbox, []);
  assert.equal(pair.alice.device.nextDeadlineMs, Number.POSITIVE_INFINITY);
  assert.equal(pair.alice.record.live, 0);
});

function at(pair: Pair, packet: Uint8Array): [number, number] {
  pair.alice.memory.set(packet, PACKET);
  return [PACKET, packet.length];
}

function with16(packet: Uint8Array, offset: number, value: number): Uint8Array {
  new DataView(packet.buffer).setUint16(offset, value);
  return packet;
}

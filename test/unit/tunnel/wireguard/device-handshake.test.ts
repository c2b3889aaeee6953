/** Handshakes between two devices: who begins, who answers, what is refused (WireGuard paper, sections 5.4 and 6). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Host } from './lib/host.js';
import type { Datagram } from './lib/network.js';
import { ipPacket } from './lib/packets.js';
import { KEEPALIVE, kindOf, Pair } from './lib/pair.js';

const kinds = (datagrams: Datagram[]): string[] => datagrams.map(kindOf);

test('the first packet makes a handshake and comes through when it is done', () => {
  const pair = new Pair();
  const id = pair.send(pair.alice);
  pair.run(100);
  assert.deepEqual(pair.take(pair.bob), [id]);
  assert.deepEqual(kinds(pair.sentBy(pair.alice)), ['initiation', 'data']);
  assert.deepEqual(kinds(pair.sentBy(pair.bob)), ['response']);
  assert.equal(pair.alice.device.counters.handshakes, 1);
  assert.equal(pair.bob.device.counters.handshakes, 1);
});

test('all packets that wait come through in their order', () => {
  const pair = new Pair();
  const ids = Array.from({ length: 100 }, () => pair.send(pair.alice));
  pair.run(100);
  assert.deepEqual(pair.take(pair.bob), ids);
});

test('with nothing to say the initiator confirms the session with a keepalive', () => {
  const pair = new Pair({ more: { persistentKeepaliveSeconds: 25 } });
  pair.run(100);
  // Both begin at the same moment, because both have a keepalive to send, and both get through.
  assert.deepEqual(kinds(pair.sentBy(pair.alice)), ['initiation', 'response', KEEPALIVE]);
  assert.deepEqual(kinds(pair.sentBy(pair.bob)), ['initiation', 'response', KEEPALIVE]);
  for (const host of [pair.alice, pair.bob]) {
    assert.ok(host.device.status().peers[0]?.lastHandshakeMs);
    pair.send(host);
  }
  pair.run(100);
  assert.equal(pair.take(pair.alice).length, 1);
  assert.equal(pair.take(pair.bob).length, 1);
});

test('the responder does not send before it has heard from the initiator with the new keys', () => {
  const pair = new Pair({ bobIsServer: true });
  pair.send(pair.alice);
  pair.run(15);
  // The response is on its way.
  const waiting = pair.send(pair.bob);
  assert.deepEqual(kinds(pair.sentBy(pair.bob)), ['response']);
  pair.run(100);
  assert.deepEqual(kinds(pair.sentBy(pair.bob)), ['data']);
  assert.deepEqual(pair.take(pair.alice), [waiting]);
});

test('when that first packet is lost the responder begins a handshake itself, REKEY_TIMEOUT after its response', () => {
  const pair = new Pair({ bobIsServer: true });
  pair.send(pair.alice);
  pair.run(15);
  const waiting = pair.send(pair.bob);
  pair.network.later(19, () => {
    pair.network.isDown = true;
  });
  pair.run(1000);
  assert.deepEqual(kinds(pair.sentBy(pair.bob)), ['response']);
  pair.network.isDown = false;
  pair.run(3900);
  assert.deepEqual(pair.sentBy(pair.bob), []);
  pair.run(600);
  assert.deepEqual(pair.take(pair.alice), [waiting]);
});

test('two devices that begin at the same moment both get a session, and every packet through', () => {
  const pair = new Pair();
  const ids = [pair.send(pair.alice), pair.send(pair.bob)];
  pair.run(100);
  assert.deepEqual([pair.take(pair.bob), pair.take(pair.alice)], [[ids[0]], [ids[1]]]);
  for (let count = 0; count < 10; count++) {
    const [first, second] = [pair.send(pair.alice), pair.send(pair.bob)];
    pair.run(100);
    assert.deepEqual([pair.take(pair.bob), pair.take(pair.alice)], [[first], [second]]);
  }
});

test('a preshared key must be the same on both sides', () => {
  const same = new Pair({ more: { presharedKey: new Uint8Array(32).fill(1) } });
  same.connect();
  assert.equal(same.bob.device.counters.handshakes, 1);

  const different = new Pair();
  different.alice.configure({
    peers: [{ publicKey: different.bob.publicKey, presharedKey: new Uint8Array(32).fill(1) }],
  });
  different.send(different.alice);
  different.run(1000);
  assert.equal(different.alice.device.counters.badResponse, 1);
  assert.deepEqual(different.take(different.bob), []);
  different.bob.configure({
    peers: [{ publicKey: different.alice.publicKey, presharedKey: new Uint8Array(32).fill(1) }],
  });
  different.run(6000);
  assert.equal(different.take(different.bob).length, 1);
});

test('an initiation that was recorded is refused, and changes nothing', () => {
  const pair = new Pair();
  pair.send(pair.alice);
  pair.run(100);
  const [recorded] = pair.sentBy(pair.alice);
  assert.ok(recorded);
  pair.connect();
  for (const atMs of [0, 5000, 100_000]) {
    pair.run(atMs);
    pair.sentBy(pair.bob);
    const endpoint = pair.bob.device.status().peers[0]?.endpoint;
    pair.bob.receive(recorded.bytes.slice(), new Host('203.0.113.9').endpoint);
    assert.deepEqual(pair.sentBy(pair.bob), []);
    assert.deepEqual(pair.bob.device.status().peers[0]?.endpoint, endpoint);
  }
  assert.equal(pair.bob.device.counters.replayedInitiation, 3);
});

test('initiations of one peer are answered at most every 20 ms', () => {
  const pair = new Pair({ bobIsServer: true });
  pair.network.weather = { ...pair.network.weather, minDelayMs: 1, maxDelayMs: 1 };
  const initiations: Uint8Array[] = [];
  for (let count = 0; count < 3; count++) {
    // Alice forgets that she has sent one when her key is set anew.
    pair.alice.configure({ privateKey: new Uint8Array(32) });
    pair.alice.configure({ privateKey: pair.alice.privateKey });
    pair.alice.transmit = (bytes) => initiations.push(bytes);
    pair.alice.nowMs += 100;
    pair.alice.send(ipPacket('10.0.0.1', '10.0.0.2', 1));
  }
  assert.equal(initiations.length, 3);
  for (const [index, atMs] of [1000, 1019.9, 1020].entries()) {
    pair.bob.nowMs = atMs;
    pair.bob.receive(initiations[index]?.slice() ?? new Uint8Array(0), pair.alice.endpoint);
  }
  assert.equal(pair.bob.device.counters.hastyInitiation, 1);
  assert.equal(pair.bob.device.counters.responsesSent, 2);
});

test('a response comes too late when another initiation has been sent, or the session is there', () => {
  const pair = new Pair({ bobIsServer: true });
  pair.send(pair.alice);
  pair.run(100);
  const [response] = pair.sentBy(pair.bob);
  assert.ok(response);
  pair.alice.receive(response.bytes.slice(), pair.bob.endpoint);
  assert.equal(pair.alice.device.counters.badResponse, 1);

  const slow = new Pair({ bobIsServer: true });
  slow.network.weather = { ...slow.network.weather, minDelayMs: 6000, maxDelayMs: 6000 };
  slow.send(slow.alice);
  slow.run(13_000);
  assert.ok(slow.alice.device.counters.badResponse > 0);
  assert.equal(slow.alice.device.counters.handshakes, 0);
});

test('a stranger gets no answer', () => {
  const pair = new Pair();
  const stranger = new Host('198.51.100.1', 1, 5);
  stranger.configure({ peers: [pair.bob.asPeer(['10.0.0.2/32'])] });
  pair.network.add(stranger);
  pair.network.now(stranger, () => stranger.send(ipPacket('10.0.0.1', '10.0.0.2', 1)));
  pair.run(1000);
  assert.equal(pair.bob.device.counters.badInitiation, 1);
  assert.deepEqual(pair.sentBy(pair.bob), []);
});

test('a device without a key answers nothing and begins nothing', () => {
  const pair = new Pair();
  pair.bob.configure({ privateKey: new Uint8Array(32) });
  pair.send(pair.alice);
  pair.send(pair.bob);
  pair.run(10_000);
  assert.deepEqual(pair.sentBy(pair.bob), []);
  assert.equal(pair.bob.device.nextDeadlineMs, Number.POSITIVE_INFINITY);
});

test('what waited for an endpoint goes out when there is one', () => {
  const pair = new Pair({ bobIsServer: true });
  const id = pair.send(pair.bob);
  pair.run(10_000);
  assert.deepEqual(pair.network.sent, []);
  assert.equal(pair.bob.device.nextDeadlineMs, Number.POSITIVE_INFINITY, 'and it wakes nobody');
  const { address, port } = pair.alice.endpoint;
  pair.network.now(pair.bob, () =>
    pair.bob.configure({ peers: [{ publicKey: pair.alice.publicKey, endpoint: { address, port } }] }),
  );
  pair.run(1000);
  assert.deepEqual(pair.take(pair.alice), [id]);
});

test('a new private key ends every session; the same one again ends none', () => {
  const pair = new Pair();
  pair.connect();
  pair.alice.configure({ privateKey: pair.alice.privateKey.slice() });
  assert.equal(pair.alice.record.live, 2);
  pair.alice.configure({ privateKey: new Uint8Array(32).fill(0x41) });
  assert.equal(pair.alice.record.live, 0);
  pair.send(pair.alice);
  pair.run(1000);
  assert.equal(pair.bob.device.counters.badInitiation, 1);
  pair.alice.configure({ privateKey: pair.alice.privateKey });
  pair.run(1000);
  assert.equal(pair.take(pair.bob).length, 1, 'with the key that bob knows');
});

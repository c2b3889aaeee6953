/** What cannot be seen from outside of a device: that handshakes leave nothing behind. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Admission } from '../../../../src/tunnel/wireguard/admission.js';
import { nodeCipherSuite } from '../../../../src/tunnel/wireguard/cipher-suite.js';
import { Counters } from '../../../../src/tunnel/wireguard/counters.js';
import { Endpoint } from '../../../../src/tunnel/wireguard/endpoint.js';
import { Handshakes } from '../../../../src/tunnel/wireguard/handshakes.js';
import { IndexTable } from '../../../../src/tunnel/wireguard/index-table.js';
import { identityOf, staticSecretOf } from '../../../../src/tunnel/wireguard/noise.js';
import { Outbound, SCRATCH_BYTES } from '../../../../src/tunnel/wireguard/outbound.js';
import { Peer } from '../../../../src/tunnel/wireguard/peer.js';
import { Schedule } from '../../../../src/tunnel/wireguard/schedule.js';
import { StagingRoom } from '../../../../src/tunnel/wireguard/staged-packets.js';
import { Jitter } from '../../../../src/tunnel/wireguard/timers.js';
import { generatePrivateKey, publicKeyOf } from '../../../../src/tunnel/wireguard/x25519.js';
import { Seeded } from './lib/seeded.js';

/** One side of a handshake, and a peer of it that never answers. */
function oneSide() {
  const ciphers = nodeCipherSuite(new Uint8Array(SCRATCH_BYTES));
  const random = new Seeded(1).bytes;
  const indexes = new IndexTable<Peer>(random);
  const admission = new Admission(1);
  const outbound = new Outbound(ciphers, 0, 1420);
  const counters = new Counters();
  const peerOf = (): undefined => undefined;
  const wallClockMs = (): number => 1e12;
  const handshakes = new Handshakes({ ciphers, indexes, admission, outbound, counters, random, peerOf, wallClockMs });
  const identity = identityOf(generatePrivateKey());
  handshakes.setIdentity(identity);
  const peer = new Peer(publicKeyOf(generatePrivateKey()), {
    indexes,
    schedule: new Schedule(),
    jitter: new Jitter(1),
    stagingRoom: new StagingRoom(),
    known: admission.known,
  });
  peer.staticSecret = staticSecretOf(identity, peer.publicKey);
  peer.roam(Endpoint.of('192.0.2.1', 1));
  return { handshakes, indexes, outbound, peer, identity };
}

test('a new initiation takes the place of the one before, whose secrets are wiped', () => {
  const { handshakes, indexes, outbound, peer } = oneSide();
  handshakes.initiate(peer, 0);
  const first = peer.initiation;
  assert.ok(first?.ephemeral);
  for (let count = 1; count <= 10; count++) handshakes.initiate(peer, count * 5000);
  assert.equal(indexes.size, 1);
  assert.equal(outbound.outbox.length, 11);
  assert.equal(first.ephemeral, undefined);
  assert.deepEqual(first.chainingKey, new Uint8Array(32));
  peer.remove();
  assert.equal(indexes.size, 0);
});

test('timestamps of initiations grow, also while the wall clock stands still', () => {
  const { handshakes, outbound, peer } = oneSide();
  const timestamps: string[] = [];
  const next = peer.timestamps.next.bind(peer.timestamps);
  peer.timestamps.next = (wallClockMs) => {
    const timestamp = next(wallClockMs);
    timestamps.push(Buffer.from(timestamp).toString('hex'));
    return timestamp;
  };
  for (let count = 0; count < 50; count++) handshakes.initiate(peer, count * 5000);
  assert.equal(outbound.outbox.length, 50);
  assert.deepEqual(timestamps, [...new Set(timestamps)].sort());
});

test('a private key is zeroed when another takes its place', () => {
  const { handshakes, identity } = oneSide();
  assert.notDeepEqual(identity.privateKey, new Uint8Array(32));
  handshakes.setIdentity(identityOf(generatePrivateKey()));
  assert.deepEqual(identity.privateKey, new Uint8Array(32));
});

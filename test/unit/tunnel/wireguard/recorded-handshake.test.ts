/** The handshake with wireguard-go, from the bytes that went over the wire: lib/recorded.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { open, seal } from '../../../../src/tunnel/wireguard/aead.js';
import { MacChecker, MacSender } from '../../../../src/tunnel/wireguard/cookie.js';
import {
  consumeInitiation,
  consumeResponse,
  createInitiation,
  createResponse,
  identityOf,
  staticSecretOf,
} from '../../../../src/tunnel/wireguard/noise.js';
import { tai64n } from '../../../../src/tunnel/wireguard/tai64n.js';
import { keyPairOf, publicKeyOf } from '../../../../src/tunnel/wireguard/x25519.js';
import {
  ourPrivateKey,
  presharedKey,
  theirAddress,
  theirPrivateKey,
  theyAreUnderLoad,
  theyInitiate,
  weInitiate,
} from './lib/recorded.js';

const us = identityOf(ourPrivateKey);
const theirPublicKey = publicKeyOf(theirPrivateKey);
const nothing = new Uint8Array(0);

/** The 12 bytes of counter 0, and so the default nonce, are those of each first transport message here. */
function openTransport(key: Uint8Array, datagram: Uint8Array): Uint8Array | undefined {
  return open(key, datagram.subarray(16), nothing);
}

function ourInitiation() {
  const staticSecret = staticSecretOf(us, theirPublicKey);
  assert.ok(staticSecret);
  const { message, state } = createInitiation({
    identity: us,
    peerPublicKey: theirPublicKey,
    staticSecret,
    localIndex: weInitiate.ourIndex,
    timestamp: tai64n(weInitiate.wallClockMs),
    ephemeral: keyPairOf(weInitiate.ourEphemeral),
  });
  new MacSender(theirPublicKey).addMacs(message, 0);
  return { message, state };
}

test('the initiations of wireguard-go have a right mac1 and open', () => {
  const checker = new MacChecker(us.publicKey);
  for (const message of [theyInitiate.initiation, theyInitiate.initiationWithMac2]) {
    assert.equal(checker.hasMac1(message), true);
    assert.deepEqual(consumeInitiation(us, message)?.peerPublicKey, theirPublicKey);
  }
});

test('its timestamp is what tai64n() makes of the time it was sent', () => {
  const initiation = consumeInitiation(us, theyInitiate.initiationWithMac2);
  assert.deepEqual(initiation?.timestamp, theyInitiate.timestamp);
  const seconds = (label: Uint8Array) => Number(Buffer.from(label).readBigUInt64BE() - 2n ** 62n);
  const expected = seconds(tai64n(theyInitiate.arrivedAtS * 1000));
  assert.ok(Math.abs(seconds(theyInitiate.timestamp) - expected) <= 10);
  assert.deepEqual([...theyInitiate.timestamp.subarray(9)], [0, 0, 0], 'whitened as ours are');
});

test('our cookie reply is the one that made it send a mac2, which is right', () => {
  const random = [theyInitiate.cookieNonce, theyInitiate.cookieSecret];
  const checker = new MacChecker(us.publicKey, () => Uint8Array.from(random.shift() ?? []));
  const reply = checker.cookieReply(theyInitiate.initiation, theirAddress, 0);
  assert.deepEqual(reply, theyInitiate.ourCookieReply);
  assert.equal(checker.hasMac2(theyInitiate.initiation, theirAddress, 1), false);
  assert.equal(checker.hasMac2(theyInitiate.initiationWithMac2, theirAddress, 1), true);
});

test('our response is the one it took, and its keepalive opens with our keys', () => {
  const initiation = consumeInitiation(us, theyInitiate.initiationWithMac2);
  assert.ok(initiation);
  assert.equal(initiation.senderIndex, theyInitiate.theirIndex);
  const { ourIndex, ourEphemeral, keepalive } = theyInitiate;
  const { message, keys } = createResponse(initiation.state, presharedKey, ourIndex, keyPairOf(ourEphemeral));
  new MacSender(theirPublicKey).addMacs(message, 0);
  assert.deepEqual(message, theyInitiate.ourResponse);
  assert.deepEqual(openTransport(keys.receiving, keepalive), nothing);
  assert.equal(openTransport(keys.sending, keepalive), undefined);
});

test('our initiation is the one it answered, its response is right, and packets go both ways', () => {
  const { message, state } = ourInitiation();
  assert.deepEqual(message, weInitiate.ourInitiation);
  assert.equal(new MacChecker(us.publicKey).hasMac1(weInitiate.response), true);
  const done = consumeResponse(state, us, presharedKey, weInitiate.response);
  assert.ok(done);
  assert.equal(done.remoteIndex, weInitiate.theirIndex);
  assert.deepEqual(seal(done.keys.sending, nothing, nothing), weInitiate.ourKeepalive.slice(16));
  assert.deepEqual(openTransport(done.keys.receiving, weInitiate.packet), weInitiate.packetOpened);
  assert.match(Buffer.from(weInitiate.packetOpened).toString('latin1'), /hello/);
});

test('its response is refused with another preshared key', () => {
  const { state } = ourInitiation();
  assert.equal(consumeResponse(state, us, new Uint8Array(32), weInitiate.response), undefined);
});

test('its cookie is taken, and gives the mac2 it wanted', () => {
  const sender = new MacSender(theirPublicKey);
  const first = theyAreUnderLoad.ourInitiation.slice().fill(0, 116);
  sender.addMacs(first, 0);
  assert.deepEqual(first, theyAreUnderLoad.ourInitiation);
  assert.equal(sender.takeCookieReply(theyAreUnderLoad.cookieReply, 0), true);
  const second = theyAreUnderLoad.ourInitiationWithMac2.slice().fill(0, 116);
  sender.addMacs(second, 1);
  assert.deepEqual(second, theyAreUnderLoad.ourInitiationWithMac2);
});

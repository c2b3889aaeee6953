/** The handshake between two of ours. Against another implementation: recorded-handshake.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MacChecker, MacSender } from '../../../../src/tunnel/wireguard/cookie.js';
import {
  type ConsumedInitiation,
  consumeInitiation,
  consumeResponse,
  createInitiation,
  createResponse,
  identityOf,
  staticSecretOf,
  wipe,
} from '../../../../src/tunnel/wireguard/noise.js';
import { tai64n } from '../../../../src/tunnel/wireguard/tai64n.js';
import { generatePrivateKey } from '../../../../src/tunnel/wireguard/x25519.js';

const alice = identityOf(generatePrivateKey());
const bob = identityOf(generatePrivateKey());
const carol = identityOf(generatePrivateKey());
const timestamp = tai64n(1_700_000_000_000);
const none = new Uint8Array(32);

function secretOf(identity: typeof alice, publicKey: Uint8Array): Uint8Array {
  const secret = staticSecretOf(identity, publicKey);
  assert.ok(secret);
  return secret;
}

function initiate(localIndex = 0xfedc_ba98) {
  const staticSecret = secretOf(alice, bob.publicKey);
  const initiation = createInitiation({
    identity: alice,
    peerPublicKey: bob.publicKey,
    staticSecret,
    localIndex,
    timestamp,
  });
  return { ...initiation, staticSecret };
}

function consumed(message: Uint8Array): ConsumedInitiation {
  const initiation = consumeInitiation(bob, message);
  assert.ok(initiation);
  return initiation;
}

const flipped = (message: Uint8Array, bit: number): Uint8Array => {
  const copy = message.slice();
  copy[bit >> 3] = (copy[bit >> 3] as number) ^ (1 << (bit & 7));
  return copy;
};

const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0);

test('a handshake gives both sides the same two keys, crosswise, and each the other index', () => {
  const presharedKey = generatePrivateKey();
  const { message, state } = initiate();
  const initiation = consumed(message);
  assert.deepEqual(initiation.peerPublicKey, alice.publicKey);
  assert.deepEqual(initiation.timestamp, timestamp);
  assert.equal(initiation.senderIndex, 0xfedc_ba98);

  const response = createResponse(initiation.state, presharedKey, 0x8123_4567);
  const done = consumeResponse(state, alice, presharedKey, response.message);
  assert.ok(done);
  assert.equal(done.remoteIndex, 0x8123_4567);
  assert.deepEqual(done.keys.sending, response.keys.receiving);
  assert.deepEqual(done.keys.receiving, response.keys.sending);
  assert.notDeepEqual(done.keys.sending, done.keys.receiving);
  assert.equal(done.keys.sending.length, 32);
});

test('no two handshakes have a key in common', () => {
  const keys = Array.from({ length: 3 }, () => createResponse(consumed(initiate().message).state, none, 1).keys);
  const all = keys.flatMap(({ sending, receiving }) => [sending, receiving]);
  assert.equal(new Set(all.map((key) => Buffer.from(key).toString('hex'))).size, 6);
});

test('both messages go out with the macs zero, for MacSender to fill in', () => {
  const { message } = initiate();
  assert.ok(isZero(message.subarray(116)));
  assert.ok(isZero(createResponse(consumed(message).state, none, 1).message.subarray(60)));
});

test('an initiation says nothing of the initiator and the time in clear', () => {
  const text = Buffer.from(initiate().message).toString('hex');
  assert.ok(!text.includes(Buffer.from(alice.publicKey).toString('hex')));
  assert.ok(!text.includes(Buffer.from(timestamp).toString('hex')));
});

test('an initiation to another responder is not opened', () => {
  assert.equal(consumeInitiation(carol, initiate().message), undefined);
});

test('consumeInitiation() asks for the static secret of the claimed peer and drops a stranger', () => {
  const { message } = initiate();
  const asked: Uint8Array[] = [];
  const opened = consumeInitiation(bob, message, (publicKey) => {
    asked.push(publicKey);
    return undefined;
  });
  assert.equal(opened, undefined);
  assert.deepEqual(asked, [alice.publicKey]);
});

test('consumeInitiation() does not believe a public key without its private key', () => {
  // Carol claims to be Alice: she has no DH of Alice's private key and Bob's.
  const forged = createInitiation({
    identity: { privateKey: carol.privateKey, publicKey: alice.publicKey },
    peerPublicKey: bob.publicKey,
    staticSecret: secretOf(carol, bob.publicKey),
    localIndex: 1,
    timestamp,
  });
  assert.equal(
    consumeInitiation(bob, forged.message, () => secretOf(bob, alice.publicKey)),
    undefined,
  );
});

test('consumeInitiation() gives undefined for an ephemeral or a static key of low order', () => {
  const { message } = initiate();
  message.fill(0, 8, 40);
  assert.equal(consumeInitiation(bob, message), undefined);

  const lowOrder = createInitiation({
    identity: { privateKey: carol.privateKey, publicKey: none },
    peerPublicKey: bob.publicKey,
    staticSecret: none,
    localIndex: 1,
    timestamp,
  });
  assert.equal(consumeInitiation(bob, lowOrder.message), undefined);
});

test('staticSecretOf() refuses a public key of low order', () => {
  assert.equal(staticSecretOf(alice, none), undefined);
});

test('the static secret that was lent stays as it was', () => {
  const { message, staticSecret } = initiate();
  const lent = Buffer.from(secretOf(bob, alice.publicKey));
  assert.ok(consumeInitiation(bob, message, () => lent));
  assert.deepEqual(new Uint8Array(lent), staticSecret);
  assert.deepEqual(staticSecret, secretOf(alice, bob.publicKey));
});

test('what was opened does not change with the buffer it came in', () => {
  const { message, state } = initiate();
  const datagram = Buffer.from(message);
  const initiation = consumed(datagram);
  datagram.fill(0xff);
  const response = createResponse(initiation.state, none, 7);
  assert.ok(consumeResponse(state, alice, none, Buffer.from(response.message)));
});

test('a response is refused with another preshared key, by another initiator and for another index', () => {
  const { message, state } = initiate();
  const response = createResponse(consumed(message).state, generatePrivateKey(), 1).message;
  assert.equal(consumeResponse(state, alice, none, response), undefined);

  const right = createResponse(consumed(message).state, none, 1).message;
  assert.equal(consumeResponse(state, carol, none, right), undefined);
  assert.equal(consumeResponse(initiate().state, alice, none, right), undefined);
  assert.equal(consumeResponse({ ...state, localIndex: 5 }, alice, none, right), undefined);
  assert.ok(consumeResponse(state, alice, none, right));
});

test('a response from another than the one initiated to is refused', () => {
  // Carol has seen Alice's initiation to Bob, and knows everything but Bob's private key.
  const { message, state } = initiate();
  const { state: bobs } = consumed(message);
  const forged = createResponse({ ...bobs, chainingKey: carol.publicKey }, none, 1);
  assert.equal(consumeResponse(state, alice, none, forged.message), undefined);
});

test('a wrong response does not spoil the state for the right one', () => {
  const { message, state } = initiate();
  const right = createResponse(consumed(message).state, none, 1).message;
  const lowOrder = right.slice().fill(0, 12, 44);
  assert.equal(consumeResponse(state, alice, none, lowOrder), undefined);
  assert.equal(consumeResponse(state, alice, none, flipped(right, 8 * 50)), undefined);
  assert.ok(consumeResponse(state, alice, none, right));
});

test('wipe() zeroes the secrets of every state, and a wiped initiator takes no response', () => {
  const { message, state } = initiate();
  const initiation = consumed(message);
  const { message: response, keys } = createResponse(initiation.state, none, 1);
  for (const wiped of [state, initiation.state, keys]) {
    wipe(wiped);
    wipe(wiped);
  }
  for (const secret of [state.chainingKey, state.hash, initiation.state.chainingKey, keys.sending, keys.receiving]) {
    assert.ok(isZero(secret));
  }
  assert.equal(state.ephemeral, undefined);
  assert.equal(consumeResponse(state, alice, none, response), undefined);
});

test('wiping one handshake leaves the next as it should be', () => {
  const first = initiate();
  wipe(first.state);
  wipe(consumed(first.message).state);
  const second = initiate();
  const response = createResponse(consumed(second.message).state, none, 1);
  wipe(first.state);
  assert.ok(consumeResponse(second.state, alice, none, response.message));
});

test('a preshared key or timestamp of another length is a mistake of the caller', () => {
  const { message } = initiate();
  assert.throws(() => createResponse(consumed(message).state, new Uint8Array(31), 1), RangeError);
  const short = { timestamp: new Uint8Array(8), staticSecret: none, localIndex: 1 };
  assert.throws(() => createInitiation({ identity: alice, peerPublicKey: bob.publicKey, ...short }), RangeError);
});

test('every flipped bit of an initiation is refused by mac1 or by the handshake, but for those of mac2', () => {
  const { message } = initiate();
  new MacSender(bob.publicKey).addMacs(message, 0);
  const checker = new MacChecker(bob.publicKey);
  for (let bit = 0; bit < message.length * 8; bit++) {
    const copy = flipped(message, bit);
    assert.equal(checker.hasMac1(copy), bit >= 132 * 8, `mac1, bit ${bit}`);
    // The sender index is nobody's but mac1's: whoever changes it gets the response nowhere. Macs are not of the handshake.
    const isOutside = (bit >= 4 * 8 && bit < 8 * 8) || bit >= 116 * 8;
    assert.equal(consumeInitiation(bob, copy) !== undefined, isOutside, `handshake, bit ${bit}`);
  }
});

test('every flipped bit of a response is refused by mac1 or by the handshake, but for those of mac2', () => {
  const { message, state } = initiate();
  const response = createResponse(consumed(message).state, none, 1).message;
  new MacSender(alice.publicKey).addMacs(response, 0);
  const checker = new MacChecker(alice.publicKey);
  for (let bit = 0; bit < response.length * 8; bit++) {
    const copy = flipped(response, bit);
    assert.equal(checker.hasMac1(copy), bit >= 76 * 8, `mac1, bit ${bit}`);
    const isOutside = (bit >= 4 * 8 && bit < 8 * 8) || bit >= 60 * 8;
    assert.equal(consumeResponse(state, alice, none, copy) !== undefined, isOutside, `handshake, bit ${bit}`);
  }
});

test('an initiation or response of any other length up to twice its own is refused', () => {
  const { message, state } = initiate();
  const response = createResponse(consumed(message).state, none, 1).message;
  for (let size = 0; size <= 2 * message.length; size++) {
    const resized = new Uint8Array(size);
    resized.set(message.subarray(0, size));
    assert.equal(consumeInitiation(bob, resized) !== undefined, size === 148, `initiation of ${size}`);
    resized.fill(0).set(response.subarray(0, size));
    assert.equal(consumeResponse(state, alice, none, resized) !== undefined, size === 92, `response of ${size}`);
  }
});

test('garbage behind the right first bytes is refused without an exception', () => {
  const { state } = initiate(9);
  const index = [9, 0, 0, 0];
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 148, maxLength: 148 }), (garbage) => {
      garbage.set([1, 0, 0, 0]);
      assert.equal(consumeInitiation(bob, garbage), undefined);
      const response = garbage.slice(0, 92);
      response.set([2, 0, 0, 0, 0, 0, 0, 0, ...index]);
      assert.equal(consumeResponse(state, alice, none, response), undefined);
    }),
  );
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { blake2s } from '@noble/hashes/blake2.js';
import fc from 'fast-check';
import { Mac } from '../../../../src/tunnel/wireguard/keyed-blake2s.js';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const counting = (length: number): Uint8Array => Uint8Array.from({ length }, (_, index) => index);

// golang/crypto, blake2s/blake2s_test.go, hashes128: key 00 01 .. 1f, message 00 01 .. of the length in front.
const VECTORS: [length: number, mac: string][] = [
  [1, '13bacfb85b48a1223c595f8c1e7e82cb'],
  [2, 'd47a9b1645e2feae501cd5fe44ce6333'],
  [31, 'd114cc11e7d5b33a360c45f18d4c7c6e'],
  [32, 'c43b5e836af88620a8a71b1652cb8640'],
  [33, '9491c653e8867ed73c1b4ac6b5a9bb4d'],
  [63, 'ece382a8bd5018f1de5da44b72cea75b'],
  [64, 'f1efa90d2547036841ecd3627fafbc36'],
  [65, '811ff8686d23a435ecbd0bdafcd27b1b'],
  [127, '25887fab1422700d7fa3edc0b20206e2'],
  [128, '8c09f698d03eaf88abf69f8147865ef6'],
];

test('Mac gives the published BLAKE2s-128 MACs of messages around the block size', () => {
  const mac = new Mac(counting(32));
  for (const [length, expected] of VECTORS) assert.equal(hex(mac.of(counting(length))), expected, `${length} bytes`);
});

test('Mac agrees with another implementation for every key length and any part of a message', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 32 }),
      fc.uint8Array({ minLength: 1, maxLength: 300 }),
      fc.nat(40),
      (key, message, margin) => {
        const memory = new Uint8Array(message.length + 2 * margin).fill(0xee);
        memory.set(message, margin);
        const expected = hex(blake2s(message, { key, dkLen: 16 }));
        assert.equal(hex(new Mac(key).of(memory, margin, margin + message.length)), expected);
      },
    ),
  );
});

test('Mac is not changed by what it was used for', () => {
  const [one, two] = [new Mac(counting(32)), new Mac(counting(16))];
  const before = [one.of(counting(200)), two.of(counting(100))];
  assert.deepEqual([one.of(counting(200)), two.of(counting(100))], before);
});

test('matches() is true for the MAC behind the message and for nothing else', () => {
  const mac = new Mac(counting(32));
  const message = new Uint8Array(132);
  message.set(counting(116));
  message.set(mac.of(message, 0, 116), 116);
  assert.equal(mac.matches(message, 116), true);
  for (let bit = 0; bit < message.length * 8; bit++) {
    const flipped = message.slice();
    flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7));
    assert.equal(mac.matches(flipped, 116), false, `bit ${bit}`);
  }
});

test('matches() is false when the message ends before the MAC does', () => {
  const mac = new Mac(counting(32));
  const message = new Uint8Array(132);
  message.set(mac.of(message, 0, 116), 116);
  assert.equal(mac.matches(message, 116), true);
  for (let length = 116; length < 132; length++) assert.equal(mac.matches(message.slice(0, length), 116), false);
});

test('Mac refuses keys that BLAKE2s does not have', () => {
  assert.throws(() => new Mac(new Uint8Array(0)), RangeError);
  assert.throws(() => new Mac(new Uint8Array(33)), RangeError);
});

test('wipe() takes the key away', () => {
  const mac = new Mac(counting(32));
  const before = mac.of(counting(20));
  const other = new Mac(counting(31));
  mac.wipe();
  other.wipe();
  assert.notDeepEqual(mac.of(counting(20)), before);
  assert.deepEqual(mac.of(counting(20)), other.of(counting(20)));
});

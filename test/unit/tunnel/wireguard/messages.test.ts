import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  messageType,
  readU32,
  receiverIndex,
  senderIndex,
  writeU32,
} from '../../../../src/tunnel/wireguard/messages.js';

// The lengths of the paper, section 5.4, not those of constants.ts.
const LENGTHS = new Map([
  [1, 148],
  [2, 92],
  [3, 64],
]);

for (const [type, length] of LENGTHS) {
  test(`messageType() knows type ${type} at ${length} bytes and at no other length up to twice that`, () => {
    for (let size = 0; size <= 2 * length; size++) {
      const memory = new Uint8Array(size + 4);
      memory[0] = type;
      assert.equal(messageType(memory, 0, size), size === length ? type : undefined, `${size} bytes`);
    }
  });
}

test('messageType() knows a transport message at every length from 32 bytes', () => {
  for (let size = 0; size <= 100; size++) {
    const memory = new Uint8Array(size);
    if (size > 0) memory[0] = 4;
    assert.equal(messageType(memory, 0, size), size >= 32 ? 4 : undefined, `${size} bytes`);
  }
});

test('messageType() wants the three reserved bytes zero and the type one of four', () => {
  fc.assert(
    fc.property(fc.nat(255), fc.nat(255), fc.nat(255), fc.nat(255), (type, ...reserved) => {
      const memory = new Uint8Array(148);
      memory.set([type, ...reserved]);
      const isZero = reserved.every((byte) => byte === 0);
      assert.equal(messageType(memory, 0, 148), isZero && (type === 1 || type === 4) ? type : undefined);
    }),
    {
      examples: [
        [1, 0, 0, 0],
        [4, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 0, 1, 0],
        [1, 0, 0, 1],
        [4, 0, 0, 128],
        [0, 0, 0, 0],
      ],
    },
  );
});

test('messageType() finds the message at an offset and believes no length beyond the memory', () => {
  const memory = new Uint8Array(100);
  memory[7] = 3;
  assert.equal(messageType(memory, 7, 64), 3);
  assert.equal(messageType(memory, 8, 64), undefined);
  assert.equal(messageType(memory.subarray(0, 70), 7, 64), undefined);
  assert.equal(messageType(memory, -1, 64), undefined);
  assert.equal(messageType(memory, 1e9, 64), undefined);
});

test('readU32() and writeU32() are little-endian, unsigned, and touch four bytes', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 32 - 1 }), fc.nat(9), (value, offset) => {
      const memory = new Uint8Array(16).fill(0x55);
      writeU32(memory, offset, value);
      assert.equal(new DataView(memory.buffer).getUint32(offset, true), value);
      assert.equal(readU32(memory, offset), value);
      assert.equal(memory.filter((byte, index) => (index < offset || index > offset + 3) && byte === 0x55).length, 12);
    }),
    { examples: [[0xffff_ffff, 0]] },
  );
});

test('senderIndex() and receiverIndex() read the places of the paper', () => {
  const message = Uint8Array.from({ length: 148 }, (_, index) => index);
  message[0] = 1;
  assert.equal(senderIndex(message), 0x07060504);
  message[0] = 2;
  assert.equal(senderIndex(message), 0x07060504);
  assert.equal(receiverIndex(message), 0x0b0a0908);
  for (const type of [3, 4]) {
    message[0] = type;
    assert.equal(receiverIndex(message), 0x07060504);
  }
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { fold, sum, sum32, swap16, Words } from '../../../src/tunnel/checksum.js';
import { internetChecksum, payloadOf } from './lib/packets.js';

/** As it would be written into a header, on whatever machine. */
function checksum(memory: Uint8Array, offset: number, length: number): number {
  return swap16(~fold(sum(new Words(memory), offset, length)));
}

const random = payloadOf(70_000);

test('the example of RFC 1071, section 3: 0001 f203 f4f5 f6f7 sum up to ddf2', () => {
  const bytes = Uint8Array.from([0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
  assert.equal(swap16(fold(sum(new Words(bytes), 0, 8))), 0xddf2);
});

test('every offset within 32 bytes and every length up to 200 gives what adding byte by byte does', () => {
  for (const fill of [undefined, 0, 0xff] as const) {
    const memory = fill === undefined ? random.slice(0, 240) : new Uint8Array(240).fill(fill);
    for (let offset = 0; offset < 32; offset++) {
      for (let length = 0; length <= 200; length++) {
        const expected = internetChecksum(memory.subarray(offset, offset + length));
        assert.equal(checksum(memory, offset, length), expected, `${length} bytes at ${offset}`);
      }
    }
  }
});

test('nothing outside of the range is added', () => {
  const memory = new Uint8Array(200).fill(0xff);
  for (let offset = 1; offset < 20; offset++) {
    for (let length = 0; length < 100; length++) {
      memory.fill(0, offset, offset + length);
      assert.equal(sum(new Words(memory), offset, length), 0, `${length} bytes at ${offset}`);
      memory.fill(0xff, offset, offset + length);
    }
  }
});

test('up to 65535 bytes of any content', () => {
  const range = fc.tuple(fc.nat(64), fc.oneof(fc.nat(65_535), fc.integer({ min: 65_500, max: 65_535 }), fc.nat(2000)));
  fc.assert(
    fc.property(range, ([offset, length]) => {
      assert.equal(checksum(random, offset, length), internetChecksum(random.subarray(offset, offset + length)));
    }),
    { numRuns: 60 },
  );
});

test('65535 bytes of ones: nothing overflows, at every alignment', () => {
  const memory = new Uint8Array(65_540).fill(0xff);
  for (let offset = 0; offset < 5; offset++) {
    const total = sum(new Words(memory), offset, 65_535);
    assert.ok(total >= 0 && total < 2 ** 32 && Number.isInteger(total));
    assert.equal(swap16(fold(total)), 0xff00);
  }
});

test('a sum over two pieces is the sum of both, the second swapped when it begins at an odd distance', () => {
  fc.assert(
    fc.property(fc.nat(40), fc.nat(120), fc.nat(120), (offset, first, second) => {
      const words = new Words(random.subarray(0, 400).slice());
      const tail = fold(sum(words, offset + first, second));
      const both = sum(words, offset, first) + (first % 2 === 0 ? tail : swap16(tail));
      assert.equal(fold(both), fold(sum(words, offset, first + second)));
    }),
  );
});

test('fold() adds the carries back until 16 bits are left', () => {
  const naive = (value: bigint) => {
    let folded = value;
    while (folded > 0xffffn) folded = (folded & 0xffffn) + (folded >> 16n);
    return Number(folded);
  };
  const numbers = [0, 1, 0xffff, 0x10000, 0x1ffff, 0xfffeffff, 0xffffffff, 2 ** 32, 2 ** 32 + 1, 2 ** 47 - 1];
  for (const value of numbers) assert.equal(fold(value), naive(BigInt(value)), `${value}`);
  fc.assert(
    fc.property(
      fc.maxSafeNat().map((value) => value % 2 ** 47),
      (value) => assert.equal(fold(value), naive(BigInt(value))),
    ),
  );
});

test('sum32() is the sum of the four bytes as they stand in a packet', () => {
  fc.assert(
    fc.property(fc.nat(0xffffffff), (value) => {
      const bytes = new Uint8Array(4);
      new DataView(bytes.buffer).setUint32(0, value);
      assert.equal(fold(sum32(value)), fold(sum(new Words(bytes), 0, 4)));
    }),
  );
});

test('swap16() takes more than 16 bits, such as an inverted sum', () => {
  assert.equal(swap16(0x1234), 0x3412);
  assert.equal(swap16(~0x1234), 0xcbed);
});

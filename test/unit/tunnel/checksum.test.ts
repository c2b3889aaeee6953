import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { fold, sum, sum32, swap16, Words } from '../../../src/tunnel/checksum.js';
import { sumBlocksIn, wasmMemory } from '../../../src/tunnel/checksum-simd.js';
import { internetChecksum, payloadOf } from './lib/packets.js';

const random = payloadOf(70_000);

/** One memory for all: each would reserve gigabytes of addresses. */
const memory = wasmMemory(random.length);
const sumBlocks = sumBlocksIn(memory);

/** The two ways to add up, each in a memory that has these bytes. */
const ways: [string, (content: Uint8Array) => Words][] = [
  ['the loop', (content) => new Words(content.slice())],
  [
    "the processor's vectors",
    (content) => {
      const bytes = new Uint8Array(memory.buffer);
      // What is behind must not matter.
      bytes.fill(0xa7);
      bytes.set(content);
      return new Words(bytes, sumBlocks);
    },
  ],
];

/** As it would be written into a header, on whatever machine. */
function checksum(words: Words, offset: number, length: number): number {
  return swap16(~fold(sum(words, offset, length)));
}

for (const [way, wordsOf] of ways) {
  test(`${way}: the example of RFC 1071, section 3: 0001 f203 f4f5 f6f7 sum up to ddf2`, () => {
    const bytes = Uint8Array.from([0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
    assert.equal(swap16(fold(sum(wordsOf(bytes), 0, 8))), 0xddf2);
  });

  test(`${way}: every offset within 32 bytes and every length up to 300 gives what adding byte by byte does`, () => {
    for (const fill of [undefined, 0, 0xff] as const) {
      const content = fill === undefined ? random.slice(0, 340) : new Uint8Array(340).fill(fill);
      const words = wordsOf(content);
      for (let offset = 0; offset < 32; offset++) {
        for (let length = 0; length <= 300; length++) {
          const expected = internetChecksum(content.subarray(offset, offset + length));
          assert.equal(checksum(words, offset, length), expected, `${length} bytes at ${offset}`);
        }
      }
    }
  });

  test(`${way}: nothing outside of the range is added`, () => {
    const words = wordsOf(new Uint8Array(400).fill(0xff));
    for (let offset = 1; offset < 20; offset++) {
      for (let length = 0; length < 300; length++) {
        words.bytes.fill(0, offset, offset + length);
        assert.equal(sum(words, offset, length), 0, `${length} bytes at ${offset}`);
        words.bytes.fill(0xff, offset, offset + length);
      }
    }
  });

  test(`${way}: up to 65535 bytes of any content`, () => {
    const words = wordsOf(random);
    const range = fc.tuple(
      fc.nat(64),
      fc.oneof(fc.nat(65_535), fc.integer({ min: 65_500, max: 65_535 }), fc.nat(2000)),
    );
    fc.assert(
      fc.property(range, ([offset, length]) => {
        assert.equal(checksum(words, offset, length), internetChecksum(random.subarray(offset, offset + length)));
      }),
      { numRuns: 60 },
    );
  });

  test(`${way}: 65535 bytes of ones: nothing overflows, at every alignment`, () => {
    const words = wordsOf(new Uint8Array(65_540).fill(0xff));
    for (let offset = 0; offset < 5; offset++) {
      const total = sum(words, offset, 65_535);
      assert.ok(total >= 0 && total < 2 ** 32 && Number.isInteger(total));
      assert.equal(swap16(fold(total)), 0xff00);
    }
  });

  test(`${way}: a sum over two pieces is the sum of both, the second swapped when it begins at an odd distance`, () => {
    const words = wordsOf(random.subarray(0, 600));
    fc.assert(
      fc.property(fc.nat(40), fc.nat(250), fc.nat(250), (offset, first, second) => {
        const tail = fold(sum(words, offset + first, second));
        const both = sum(words, offset, first) + (first % 2 === 0 ? tail : swap16(tail));
        assert.equal(fold(both), fold(sum(words, offset, first + second)));
      }),
    );
  });
}

test('the last bytes of the vectors’ memory are summed, and nothing beyond it is read', () => {
  const bytes = new Uint8Array(memory.buffer);
  bytes.set(random.subarray(0, 300), bytes.length - 300);
  const words = new Words(bytes, sumBlocks);
  for (let length = 0; length <= 300; length++) {
    const start = bytes.length - length;
    assert.equal(checksum(words, start, length), internetChecksum(bytes.subarray(start)), `${length} bytes`);
  }
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

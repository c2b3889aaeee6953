import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isLater, TimestampSource, tai64n } from '../../../../src/tunnel/wireguard/tai64n.js';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

test('tai64n() gives the labels of https://cr.yp.to/libtai/tai64.html', () => {
  // 1992-06-02 08:07:09 TAI; and TAI is taken to be 10 s ahead of UTC.
  assert.equal(hex(tai64n(Date.UTC(1992, 5, 2, 8, 6, 59))), '400000002a2b2c2d00000000');
  // 1970-01-01 00:00:00 TAI, 2^62.
  assert.equal(hex(tai64n(-10_000)), '400000000000000000000000');
});

test('tai64n() gives the seconds a 64-bit field: no end in 2038 or 2106', () => {
  assert.equal(hex(tai64n((2 ** 31 - 10) * 1000)), '400000008000000000000000');
  assert.equal(hex(tai64n((2 ** 32 - 10) * 1000)), '400000010000000000000000');
});

test('tai64n() zeroes the 24 low bits of the nanoseconds, at most what a second has', () => {
  // 16.777216 ms is the first step; 59 of them the last in a second.
  assert.equal(hex(tai64n(16)).slice(16), '00000000');
  assert.equal(hex(tai64n(17)).slice(16), '01000000');
  assert.equal(hex(tai64n(500)).slice(16), '1d000000');
  assert.equal(hex(tai64n(999)).slice(16), '3b000000');
});

test('tai64n() gives a valid label for any time, with fractions of a millisecond too', () => {
  fc.assert(
    fc.property(fc.double({ min: 0, max: 8.64e15, noNaN: true }), (wallClockMs) => {
      const view = new DataView(tai64n(wallClockMs).buffer);
      assert.equal(view.byteLength, 12);
      assert.equal(view.getBigUint64(0), 2n ** 62n + 10n + BigInt(Math.floor(wallClockMs / 1000)));
      assert.ok(view.getUint32(8) < 1e9);
      assert.equal(view.getUint32(8) & 0xff_ffff, 0);
    }),
  );
});

test('TimestampSource gives ever later labels, whatever the wall clock does', () => {
  const clock = fc.array(fc.oneof(fc.nat(100), fc.integer({ min: 1.7e12, max: 1.7e12 + 3000 })), { maxLength: 150 });
  fc.assert(
    fc.property(clock, (times) => {
      const source = new TimestampSource();
      let last = new Uint8Array(12);
      for (const wallClockMs of times) {
        const next = source.next(wallClockMs);
        assert.ok(isLater(next, last), `${hex(next)} after ${hex(last)}`);
        assert.ok(new DataView(next.buffer).getUint32(8) < 1e9);
        last = Uint8Array.from(next);
      }
    }),
  );
});

test('TimestampSource follows the wall clock when it goes forward', () => {
  const source = new TimestampSource();
  source.next(1_000_000);
  assert.deepEqual(source.next(1_000_100), tai64n(1_000_100));
  assert.deepEqual(source.next(2_000_000), tai64n(2_000_000));
});

test('TimestampSource goes on in steps of 2^24 ns while the wall clock stands still, into the next second', () => {
  const source = new TimestampSource();
  assert.equal(hex(source.next(990)), '400000000000000a3b000000');
  assert.equal(hex(source.next(990)), '400000000000000b00000000');
  assert.equal(hex(source.next(990)), '400000000000000b01000000');
});

test('isLater() compares as big-endian numbers do, and nothing is later than itself', () => {
  const label = fc.uint8Array({ minLength: 12, maxLength: 12 });
  const number = (bytes: Uint8Array) => BigInt(`0x${hex(bytes)}`);
  fc.assert(
    fc.property(label, label, fc.nat(12), (a, other, shared) => {
      const b = other.slice();
      b.set(a.subarray(0, shared));
      assert.equal(isLater(a, b), number(a) > number(b));
      assert.equal(isLater(b, a), number(b) > number(a));
      assert.equal(isLater(a, a), false);
    }),
  );
});

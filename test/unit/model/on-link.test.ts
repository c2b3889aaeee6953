/** One binary search against asking every prefix. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { prefixContains } from '../../../src/model/address.js';
import { coverage } from '../../../src/model/on-link.js';

/** Few bits differ, so that prefixes nest and questions hit. */
const octet = fc.constantFrom(0, 1, 2, 127, 128, 255);
const ipv4 = fc.tuple(octet, octet).map(([a, b]) => `10.${a}.${b}.1`);
const ipv6 = fc.tuple(octet, octet).map(([a, b]) => `fd00:${a.toString(16)}::${b.toString(16)}`);
const prefix = fc.oneof(
  fc.record({ address: ipv4, prefixLength: fc.integer({ min: 1, max: 32 }) }),
  fc.record({ address: ipv6, prefixLength: fc.integer({ min: 1, max: 128 }) }),
);

test('coverage() says the same as asking every prefix', () => {
  fc.assert(
    fc.property(fc.array(prefix, { maxLength: 12 }), fc.oneof(ipv4, ipv6), (prefixes, address) => {
      const expected = prefixes.some((one) => prefixContains(one, address));
      assert.equal(coverage(prefixes)(address), expected);
    }),
    { numRuns: 3000 },
  );
});

/** Whatever is joined covers the same addresses, and nothing could be joined any more. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { joinPrefixes, nestedPrefixes } from '../../../../src/cli/wireguard/join-prefixes.js';
import { prefixText } from '../../../../src/cli/wireguard/quick-file.js';
import { clearHostBits, type Prefix, prefixContains } from '../../../../src/model/address.js';

const prefixesOf = (text: string): Prefix[] =>
  text.split(' ').map((each) => {
    const [address = '', length] = each.split('/');
    return { address, prefixLength: Number(length) };
  });
const join = (text: string) => joinPrefixes(prefixesOf(text)).map(prefixText).join(' ');

test('halves and neighbours become one, again and again, and what is nested is left out', () => {
  assert.deepEqual(joinPrefixes([]), []);
  for (const [given, expected] of [
    ['10.0.0.0/8', '10.0.0.0/8'],
    ['0.0.0.0/1 128.0.0.0/1', '0.0.0.0/0'],
    ['192.0.0.0/2 0.0.0.0/2 64.0.0.0/2 128.0.0.0/2', '0.0.0.0/0'],
    ['8000::/1 ::/1', '::/0'],
    ['10.0.1.0/24 10.0.0.0/24', '10.0.0.0/23'],
    ['10.0.1.0/24 10.0.2.0/24', '10.0.1.0/24 10.0.2.0/24'],
    ['10.0.0.0/24 10.0.2.0/23 10.0.1.0/24', '10.0.0.0/22'],
    ['192.0.2.0/25 10.0.0.0/8 192.0.2.128/25 10.1.0.0/16', '192.0.2.0/24 10.0.0.0/8'],
    ['10.1.0.0/16 10.0.0.0/8 10.0.0.0/8', '10.0.0.0/8'],
    ['2001:db8::/33 2001:db8:8000::/33 fd00::/8', '2001:db8::/32 fd00::/8'],
    ['255.255.255.255/32 255.255.255.254/32', '255.255.255.254/31'],
    ['::/128 ::1/128', '::/127'],
  ] as const) {
    assert.equal(join(given), expected, given);
  }
});

test('those inside of others', () => {
  const nested = (text: string) => nestedPrefixes(prefixesOf(text)).map(prefixText).join(' ');
  assert.equal(nested('10.0.0.0/8 10.1.0.0/16 192.0.2.0/24 10.1.2.0/24'), '10.1.0.0/16 10.1.2.0/24');
  assert.equal(nested('0.0.0.0/1 128.0.0.0/1'), '');
  assert.deepEqual(nestedPrefixes([]), []);
});

const few = (address: fc.Arbitrary<string>, most: number) =>
  fc.array(
    fc.tuple(address, fc.integer({ min: most - 8, max: most })).map(([literal, prefixLength]): Prefix => {
      return { address: clearHostBits(literal, prefixLength), prefixLength };
    }),
    { maxLength: 40 },
  );
const lists = fc.oneof(
  few(
    fc.nat(511).map((n) => `10.0.${n >> 8}.${n & 255}`),
    32,
  ),
  few(
    fc.nat(511).map((n) => `fd00::${n.toString(16)}`),
    128,
  ),
);

test('the same addresses are covered, each once, and no two are neighbours that make one', () => {
  const property = fc.property(lists, (given) => {
    const joined = joinPrefixes(given);
    const isIpv6 = given[0]?.address.includes(':');
    for (let n = 0; n < 512; n++) {
      const literal = isIpv6 ? clearHostBits(`fd00::${n.toString(16)}`, 128) : `10.0.${n >> 8}.${n & 255}`;
      const covers = (list: readonly Prefix[]) => list.filter((each) => prefixContains(each, literal)).length;
      assert.equal(covers(joined), Math.min(1, covers(given)), literal);
    }
    assert.deepEqual(new Set(joinPrefixes(joined).map(prefixText)), new Set(joined.map(prefixText)));
  });
  fc.assert(property, { numRuns: 100 });
});

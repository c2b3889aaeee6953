import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import type { Prefix } from '../../../src/host/plan-routes.js';
import { prefixRanges } from '../../../src/host/prefix-ranges.js';
import { addressBytes, clearHostBits } from '../../../src/model/address.js';

const prefix = (text: string): Prefix => {
  const [destination = '', length] = text.split('/');
  return { destination, prefixLength: Number(length) };
};

test('a prefix inside one of the other kind is cut out of it', () => {
  assert.deepEqual(prefixRanges([prefix('10.0.0.0/8')], [prefix('10.1.0.0/16')]), {
    included: ['10.0.0.0-10.0.255.255', '10.2.0.0-10.255.255.255'],
    excluded: ['10.1.0.0-10.1.255.255'],
  });
  assert.deepEqual(prefixRanges([prefix('2001:db8::/127'), prefix('2001:db8::1/128')], []), {
    included: ['2001:db8:0:0:0:0:0:0-2001:db8:0:0:0:0:0:1'],
    excluded: [],
  });
});

test('neighbours of one kind are one range; the ends of the number line are no exception', () => {
  assert.deepEqual(prefixRanges([prefix('0.0.0.0/1'), prefix('128.0.0.0/1')], [prefix('255.255.255.255/32')]), {
    included: ['0.0.0.0-255.255.255.254'],
    excluded: ['255.255.255.255'],
  });
});

test('an address is in the range of its longest prefix, and in no other', () => {
  const octet = fc.integer({ min: 0, max: 255 });
  // Few bits, so that prefixes nest.
  const address = fc
    .tuple(fc.constant(10), fc.integer({ min: 0, max: 3 }), octet, octet)
    .map((parts) => parts.join('.'));
  const routes = fc.uniqueArray(
    fc.record({ address, prefixLength: fc.integer({ min: 6, max: 32 }), isIncluded: fc.boolean() }),
    {
      maxLength: 12,
      selector: ({ address, prefixLength }) => `${clearHostBits(address, prefixLength)}/${prefixLength}`,
    },
  );
  fc.assert(
    fc.property(routes, fc.array(address, { maxLength: 20 }), (given, probes) => {
      const all = given.map((each) => ({ ...each, destination: clearHostBits(each.address, each.prefixLength) }));
      const { included, excluded } = prefixRanges(
        all.filter(({ isIncluded }) => isIncluded),
        all.filter(({ isIncluded }) => !isIncluded),
      );
      for (const probe of [...probes, ...all.map(({ destination }) => destination)]) {
        const longest = all
          .filter(({ destination, prefixLength }) => clearHostBits(probe, prefixLength) === destination)
          .sort((a, b) => b.prefixLength - a.prefixLength)[0];
        assert.equal(included.some(contains(probe)), longest?.isIncluded === true, probe);
        assert.equal(excluded.some(contains(probe)), longest?.isIncluded === false, probe);
      }
    }),
  );
});

function contains(literal: string): (range: string) => boolean {
  const number = (text: string) => Buffer.from(addressBytes(text)).readUInt32BE(0);
  return (range) => {
    const [first = '', last = first] = range.split('-');
    return number(first) <= number(literal) && number(literal) <= number(last);
  };
}

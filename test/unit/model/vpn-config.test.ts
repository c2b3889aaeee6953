/** Shapes: every malformed value is 401 with its field, everything else a canonical copy. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BusinessError } from '../../../src/model/errors.js';
import { parseVpnConfig } from '../../../src/model/vpn-config.js';

const ADDRESS = { address: { address: '10.0.0.5', family: 1 }, prefixLength: 24 };
const ROUTE = { destination: { address: { address: '10.1.0.0' }, prefixLength: 16 }, gateway: {} };

const withRoute = (route: object) => ({ addresses: [ADDRESS], routes: [ROUTE, { ...ROUTE, ...route }] });
const withDestination = (address: unknown, prefixLength: unknown, more: object = {}) =>
  withRoute({ destination: { address: { address, ...more }, prefixLength } });
const withAddress = (address: unknown, prefixLength: unknown, more: object = {}) => ({
  addresses: [ADDRESS, { address: { address, ...more }, prefixLength }],
});
const withGateway = (gateway: unknown) => withRoute({ gateway });
const withField = (field: string, value: unknown) => ({ addresses: [ADDRESS], [field]: value });

const DESTINATION = 'config.routes[1].destination';

/** Value, field, reason. */
const REFUSED: [unknown, string, string | RegExp][] = [
  [undefined, 'config', 'is missing'],
  [null, 'config', 'null is not an object'],
  ['{}', 'config', '"{}" is not an object'],
  [[], 'config', 'an array is not an object'],
  [() => 0, 'config', 'a function is not an object'],
  [{}, 'config.addresses', 'is missing'],
  [{ addresses: null }, 'config.addresses', 'null is not an array'],
  [{ addresses: { 0: ADDRESS, length: 1 } }, 'config.addresses', 'an object is not an array'],
  [{ addresses: [ADDRESS, undefined] }, 'config.addresses[1]', 'is missing'],
  [{ addresses: new Array(4_000_000_000) }, 'config.addresses[0]', 'is missing'],
  [{ addresses: ['10.0.0.5/24'] }, 'config.addresses[0]', '"10.0.0.5/24" is not an object'],
  [{ addresses: [{ prefixLength: 24 }] }, 'config.addresses[0].address', 'is missing'],
  [{ addresses: [{ address: '10.0.0.5', prefixLength: 24 }] }, 'config.addresses[0].address', /is not an object/],
  [withAddress(undefined, 24), 'config.addresses[1].address.address', 'is missing'],
  [withAddress(null, 24), 'config.addresses[1].address.address', 'null is not a string'],
  [withAddress(1, 24), 'config.addresses[1].address.address', '1 is not a string'],
  [withAddress('', 24), 'config.addresses[1].address.address', '"" is not an IPv4 or IPv6 address'],
  [withAddress('010.0.0.1', 24), 'config.addresses[1].address.address', /"010.0.0.1" is not/],
  [withAddress('fe80::1%eth0', 64), 'config.addresses[1].address.address', /"fe80::1%eth0" is not/],
  [withAddress('\u001b[2J', 64), 'config.addresses[1].address.address', /^"\\u001b\[2J" is not/],
  [withAddress('x'.repeat(10_000), 64), 'config.addresses[1].address.address', /^"x{60}"… \(10000 characters\) is not/],
  [withAddress('10.0.1.5', undefined), 'config.addresses[1].prefixLength', 'is missing'],
  [withAddress('10.0.1.5', '24'), 'config.addresses[1].prefixLength', '"24" is not a number'],
  [withAddress('10.0.1.5', null), 'config.addresses[1].prefixLength', 'null is not a number'],
  [withAddress('10.0.1.5', 0), 'config.addresses[1].prefixLength', '0 is not 1..32'],
  [withAddress('10.0.1.5', 33), 'config.addresses[1].prefixLength', '33 is not 1..32'],
  [withAddress('10.0.1.5', 24.5), 'config.addresses[1].prefixLength', '24.5 is not 1..32'],
  [withAddress('10.0.1.5', Number.NaN), 'config.addresses[1].prefixLength', 'NaN is not 1..32'],
  [withAddress('10.0.1.5', Infinity), 'config.addresses[1].prefixLength', 'Infinity is not 1..32'],
  [withAddress('fd00::5', 0), 'config.addresses[1].prefixLength', '0 is not 1..128'],
  [withAddress('fd00::5', 129), 'config.addresses[1].prefixLength', '129 is not 1..128'],
  [withAddress('10.0.1.0', 24), 'config.addresses[1].address.address', /^10.0.1.0 is the network or broadcast/],
  [withAddress('10.0.1.255', 24), 'config.addresses[1].address.address', /its \/24$/],
  [withAddress('10.0.1.7', 30), 'config.addresses[1].address.address', /its \/30$/],
  [withAddress('10.0.1.5', 24, { family: 2 }), 'config.addresses[1].address.family', /^2 \(IPv6\) does not agree/],
  [withAddress('fd00::5', 64, { family: 1 }), 'config.addresses[1].address.family', /^1 \(IPv4\) does not agree/],
  [withAddress('10.0.1.5', 24, { family: 10 }), 'config.addresses[1].address.family', '10 is not 1 (IPv4) or 2 (IPv6)'],
  [withAddress('10.0.1.5', 24, { family: 257 }), 'config.addresses[1].address.family', /^257 is not/],
  [withAddress('10.0.1.5', 24, { family: '1' }), 'config.addresses[1].address.family', '"1" is not a number'],
  [withAddress('10.0.1.5', 24, { family: null }), 'config.addresses[1].address.family', 'null is not a number'],
  [withField('routes', {}), 'config.routes', 'an object is not an array'],
  [withField('routes', null), 'config.routes', 'null is not an array'],
  [withField('routes', [null]), 'config.routes[0]', 'null is not an object'],
  [withRoute({ destination: undefined }), DESTINATION, 'is missing'],
  [withRoute({ destination: '0.0.0.0/0' }), DESTINATION, '"0.0.0.0/0" is not an object'],
  [withDestination('10.2.0.0', undefined), `${DESTINATION}.prefixLength`, 'is missing'],
  [withDestination('10.2.0.0', 33), `${DESTINATION}.prefixLength`, '33 is not 0..32'],
  [withDestination('10.2.0.0', -1), `${DESTINATION}.prefixLength`, '-1 is not 0..32'],
  [withDestination('::', 129), `${DESTINATION}.prefixLength`, '129 is not 0..128'],
  [withDestination('default', 0), `${DESTINATION}.address.address`, /"default" is not/],
  [withDestination('::', 0, { family: 1 }), `${DESTINATION}.address.family`, /does not agree with ::/],
  [withGateway(undefined), 'config.routes[1].gateway', 'is missing'],
  [withGateway(null), 'config.routes[1].gateway', 'null is not an object'],
  [withGateway('10.0.0.1'), 'config.routes[1].gateway', '"10.0.0.1" is not an object'],
  [withGateway({ address: null }), 'config.routes[1].gateway.address', 'null is not a string'],
  [withGateway({ address: 'none' }), 'config.routes[1].gateway.address', /"none" is not/],
  [withGateway({ address: 'fd00::1' }), 'config.routes[1].gateway.address', /^fd00::1 is not an IPv4 address/],
  [withGateway({ address: '10.0.0.1', family: 2 }), 'config.routes[1].gateway.family', /does not agree/],
  [withGateway({ address: '', family: 3 }), 'config.routes[1].gateway.family', /^3 is not/],
  [withRoute({ interface: 1 }), 'config.routes[1].interface', '1 is not a string'],
  [withRoute({ hasGateway: 'false' }), 'config.routes[1].hasGateway', '"false" is not a boolean'],
  [withRoute({ isDefaultRoute: null }), 'config.routes[1].isDefaultRoute', 'null is not a boolean'],
  [withRoute({ isExcludedRoute: 1 }), 'config.routes[1].isExcludedRoute', '1 is not a boolean'],
  [withField('mtu', '1400'), 'config.mtu', '"1400" is not a number'],
  [withField('mtu', null), 'config.mtu', 'null is not a number'],
  [withField('mtu', 1400n), 'config.mtu', 'a bigint is not a number'],
  [withField('vpnId', 7), 'config.vpnId', '7 is not a string'],
  ...['isIPv4Accepted', 'isIPv6Accepted', 'isLegacy', 'isBlocking', 'isMetered'].flatMap((name) =>
    [null, 0, 'true', {}].map((value): [unknown, string, RegExp] => [
      withField(name, value),
      `config.${name}`,
      /is not a boolean$/,
    ]),
  ),
  ...['dnsAddresses', 'searchDomains', 'trustedApplications', 'blockedApplications'].flatMap(
    (name): [unknown, string, RegExp][] => [
      [withField(name, null), `config.${name}`, /^null is not an array$/],
      [withField(name, '8.8.8.8'), `config.${name}`, /^"8.8.8.8" is not an array$/],
      [withField(name, ['a', 1]), `config.${name}[1]`, /^1 is not a string$/],
      [withField(name, new Array(1)), `config.${name}[0]`, /^is missing$/],
    ],
  ),
];

test('parseVpnConfig() refuses every malformed value with 401 and its field', () => {
  for (const [value, field, reason] of REFUSED) {
    assert.throws(
      () => parseVpnConfig(value),
      (error: BusinessError) => {
        assert.ok(error instanceof BusinessError, String(error));
        assert.equal(error.code, 401);
        assert.equal(error.data.field, field);
        if (typeof reason === 'string') assert.equal(error.data.reason, reason);
        else assert.match(error.data.reason, reason);
        return true;
      },
      `${field} ${reason}`,
    );
  }
});

test('parseVpnConfig() also judges entries behind a list limit', () => {
  const routes = [...Array(10_500).fill(ROUTE), null];
  assert.throws(() => parseVpnConfig({ addresses: [ADDRESS], routes }), {
    data: { field: 'config.routes[10500]', reason: 'null is not an object' },
  });
});

test('parseVpnConfig() returns a canonical copy without unknown and absent fields', () => {
  const given = {
    addresses: [
      { address: { address: '10.0.0.5', port: 'any' }, prefixLength: 31, more: 1 },
      { address: { address: 'FD00:0::5', family: undefined }, prefixLength: 64 },
    ],
    routes: [
      { ...ROUTE, destination: { address: { address: '10.9.8.7' }, prefixLength: 8 }, gateway: { address: '0.0.0.0' } },
      { destination: { address: { address: '::1' }, prefixLength: -0 }, gateway: { address: '0:0::0' }, interface: '' },
      { ...ROUTE, gateway: { address: '', family: 2 }, isExcludedRoute: true },
      { ...ROUTE, gateway: { address: '10.0.0.4', port: {} }, hasGateway: false, isDefaultRoute: true },
    ],
    dnsAddresses: undefined,
    mtu: 1400.5,
    isLegacy: false,
    vpnId: 'work',
    unknown: null,
  };
  assert.deepEqual(parseVpnConfig(given), {
    addresses: [
      { address: { address: '10.0.0.5', family: 1 }, prefixLength: 31 },
      { address: { address: 'fd00::5', family: 2 }, prefixLength: 64 },
    ],
    routes: [
      { destination: { address: { address: '10.0.0.0', family: 1 }, prefixLength: 8 }, gateway: { address: '' } },
      {
        destination: { address: { address: '::', family: 2 }, prefixLength: 0 },
        gateway: { address: '' },
        interface: '',
      },
      {
        destination: { address: { address: '10.1.0.0', family: 1 }, prefixLength: 16 },
        gateway: { address: '' },
        isExcludedRoute: true,
      },
      {
        destination: { address: { address: '10.1.0.0', family: 1 }, prefixLength: 16 },
        gateway: { address: '10.0.0.4', family: 1 },
        hasGateway: false,
        isDefaultRoute: true,
      },
    ],
    mtu: 1400.5,
    isLegacy: false,
    vpnId: 'work',
  });
});

test('parseVpnConfig() reads every property once', () => {
  const reads: string[] = [];
  const watch = <T extends object>(target: T, path: string): T =>
    new Proxy(target, {
      get(object, key) {
        reads.push(`${path}.${String(key)}`);
        const value: unknown = Reflect.get(object, key);
        return typeof value === 'object' && value !== null ? watch(value, `${path}.${String(key)}`) : value;
      },
    });
  parseVpnConfig(watch({ addresses: [ADDRESS], routes: [ROUTE], dnsAddresses: ['1.1.1.1'], mtu: 1400 }, 'config'));
  assert.ok(reads.includes('config.routes.0.destination.address.address'));
  assert.deepEqual(reads, [...new Set(reads)]);
});

test('parseVpnConfig() shares nothing with its argument', () => {
  const given = { addresses: [structuredClone(ADDRESS)], dnsAddresses: ['1.1.1.1'] };
  const copy = parseVpnConfig(given);
  given.dnsAddresses.push('x');
  (given.addresses[0] ?? ADDRESS).address.address = 'x';
  assert.deepEqual(copy, { addresses: [ADDRESS], dnsAddresses: ['1.1.1.1'] });
});

test('parseVpnConfig() keeps one entry and one character more than the limits', () => {
  const copy = parseVpnConfig({
    addresses: Array(2500).fill(ADDRESS),
    routes: Array(10_100).fill({ ...ROUTE, interface: 'x'.repeat(99) }),
    dnsAddresses: Array(99).fill('x'.repeat(99)),
    searchDomains: Array(99).fill('x'.repeat(999)),
    trustedApplications: Array(999).fill('x'.repeat(9999)),
    vpnId: 'x'.repeat(9999),
  });
  assert.equal(copy.addresses.length, 2001);
  assert.equal(copy.routes?.length, 10_001);
  assert.equal(copy.routes?.[0]?.interface?.length, 16);
  assert.equal(copy.dnsAddresses?.length, 65);
  assert.equal(copy.dnsAddresses?.[0]?.length, 46);
  assert.equal(copy.searchDomains?.[0]?.length, 255);
  assert.equal(copy.trustedApplications?.length, 257);
  assert.equal(copy.trustedApplications?.[0]?.length, 1025);
  assert.equal(copy.vpnId?.length, 65);
});

test('the largest legal config fits into a 4 MiB line', () => {
  const full = 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe';
  const copy = parseVpnConfig({
    addresses: Array(2000).fill({ address: { address: full, family: 2 }, prefixLength: 128 }),
    routes: Array(10_000).fill({
      interface: 'vpn-tun99999999',
      destination: { address: { address: full, family: 2 }, prefixLength: 128 },
      gateway: { address: full, family: 2 },
      hasGateway: false,
      isDefaultRoute: false,
      isExcludedRoute: false,
    }),
    dnsAddresses: Array(64).fill(full),
    searchDomains: Array(64).fill('x'.repeat(253)),
    trustedApplications: Array(256).fill('x'.repeat(1024)),
  });
  assert.ok(JSON.stringify(copy).length < 4_000_000, String(JSON.stringify(copy).length));
});

test('a number that JSON does not have arrives at the service as one that it refuses', () => {
  for (const mtu of [Number.NaN, Infinity, -Infinity]) {
    assert.deepEqual(overTheWire(parseVpnConfig(withField('mtu', mtu))), { addresses: [ADDRESS], mtu: 0 });
  }
});

/** Values that are mostly of the right shape, so that the properties reach every branch. */
const text = fc.oneof(fc.ipV4(), fc.ipV6(), fc.constantFrom('', '0.0.0.0', '::'), fc.string());
const netAddress = fc.record({ address: text, family: fc.constantFrom(1, 2, 3, null) }, { requiredKeys: [] });
const linkAddress = fc.record({ address: netAddress, prefixLength: fc.integer({ min: -1, max: 129 }) });
const anyConfig = fc.record(
  {
    addresses: fc.array(fc.oneof(linkAddress, fc.jsonValue()), { maxLength: 3 }),
    routes: fc.array(fc.record({ destination: linkAddress, gateway: netAddress, hasGateway: fc.boolean() }), {
      maxLength: 3,
    }),
    dnsAddresses: fc.array(text),
    mtu: fc.double(),
    isBlocking: fc.oneof(fc.boolean(), fc.jsonValue()),
    vpnId: fc.string({ unit: 'binary' }),
  },
  { requiredKeys: [] },
);
const goodAddress = fc.oneof(
  fc.record({ address: fc.record({ address: fc.ipV4() }), prefixLength: fc.constantFrom(31, 32) }),
  fc.record({ address: fc.record({ address: fc.ipV6() }), prefixLength: fc.integer({ min: 1, max: 128 }) }),
);
const goodRoute = fc.record({ destination: goodAddress, gateway: fc.constantFrom({}, { address: '::' }) });
const goodConfig = fc.record({
  addresses: fc.array(goodAddress, { maxLength: 5 }),
  routes: fc.array(goodRoute, { maxLength: 5 }),
  dnsAddresses: fc.array(fc.string({ unit: 'binary' })),
  mtu: fc.double(),
});

test('parseVpnConfig() throws nothing but 401 for any JSON', () => {
  fc.assert(
    fc.property(fc.oneof(fc.jsonValue(), anyConfig), (value) => {
      try {
        const copy = parseVpnConfig(value);
        assert.deepEqual(parseVpnConfig(copy), copy);
      } catch (error) {
        assert.ok(error instanceof BusinessError && error.code === 401, String(error));
      }
    }),
    { numRuns: 3000 },
  );
});

test('parseVpnConfig() accepts its own result unchanged, also after JSON', () => {
  fc.assert(
    fc.property(goodConfig, (value) => {
      const copy = parseVpnConfig(value);
      assert.deepEqual(parseVpnConfig(copy), copy);
      assert.deepEqual(parseVpnConfig(overTheWire(copy)), copy);
    }),
    { numRuns: 1000 },
  );
});

function overTheWire(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}

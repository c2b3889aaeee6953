/** Well-typed but wrong is 2200001 with its field; everything else becomes the spec that the host builds. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BusinessError } from '../../../src/model/errors.js';
import { parseVpnConfig } from '../../../src/model/vpn-config.js';
import { checkVpnConfig } from '../../../src/model/vpn-config-check.js';
import type { VpnSpec } from '../../../src/model/vpn-spec.js';

const V4 = address('10.0.0.5', 24);
const V6 = address('fd00::5', 64);

function address(text: string, prefixLength: number) {
  return { address: { address: text }, prefixLength };
}

function route(prefix: string, gateway = '', more: object = {}) {
  const [text = '', length] = prefix.split('/');
  return { destination: address(text, Number(length)), gateway: { address: gateway }, ...more };
}

function check(config: object): VpnSpec {
  return checkVpnConfig(parseVpnConfig({ addresses: [V4], ...config }), 'vpn-tun0');
}

function many<T>(count: number, make: (index: number) => T): T[] {
  return Array.from({ length: count }, (_, index) => make(index));
}

const EXCLUDED = { isExcludedRoute: true };
const DUAL = { addresses: [V4, V6] };

const REFUSED: [object, string, RegExp][] = [
  [{ addresses: [] }, 'addresses', /^is empty/],
  [{ addresses: many(2001, (i) => address(`fd00::${(i + 1).toString(16)}`, 64)) }, 'addresses', /more than 2000/],
  [{ routes: many(10_001, (i) => route(`10.${i >> 8}.${i & 255}.0/24`)) }, 'routes', /more than 10000 entries/],
  [{ dnsAddresses: many(65, (i) => `10.0.0.${i}`) }, 'dnsAddresses', /more than 64 entries/],
  [{ searchDomains: many(65, (i) => `d${i}.example`) }, 'searchDomains', /more than 64 entries/],
  [{ trustedApplications: many(257, (i) => `a${i}`) }, 'trustedApplications', /more than 256 entries/],
  [{ blockedApplications: many(257, (i) => `a${i}`) }, 'blockedApplications', /more than 256 entries/],
  [{ addresses: [V4, V6, V4] }, 'addresses[2].address.address', /10.0.0.5 is config.addresses\[0\] already/],
  [{ addresses: [V6, address('FD00:0::5', 48)] }, 'addresses[1].address.address', /fd00::5 is config.addresses\[0\]/],
  [{ addresses: [address('0.0.0.0', 32)] }, 'addresses[0].address.address', /cannot be the address of a host/],
  [{ addresses: [address('127.0.0.2', 8)] }, 'addresses[0].address.address', /cannot be the address of a host/],
  [{ addresses: [address('::ffff:10.0.0.1', 128)] }, 'addresses[0].address.address', /^::ffff:a00:1 cannot be/],
  [{ addresses: [V4, address('ff02::1', 64)] }, 'addresses[1].address.address', /cannot be/],
  [{ isIPv4Accepted: false }, 'addresses[0].address.address', /config.isIPv4Accepted does not accept/],
  [{ ...DUAL, isIPv6Accepted: false }, 'addresses[1].address.address', /config.isIPv6Accepted does not accept/],
  ...[575, 0, -1, 65_536, 1400.5, Number.NaN, Infinity, 2 ** 31].map((mtu): [object, string, RegExp] => [
    { mtu },
    'mtu',
    /is not an integer in 576..65535/,
  ]),
  [{ ...DUAL, mtu: 1279 }, 'mtu', /1279 is under 1280, which IPv6 needs/],
  [{ isIPv6Accepted: true, mtu: 600 }, 'mtu', /600 is under 1280/],
  [{ routes: [route('::/0')] }, 'routes[0].destination', /is IPv6, but config.addresses has no IPv6 address/],
  [{ routes: [route('::/0', '', EXCLUDED)] }, 'routes[0].destination', /is IPv6/],
  [{ addresses: [V6], isIPv4Accepted: false, routes: [route('10.0.0.0/8')] }, 'routes[0].destination', /is IPv4/],
  [{ routes: [route('10.9.0.0/16', '', { interface: 'eth0' })] }, 'routes[0].interface', /"eth0" is not this VPN's/],
  [{ routes: [route('10.9.0.0/16', '', { interface: 'vpn-tun00' })] }, 'routes[0].interface', /"vpn-tun0"/],
  [{ routes: [route('10.9.0.0/16', '10.0.1.1')] }, 'routes[0].gateway.address', /10.0.1.1 is in the prefix of none/],
  [
    { addresses: [address('10.0.0.5', 32)], routes: [route('10.9.0.0/16', '10.0.0.1')] },
    'routes[0].gateway.address',
    /none/,
  ],
  [
    { ...DUAL, routes: [route('fd09::/16', 'fe80::1')] },
    'routes[0].gateway.address',
    /fe80::1 is in the prefix of none/,
  ],
  [{ routes: [route('10.9.0.0/16', '10.0.0.255')] }, 'routes[0].gateway.address', /broadcast/],
  [
    { routes: [route('10.9.0.0/16'), route('10.8.0.0/16'), route('10.9.1.0/16', '10.0.0.1')] },
    'routes[2]',
    /^10.9.0.0\/16 has another gateway or exclusion in config.routes\[0\]$/,
  ],
  [{ routes: [route('10.9.0.0/16', '10.0.0.1'), route('10.9.0.0/16', '10.0.0.2')] }, 'routes[1]', /another gateway/],
  [{ routes: [route('10.9.0.0/16'), route('10.9.0.0/16', '', EXCLUDED)] }, 'routes[1]', /exclusion/],
  [{ dnsAddresses: ['10.0.0.1', 'dns.example'] }, 'dnsAddresses[1]', /"dns.example" is not an IPv4 or IPv6 address/],
  [{ dnsAddresses: [''] }, 'dnsAddresses[0]', /"" is not/],
  [{ dnsAddresses: ['08.8.8.8'] }, 'dnsAddresses[0]', /is not/],
  [{ dnsAddresses: ['fe80::1%eth0'] }, 'dnsAddresses[0]', /is not/],
  [{ dnsAddresses: [`${'1'.repeat(45)}`, '::'] }, 'dnsAddresses[0]', /is not/],
  [{ dnsAddresses: ['0.0.0.0'] }, 'dnsAddresses[0]', /cannot be the address of a DNS server/],
  ...['', '.', 'a..b', '.a', 'a b', 'a/b', 'bücher.de', '10.0.0.1', '~.', 'a\n', '\u212aelvin', 'x'.repeat(64)].map(
    (name): [object, string, RegExp] => [{ searchDomains: ['a', name] }, 'searchDomains[1]', /is not a domain name$/],
  ),
  [{ searchDomains: [`${'x'.repeat(63)}.`.repeat(4)] }, 'searchDomains[0]', /is not a domain name/],
  [{ trustedApplications: ['a'], blockedApplications: ['b'] }, 'blockedApplications', /use one list/],
  [{ trustedApplications: ['a', ''] }, 'trustedApplications[1]', /^is empty$/],
  [{ blockedApplications: ['a\u0000b'] }, 'blockedApplications[0]', /^"a\\u0000b" has control characters$/],
  [{ blockedApplications: ['x'.repeat(1025)] }, 'blockedApplications[0]', /more than 1024 characters/],
  [{ vpnId: 'x'.repeat(65) }, 'vpnId', /more than 64 characters/],
  [{ vpnId: 'a\u001b[2J' }, 'vpnId', /has control characters/],
];

test('checkVpnConfig() refuses what is well-typed but wrong with 2200001 and its field', () => {
  for (const [config, field, reason] of REFUSED) {
    assert.throws(
      () => check(config),
      (error: BusinessError) => {
        assert.equal(error.code, 2200001, `${error.message} for ${field}`);
        assert.equal(error.data.field, `config.${field}`);
        assert.match(error.data.reason, reason);
        return true;
      },
      `${field} ${reason}`,
    );
  }
});

test('checkVpnConfig() fills in every default', () => {
  assert.deepEqual(check({}), {
    mtu: 1500,
    isBlocking: false,
    isLegacy: false,
    isMetered: false,
    addresses: [{ family: 1, address: '10.0.0.5', prefixLength: 24 }],
    accepted: { 1: true, 2: false },
    routes: [{ family: 1, destination: '0.0.0.0', prefixLength: 0, isExcluded: false }],
    dnsAddresses: [],
    searchDomains: [],
    trustedApplications: [],
    blockedApplications: [],
  });
});

test('checkVpnConfig() keeps what the app asked for', () => {
  const spec = check({
    ...DUAL,
    mtu: 1280,
    isBlocking: true,
    isLegacy: true,
    isMetered: true,
    vpnId: 'work',
    dnsAddresses: ['FD00:0::1', '10.0.0.1', 'fd00::1', '8.8.8.8'],
    searchDomains: ['Corp.Example.', '_tcp.example', 'corp.example', `${'x'.repeat(63)}.`.repeat(3) + 'y'.repeat(61)],
    trustedApplications: ['org.example.App', 'uid:1000', 'org.example.App'],
  });
  assert.deepEqual(spec.accepted, { 1: true, 2: true });
  assert.equal(spec.vpnId, 'work');
  assert.deepEqual([spec.mtu, spec.isBlocking, spec.isLegacy, spec.isMetered], [1280, true, true, true]);
  assert.deepEqual(spec.dnsAddresses, [
    { family: 2, address: 'fd00::1' },
    { family: 1, address: '10.0.0.1' },
    { family: 1, address: '8.8.8.8' },
  ]);
  assert.deepEqual(spec.searchDomains.slice(0, 2), ['corp.example', '_tcp.example']);
  assert.equal(spec.searchDomains[2]?.length, 253);
  assert.deepEqual(spec.trustedApplications, ['org.example.App', 'uid:1000']);
});

test('a family is accepted by its flag, IPv6 without a flag by an address', () => {
  const table: [object, VpnSpec['accepted']][] = [
    [{}, { 1: true, 2: false }],
    [DUAL, { 1: true, 2: true }],
    [{ addresses: [V6] }, { 1: true, 2: true }],
    [
      { addresses: [V6], isIPv4Accepted: false },
      { 1: false, 2: true },
    ],
    [{ isIPv6Accepted: true }, { 1: true, 2: true }],
    [
      { isIPv6Accepted: false, isIPv4Accepted: true },
      { 1: true, 2: false },
    ],
  ];
  for (const [config, accepted] of table) assert.deepEqual(check(config).accepted, accepted, JSON.stringify(config));
});

test('without an included route every accepted family gets its default route', () => {
  const table: [object, string[]][] = [
    [{ routes: [] }, ['0.0.0.0/0']],
    [DUAL, ['0.0.0.0/0', '::/0']],
    [{ addresses: [V6], isIPv4Accepted: false }, ['::/0']],
    [{ isIPv6Accepted: true }, ['0.0.0.0/0', '::/0']],
    [{ routes: [route('10.9.0.0/16', '', EXCLUDED)] }, ['!10.9.0.0/16', '0.0.0.0/0']],
    [{ ...DUAL, routes: [route('0.0.0.0/0', '', EXCLUDED)] }, ['!0.0.0.0/0', '::/0']],
    [{ ...DUAL, routes: [route('10.9.0.0/16')] }, ['10.9.0.0/16']],
    [{ routes: [route('10.9.0.0/16'), route('10.9.1.0/24', '', EXCLUDED)] }, ['10.9.0.0/16', '!10.9.1.0/24']],
  ];
  for (const [config, routes] of table) assert.deepEqual(routeTexts(check(config)), routes, JSON.stringify(config));
});

test('identical routes collapse; a gateway counts only when it is a next hop', () => {
  const routes = [
    route('10.9.0.1/16', '10.0.0.1'),
    route('10.9.0.0/16', '10.0.0.1', { hasGateway: true, isDefaultRoute: true, interface: 'vpn-tun0' }),
    route('10.8.0.0/16'),
    route('10.8.0.0/16', '192.0.2.1', { hasGateway: false }),
    route('10.8.0.0/16', '10.0.0.5'),
    route('10.8.0.0/17', '0.0.0.0'),
  ];
  assert.deepEqual(routeTexts(check({ routes })), ['10.9.0.0/16 via 10.0.0.1', '10.8.0.0/16', '10.8.0.0/17']);
});

test('a gateway may be in the prefix of any address of its family', () => {
  const addresses = [address('10.0.0.5', 8), address('10.1.0.5', 24), address('fe80::5', 64), V6];
  const routes = [route('1.0.0.0/8', '10.255.255.1'), route('2.0.0.0/8', '10.1.0.9'), route('2::/16', 'fe80::1')];
  assert.equal(check({ addresses, routes }).routes.length, 3);
});

test('a network without a host part can be an address when it is /31 or /32, or IPv6', () => {
  const addresses = [address('10.0.0.0', 31), address('10.0.1.0', 32), address('fd00::', 64)];
  assert.equal(check({ addresses }).addresses.length, 3);
});

test('the largest config takes linear time', () => {
  const processorTime = (share: number): number => {
    const count = 2000 * share;
    const addresses = many(count, (i) => address(`fd00:0:${i.toString(16)}::1`, 64));
    const routes = many(5 * count, (i) =>
      route(`2001:db8:${i.toString(16)}::/48`, `fd00:0:${(i % count).toString(16)}::${(i + 2).toString(16)}`),
    );
    const begin = process.cpuUsage();
    assert.equal(check({ addresses, routes }).routes.length, 5 * count);
    const { user, system } = process.cpuUsage(begin);
    // Each of the two may be an estimate; the sum is measured.
    return user + system;
  };
  const least = (share: number) => Math.min(...[1, 2, 3].map(() => processorTime(share)));
  least(1);
  const ratio = least(1) / least(1 / 8);
  assert.ok(
    ratio < 24,
    `eight times as much takes ${ratio.toFixed(1)} times as long; with a loop in a loop it would be 64`,
  );
});

function routeTexts({ routes }: VpnSpec): string[] {
  return routes.map(
    ({ destination, prefixLength, gateway, isExcluded }) =>
      `${isExcluded ? '!' : ''}${destination}/${prefixLength}${gateway === undefined ? '' : ` via ${gateway}`}`,
  );
}

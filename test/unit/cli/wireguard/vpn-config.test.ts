/** From a wg-quick file to a VpnConfig: routes, accepted families, DNS, and what the host's plan makes of them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { deviceChangeOf } from '../../../../src/cli/wireguard/device-change.js';
import { mtuOf, tunnelMtu } from '../../../../src/cli/wireguard/mtu.js';
import type { QuickFile } from '../../../../src/cli/wireguard/quick-file.js';
import { acceptedFamilies, vpnConfigOf } from '../../../../src/cli/wireguard/vpn-config.js';
import { outsideServers } from '../../../../src/host/dns-servers.js';
import { slotNumbers } from '../../../../src/host/numbers.js';
import { planRoutes } from '../../../../src/host/plan-routes.js';
import { parseVpnConfig } from '../../../../src/model/vpn-config.js';
import { checkVpnConfig } from '../../../../src/model/vpn-config-check.js';
import { ALICE_PRIVATE, BOB, CAROL, parse, problemOf, sample, sampleText } from './lib/samples.js';

const configOf = (file: QuickFile, mtu = 1420) => vpnConfigOf(file, { name: 'office', mtu });

/** What covered traffic of each family meets: of one that is `some` what is not listed goes where it went before. */
function shapes(file: QuickFile): string[] {
  const { config, warnings } = configOf(file, mtuOf(file, []));
  const spec = checkVpnConfig(parseVpnConfig(config), 'vpn-tun0');
  const told = ([1, 2] as const).map((family) => {
    const { kind, explicit } = planRoutes(family, spec, slotNumbers(0), outsideServers(spec, [])).shape;
    return [kind, ...explicit.map(({ destination, prefixLength }) => `${destination}/${prefixLength}`)].join(' ');
  });
  return [...told, ...warnings.map((each) => each.replace('office.conf:', ''))];
}

const V4 = 'Address = 10.0.0.2/32';
const V6 = 'Address = fd00::2/128';
const NO_V6_ROUTE = '4: warning: AllowedIPs have no ::/0, so IPv6 leaves outside the VPN but for what they name';

const ROWS: [what: string, own: string[], allowedIps: string | undefined, shapes: string[]][] = [
  ['all of both families', [V4, V6], '0.0.0.0/0, ::/0', ['everything', 'everything']],
  ['IPv4 only: IPv6 is refused', [V4], '0.0.0.0/0', ['everything', 'refused']],
  ['IPv6 only: IPv4 is refused', [V6], '::/0', ['refused', 'everything']],
  ['halves are a default route', [V4], '0.0.0.0/1, 128.0.0.0/1', ['everything', 'refused']],
  ['halves of IPv6 too', [V4, V6], '0.0.0.0/0, ::/1, 8000::/1', ['everything', 'everything']],
  ['and so are four quarters', [V4], '0.0.0.0/2, 64.0.0.0/2, 128.0.0.0/2, 192.0.0.0/2', ['everything', 'refused']],
  [
    'what is inside of them stays',
    [V4],
    '0.0.0.0/2, 64.0.0.0/2, 192.168.7.0/24, 128.0.0.0/1, 192.168.6.0/24',
    ['everything 192.168.6.0/23', 'refused'],
  ],
  ['halves beside the default route', [V4], '0.0.0.0/0, 0.0.0.0/1, 128.0.0.0/1', ['everything', 'refused']],
  ['neighbours are one route', [V4], '10.0.1.0/24, 10.0.0.0/24, 10.0.0.7/32', ['some 10.0.0.0/23', 'some']],
  ['one half is a prefix', [V4], '128.0.0.0/1', ['some 128.0.0.0/1', 'some']],
  ['a default route and more', [V4], '0.0.0.0/0, 10.9.0.0/16', ['everything 10.9.0.0/16', 'refused']],
  ['split IPv4: IPv6 is left alone', [V4], '10.0.0.0/8', ['some 10.0.0.0/8', 'some']],
  ['split IPv6: IPv4 is left alone', [V6], 'fd00::/8', ['some', 'some fd00::/8']],
  [
    'networks of addresses go in by themselves',
    ['Address = 10.0.0.2/24'],
    '192.0.2.0/24',
    ['some 192.0.2.0/24 10.0.0.0/24', 'some'],
  ],
  ['all of IPv4, an IPv6 address without routes', [V4, V6], '0.0.0.0/0', ['everything', 'some', NO_V6_ROUTE]],
  ['all of IPv4, some IPv6', [V4, V6], '0.0.0.0/0, fd00::/8', ['everything', 'some fd00::/8', NO_V6_ROUTE]],
  [
    'all of IPv6, some IPv4',
    [V4, V6],
    '10.0.0.0/8, ::/0',
    [
      'some 10.0.0.0/8',
      'everything',
      '3: warning: AllowedIPs have no 0.0.0.0/0, so IPv4 leaves outside the VPN but for what they name',
    ],
  ],
  [
    'all of both without an IPv6 address: IPv6 is refused',
    [V4],
    '0.0.0.0/0, ::/0',
    ['everything', 'refused', '6: warning: there is no IPv6 Address, so IPv6 is refused, not sent'],
  ],
  [
    'all of both without an IPv4 address: IPv4 is refused',
    [V6],
    '0.0.0.0/0, ::/0',
    ['refused', 'everything', '6: warning: there is no IPv4 Address, so IPv4 is refused, not sent'],
  ],
  ['Table = off', ['Address = 10.0.0.2/24', 'Table = off'], '0.0.0.0/0, ::/0', ['some 10.0.0.0/24', 'some']],
  ['a peer without prefixes', [V4], undefined, ['some', 'some']],
  [
    'a DNS server goes where AllowedIPs lead',
    [V4, 'DNS = 192.0.2.53, corp'],
    '10.0.0.0/8',
    ['some 10.0.0.0/8', 'some'],
  ],
  ['and with a default route in', [V4, 'DNS = 192.0.2.53'], '0.0.0.0/0', ['everything 192.0.2.53/32', 'refused']],
  [
    'a DNS server in the network of an address that no peer carries',
    ['Address = 10.0.0.2/24', 'DNS = 10.0.0.1'],
    '192.0.2.0/24',
    [
      'some 192.0.2.0/24 10.0.0.0/24 10.0.0.1/32',
      'some',
      "4: warning: no peer's AllowedIPs have 10.0.0.1, so this DNS server, which is in the network of Address, never answers",
    ],
  ],
  [
    'a DNS server of a family without an address is left out',
    [V4, 'DNS = fd00::53'],
    '0.0.0.0/0',
    [
      'everything',
      'refused',
      '4: warning: there is no IPv6 Address to ask fd00::53 from, so this DNS server is left out',
    ],
  ],
  [
    'a DNS server of a family that is left alone is left out, too',
    [V4, 'DNS = fd00::53'],
    '10.0.0.0/8',
    [
      'some 10.0.0.0/8',
      'some',
      '4: warning: there is no IPv6 Address to ask fd00::53 from, so this DNS server is left out',
    ],
  ],
  [
    'an MTU too small for IPv6, which is left alone otherwise',
    [V4, 'MTU = 1200'],
    '10.0.0.0/8',
    [
      'some 10.0.0.0/8',
      'refused',
      '4: warning: MTU is under 1280, which IPv6 needs, so IPv6 is refused while the VPN is up',
    ],
  ],
  ['an MTU too small for IPv6, which is refused anyway', [V4, 'MTU = 1200'], '0.0.0.0/0', ['everything', 'refused']],
  [
    'an MTU too small for IPv6 prefixes',
    [V4, 'MTU = 1200'],
    '10.0.0.0/8, fd00::/8',
    ['some 10.0.0.0/8', 'refused', '7: warning: there is no IPv6 Address, so IPv6 is refused, not sent'],
  ],
];

for (const [what, own, allowedIps, expected] of ROWS) {
  test(`routes: ${what}`, () => {
    assert.deepEqual(
      shapes(sample({ own, peer: allowedIps === undefined ? [] : [`AllowedIPs = ${allowedIps}`] })),
      expected,
    );
  });
}

test('without any peer there is no default route either', () => {
  assert.deepEqual(shapes(sample({ own: ['Address = 10.0.0.1/24', V6, 'ListenPort = 51820'] })), [
    'some 10.0.0.0/24',
    'some',
  ]);
});

test('the config has everything the file says', () => {
  const own = ['Address = 10.0.0.2/24, fd00::2/64', 'DNS = 10.0.0.1, Corp.Example, fd00::1', 'MTU = 1400'];
  const { config } = configOf(sample({ own, peer: ['AllowedIPs = 0.0.0.0/0, fd00::/8'] }), 1400);
  assert.deepEqual(config, {
    addresses: [
      { address: { address: '10.0.0.2', family: 1 }, prefixLength: 24 },
      { address: { address: 'fd00::2', family: 2 }, prefixLength: 64 },
    ],
    routes: [
      {
        destination: { address: { address: '0.0.0.0', family: 1 }, prefixLength: 0 },
        gateway: { address: '' },
        isDefaultRoute: true,
      },
      {
        destination: { address: { address: 'fd00::', family: 2 }, prefixLength: 8 },
        gateway: { address: '' },
        isDefaultRoute: false,
      },
    ],
    dnsAddresses: ['10.0.0.1', 'fd00::1'],
    searchDomains: ['corp.example'],
    mtu: 1400,
    isIPv4Accepted: true,
    isIPv6Accepted: true,
    isLegacy: true,
    vpnId: 'office',
  });
});

test('what the service would refuse is a problem of the file', () => {
  const problem = problemOf(() => vpnConfigOf(sample(), { name: 'a\nb', mtu: 1420 }));
  assert.equal(problem?.code, 78);
  assert.match(
    problem?.said ?? '',
    /^office\.conf:1: vpnd does not take this: .*config\.vpnId: "a\\nb" has control characters$/,
  );
});

const own = fc.subarray([
  V4,
  V6,
  'Address = 10.7.0.2/24',
  'DNS = 10.0.0.1',
  'DNS = fd00::53, a.b',
  'Table = off',
  'MTU = 1280',
]);
const prefixes = fc.subarray([
  '0.0.0.0/0',
  '::/0',
  '0.0.0.0/1',
  '128.0.0.0/1',
  '8000::/1',
  '10.0.0.0/8',
  'fd00::/8',
  '::/1',
]);

test('whatever a file says, the service takes its config, and routes only families that are accepted', () => {
  const property = fc.property(own, prefixes, fc.nat(3000), (lines, allowedIps, path) => {
    fc.pre(lines.some((line) => line.startsWith('Address')));
    const file = sample({ own: lines, peer: [`AllowedIPs = ${allowedIps.join(',')}`] });
    const mtu = mtuOf(file, [path]);
    const { config, warnings } = configOf(file, mtu);
    const accepted = acceptedFamilies(file);
    assert.deepEqual({ 1: config.isIPv4Accepted, 2: config.isIPv6Accepted }, accepted);
    for (const { destination } of config.routes ?? []) assert.ok(accepted[destination.address.family === 2 ? 2 : 1]);
    const isOff = lines.includes('Table = off');
    const [ipv4, ipv6] = shapes(file).map((shape) => shape.split(' ')[0]);
    const full4 =
      !isOff &&
      (allowedIps.includes('0.0.0.0/0') || (allowedIps.includes('0.0.0.0/1') && allowedIps.includes('128.0.0.0/1')));
    const full6 =
      !isOff && (allowedIps.includes('::/0') || (allowedIps.includes('::/1') && allowedIps.includes('8000::/1')));
    // Nothing of a family that AllowedIPs want whole gets past the VPN.
    if (full4) assert.notEqual(ipv4, 'some');
    if (full6) assert.notEqual(ipv6, 'some');
    // Nothing is refused in a split tunnel.
    if (!full4 && !full6) assert.deepEqual([ipv4, ipv6], ['some', 'some']);
    for (const line of warnings) assert.match(line, /^office\.conf:\d+: warning: [ -~]+$/);
  });
  fc.assert(property, { numRuns: 500 });
});

test('the MTU is 80 under the smallest path, in whole blocks of the cipher, and never too small for what is inside', () => {
  const table: [paths: number[], ipv6: boolean, mtu: number][] = [
    [[], false, 1408],
    [[1500], true, 1408],
    [[1500, 1492, 9000], true, 1408],
    [[9000], false, 8896],
    [[1359], true, 1280],
    [[1359], false, 1216],
    [[500], false, 576],
    [[65_535], true, 1408],
    [[65_536, 1400], true, 1280],
    [[65_534], true, 65_408],
  ];
  for (const [paths, ipv6, mtu] of table) assert.equal(tunnelMtu(paths, ipv6), mtu, JSON.stringify([paths, ipv6]));
  assert.equal(mtuOf(sample({ own: [V4, 'MTU = 900'], peer: ['AllowedIPs = 0.0.0.0/0'] }), [1500]), 900);
  assert.equal(mtuOf(sample({ own: [V4], peer: ['AllowedIPs = 0.0.0.0/0'] }), [1300]), 1216, 'IPv6 is refused');
  assert.equal(mtuOf(sample({ own: [V4], peer: ['AllowedIPs = 10.0.0.0/8'] }), [1300]), 1280, 'IPv6 is left alone');
});

test('routes are counted when neighbours are joined; the device is told what the file says', () => {
  // As lists of a country's networks are: seven of eight neighbours.
  const list = (count: number, step: number) =>
    Array.from({ length: count }, (_, n) => Math.floor((n * step) / (step - 1))).map(
      (n) => `AllowedIPs = ${20 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}.0/24`,
    );
  const country = sample({ own: [V4], peer: list(20_000, 8) });
  const { config } = configOf(country);
  assert.equal(config.routes?.length, 8572);
  assert.equal(
    deviceChangeOf(country, { chosen: new Map(), notYet: new Map() }).peers?.[0]?.allowedIps?.length,
    20_000,
  );
  const scattered = sample({ own: [V4], peer: list(10_001, 2) });
  assert.deepEqual(
    problemOf(() => configOf(scattered)),
    {
      code: 78,
      said: 'office.conf:6: AllowedIPs: neighbours joined, 10001 routes are left, and vpnd takes 10000; leave some out, or write larger prefixes',
    },
  );
});

test('the device is told the whole file, and endpoints as they were found', () => {
  const peer = [
    `PresharedKey = ${CAROL}`,
    'AllowedIPs = 10.1.2.3/8, ::/0',
    'Endpoint = [fe80::1%eth0]:51820',
    'PersistentKeepalive = 9',
  ];
  const file = parse(`${sampleText({ peer })}[Peer]\nPublicKey = ${CAROL}`);
  const [first] = file.peers;
  assert.ok(first);
  const found = { address: 'fe80::1', port: 51820, addresses: ['fe80::1'], scopeId: 3, routeMtu: 1500 };
  const bytes = (text: string) => new Uint8Array(Buffer.from(text, 'base64'));
  assert.deepEqual(deviceChangeOf(file, { chosen: new Map([[first, found]]), notYet: new Map() }), {
    privateKey: bytes(ALICE_PRIVATE),
    replacePeers: true,
    peers: [
      {
        publicKey: bytes(BOB),
        presharedKey: bytes(CAROL),
        endpoint: { address: 'fe80::1', port: 51820, scopeId: 3 },
        persistentKeepaliveSeconds: 9,
        replaceAllowedIps: true,
        allowedIps: ['10.0.0.0/8', '::/0'],
      },
      { publicKey: bytes(CAROL), persistentKeepaliveSeconds: 0, replaceAllowedIps: true, allowedIps: [] },
    ],
  });
});

/** Which on-link routes are copied, against named cases and against a model that looks at every address of a small network. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { discoveryRoutes, type LanPolicy, lanChanges, lanRoutes } from '../../../src/host/lan.js';
import type { HostLink, LanRoute, OnLinkRoute } from '../../../src/host/links.js';
import { clearHostBits, familyOf, type Prefix, prefixContains } from '../../../src/model/address.js';

const ETH0: HostLink = { ifindex: 2, name: 'eth0', kind: '', isUp: true, isOuter: true, isInnerBridge: false };
const ETH1: HostLink = { ...ETH0, ifindex: 3, name: 'eth1' };
const DOCKER0: HostLink = { ...ETH0, ifindex: 9, name: 'docker0', kind: 'bridge', isOuter: false, isInnerBridge: true };

function route(prefix: string, link: HostLink = ETH0, more: Partial<OnLinkRoute> = {}): OnLinkRoute {
  return { ...parse(prefix), family: familyOf(prefix), link, metric: 0, isOwn: true, ...more };
}

function parse(prefix: string): { destination: string; prefixLength: number; address: string } {
  const [address = '', length = ''] = prefix.split('/');
  return { destination: address, address, prefixLength: Number(length) };
}

const texts = (routes: readonly LanRoute[]): string[] =>
  routes.map(({ destination, prefixLength, dev }) => `${destination}/${prefixLength} ${dev}`);
const copied = (prefixes: string[], policy: LanPolicy, link = ETH0): string[] =>
  texts(
    lanRoutes(
      prefixes.map((prefix) => route(prefix, link)),
      policy,
    ),
  );

test("'private' copies only networks that the host has an address in: a claim of 256 of them claims nothing", () => {
  const claimed = Array.from({ length: 256 }, (_, index) => route(`10.${index}.0.0/16`, ETH0, { isOwn: index === 7 }));
  assert.deepEqual(texts(lanRoutes(claimed, 'private')), ['10.7.0.0/16 eth0']);
  assert.equal(
    lanRoutes(claimed, [{ address: '10.0.0.0', prefixLength: 8 }]).length,
    256,
    'the policy names them itself',
  );
});

test("'private' copies what lies whole in a private range and is no larger than a local network", () => {
  const kept = [
    '10.0.0.0/16',
    '10.1.2.0/24',
    '169.254.0.0/16',
    '172.16.0.0/16',
    '172.31.255.0/24',
    '192.168.0.0/16',
    '192.168.1.128/25',
    'fc00::/48',
    'fd00:1:2::/64',
    'fe80::/64',
  ];
  const left = [
    '10.0.0.0/8',
    '10.0.0.0/15',
    '100.64.0.0/24',
    '172.16.0.0/12',
    '172.32.0.0/16',
    '192.0.2.0/24',
    '192.168.0.0/15',
    '192.0.0.0/2',
    '8.0.0.0/8',
    '128.0.0.0/1',
    '169.253.0.0/16',
    'fd00::/47',
    'fe80::/10',
    'fec0::/64',
    '2001:db8::/64',
    '::/1',
    '::ffff:a00:0/112',
  ];
  assert.deepEqual(
    copied(kept, 'private').sort(),
    kept.map((prefix) => `${prefix} eth0`),
  );
  assert.deepEqual(copied(left, 'private'), []);
});

test("'off' copies only private prefixes of inner bridges", () => {
  assert.deepEqual(copied(['192.168.1.0/24', 'fe80::/64'], 'off'), []);
  assert.deepEqual(copied(['172.17.0.0/16', '8.8.8.0/24'], 'off', DOCKER0), ['172.17.0.0/16 docker0']);
});

test('a list of prefixes copies what is in both, the narrower of the two', () => {
  const policy = [parse('192.168.0.0/16'), parse('8.8.8.0/24'), parse('10.1.2.0/24'), parse('2001:db8::/48')];
  assert.deepEqual(copied(['192.168.1.0/24', '10.0.0.0/8', '8.0.0.0/8', '2001:db8::/64', '10.2.0.0/16'], policy), [
    '10.1.2.0/24 eth0',
    '192.168.1.0/24 eth0',
    '8.8.8.0/24 eth0',
    '2001:db8::/64 eth0',
  ]);
  assert.deepEqual(copied(['192.168.1.0/24'], []), []);
  assert.deepEqual(copied(['172.17.0.0/16'], [], DOCKER0), ['172.17.0.0/16 docker0']);
});

test('the same destination on two links is two routes of different metric, in the order of table main', () => {
  const routes = lanRoutes(
    [
      route('192.168.1.0/24', ETH1, { metric: 600 }),
      route('192.168.1.0/24', ETH0, { metric: 100, source: '192.168.1.7' }),
    ],
    'private',
  );
  assert.deepEqual(texts(routes), ['192.168.1.0/24 eth0', '192.168.1.0/24 eth1']);
  assert.equal(routes[0]?.source, '192.168.1.7');
  const local = lanRoutes(
    [route('fe80::/64', ETH0, { metric: 256 }), route('fe80::/64', ETH1, { metric: 256 })],
    'private',
  );
  assert.equal(new Set(local.map(({ metric }) => metric)).size, 2);
  const highest = lanRoutes(
    [route('10.0.0.0/16', { ...ETH0, ifindex: 0x7fffffff }, { metric: 0xffffffff })],
    'private',
  );
  assert.ok((highest[0]?.metric ?? 0) < 4294967294);
});

test('only what is new is added, and only what went is removed', () => {
  const [before, after] = [
    lanRoutes([route('192.168.1.0/24'), route('fe80::/64'), route('10.1.0.0/16', ETH1)], 'private'),
    lanRoutes(
      [route('fe80::/64'), route('192.168.1.0/24', ETH0, { source: '192.168.1.9' }), route('fe80::/64', ETH1)],
      'private',
    ),
  ];
  const { add, remove } = lanChanges(before, after);
  assert.deepEqual(texts(add), ['192.168.1.0/24 eth0', 'fe80::/64 eth1']);
  assert.deepEqual(texts(remove), ['10.1.0.0/16 eth1', '192.168.1.0/24 eth0']);
  assert.deepEqual(lanChanges(after, [...after].reverse()), { add: [], remove: [] });
});

/** Prefixes in and around 192.168.7.0/24. */
const anyPrefix = fc
  .tuple(fc.integer({ min: 20, max: 32 }), fc.integer({ min: 0, max: 255 }))
  .map(([prefixLength, host]): Prefix => ({ address: clearHostBits(`192.168.7.${host}`, prefixLength), prefixLength }));
const anyRoute = fc
  .tuple(anyPrefix, fc.constantFrom(ETH0, ETH1, DOCKER0), fc.constantFrom(0, 100, 600))
  .map(([{ address, prefixLength }, link, metric]) => route(`${address}/${prefixLength}`, link, { metric }));
const anyPolicy = fc.oneof(
  fc.constantFrom<LanPolicy>('private', 'off'),
  fc.array(anyPrefix, { maxLength: 4 }) as fc.Arbitrary<LanPolicy>,
);

/** The link that table main would take, of those routes by which the policy lets this address be reached. */
function model(onLink: readonly OnLinkRoute[], policy: LanPolicy, address: string): string | undefined {
  const isAllowed = ({ link }: OnLinkRoute): boolean =>
    link.isInnerBridge ||
    policy === 'private' ||
    (typeof policy !== 'string' && policy.some((prefix) => prefixContains(prefix, address)));
  const [best] = onLink
    .filter((each) => prefixContains({ ...each, address: each.destination }, address) && isAllowed(each))
    .sort((a, b) => b.prefixLength - a.prefixLength || a.metric - b.metric || a.link.ifindex - b.link.ifindex);
  return best?.link.name;
}

function lookup(routes: readonly LanRoute[], address: string): string | undefined {
  const [best] = routes
    .filter(({ destination, prefixLength }) => prefixContains({ address: destination, prefixLength }, address))
    .sort((a, b) => b.prefixLength - a.prefixLength || a.metric - b.metric);
  return best?.dev;
}

test('the copies lead every address where table main would, and no address that the policy does not name', () => {
  fc.assert(
    fc.property(fc.array(anyRoute, { maxLength: 8 }), anyPolicy, (onLink, policy) => {
      const routes = lanRoutes(onLink, policy);
      for (let host = 0; host < 256; host++) {
        const address = `192.168.7.${host}`;
        assert.equal(lookup(routes, address), model(onLink, policy, address), address);
      }
      const keys = routes.map(({ destination, prefixLength, metric }) => `${destination}/${prefixLength} ${metric}`);
      assert.equal(new Set(keys).size, keys.length, 'the kernel takes each of them');
    }),
    { numRuns: 300 },
  );
});

test('discovery goes where main leads it, on links with a network that is allowed: of the longest prefix all, by their metrics', () => {
  const lan = lanRoutes([route('192.168.1.0/24', ETH0), route('192.168.2.0/24', ETH1)], 'private');
  const everywhere = [route('0.0.0.0/0', ETH1, { metric: 600 }), route('0.0.0.0/0', ETH0, { metric: 100 })];
  const groups = ['224.0.0.0/24', '239.255.255.250/32', '255.255.255.255/32'];
  assert.deepEqual(
    texts(discoveryRoutes(everywhere, lan)),
    groups.flatMap((group) => [`${group} eth0`, `${group} eth1`]),
  );
  const named = [
    ...everywhere,
    route('224.0.0.0/4', ETH1),
    route('224.0.0.251/32', ETH0),
    route('239.0.0.0/8', DOCKER0),
  ];
  assert.deepEqual(texts(discoveryRoutes(named, lan)), [
    '224.0.0.0/24 eth1',
    '224.0.0.251/32 eth0',
    '239.255.255.250/32 eth1',
    '255.255.255.255/32 eth0',
    '255.255.255.255/32 eth1',
  ]);
  assert.deepEqual(discoveryRoutes(named, []), [], 'no network is allowed');
  const ipv6Only = lanRoutes([route('fe80::/64', ETH0)], 'private');
  assert.deepEqual(discoveryRoutes(everywhere, ipv6Only), []);
});

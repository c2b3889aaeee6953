/** Facts about links, from listings. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { linkFacts } from '../../../src/host/links.js';
import { LINK_GROUP } from '../../../src/host/numbers.js';
import type { LinkEntry, RouteEntry } from '../../../src/kernel/rtnetlink-list.js';
import { IPV4, IPV6 } from '../../../src/model/vpn-types.js';

function link(ifindex: number, name: string, more: Partial<LinkEntry> = {}): LinkEntry {
  return { ifindex, name, group: 0, isUp: true, isLoopback: false, mtu: 1500, master: 0, kind: '', ...more };
}

function route(destination: string, ifindex: number, more: Partial<RouteEntry> = {}): RouteEntry {
  const [address = '', length = ''] = destination.split('/');
  const family = address.includes(':') ? IPV6 : IPV4;
  const hops = [{ ifindex, hasGateway: false }];
  return { family, destination: address, prefixLength: Number(length), protocol: 2, metric: 0, hops, ...more };
}

const gateway = (ifindex: number) => ({ hops: [{ ifindex, hasGateway: true }] });

test('outer is what has a gateway or a default route, of either family; loopback and vNICs are no links', () => {
  const { links } = linkFacts(
    [
      link(1, 'lo', { isLoopback: true }),
      link(2, 'eth0'),
      link(3, 'eth1'),
      link(4, 'ppp0', { kind: 'ppp' }),
      link(5, 'eth2'),
      link(6, 'eth3'),
      link(8, 'eth4'),
      link(7, 'vpn-tun0', { kind: 'tun', group: LINK_GROUP }),
    ],
    [
      route('0.0.0.0/0', 2, gateway(2)),
      route('2001:db8::/32', 3, gateway(3)),
      route('0.0.0.0/0', 4),
      route('198.18.0.0/15', 5, {
        hops: [
          { ifindex: 5, hasGateway: true },
          { ifindex: 8, hasGateway: true },
        ],
      }),
      route('192.168.1.0/24', 6),
      route('10.8.0.0/24', 7),
    ],
    [],
    {},
  );
  assert.deepEqual(
    links.map(({ name, isOuter }) => [name, isOuter]),
    [
      ['eth0', true],
      ['eth1', true],
      ['ppp0', true],
      ['eth2', true],
      ['eth3', false],
      ['eth4', true],
    ],
  );
});

test('a bridge is inner when nothing outside hangs on it: no gateway and no port that is hardware', () => {
  const bridge = (ifindex: number, name: string) => link(ifindex, name, { kind: 'bridge' });
  const { links } = linkFacts(
    [
      bridge(2, 'docker0'),
      link(3, 'veth0', { kind: 'veth', master: 2 }),
      link(4, 'tap0', { kind: 'tun', master: 2 }),
      bridge(5, 'br0'),
      link(6, 'eth0', { master: 5 }),
      bridge(7, 'br1'),
      bridge(8, 'empty'),
    ],
    [route('0.0.0.0/0', 7, gateway(7))],
    [],
    {},
  );
  assert.deepEqual(
    links.filter(({ isInnerBridge }) => isInnerBridge).map(({ name }) => name),
    ['docker0', 'empty'],
  );
});

test('on-link is what one link that is up reaches without a gateway, and is no default route', () => {
  const { onLink, lan } = linkFacts(
    [link(2, 'eth0'), link(3, 'eth1', { isUp: false }), link(7, 'vpn-tun0', { group: LINK_GROUP })],
    [
      route('192.168.1.0/24', 2, { source: '192.168.1.7', metric: 100 }),
      route('fe80::/64', 2),
      route('192.168.2.0/24', 3),
      route('10.8.0.0/24', 7),
      route('0.0.0.0/0', 2),
      route('198.18.0.0/15', 2, gateway(2)),
      route('192.168.9.0/24', 99),
      route('192.168.3.0/24', 2, {
        hops: [
          { ifindex: 2, hasGateway: false },
          { ifindex: 3, hasGateway: false },
        ],
      }),
    ],
    [route('192.168.1.0/24', 2, { metric: 5 }), route('192.168.5.0/24', 44)],
    { eth0: ['192.168.1.7'], eth1: ['fe80::1'] },
  );
  assert.deepEqual(
    onLink.map(({ destination, link: { name }, source, metric, isOwn }) => [destination, name, source, metric, isOwn]),
    [
      ['192.168.1.0', 'eth0', '192.168.1.7', 100, true],
      ['fe80::', 'eth0', undefined, 0, false],
    ],
  );
  assert.deepEqual(
    lan.map(({ destination, dev, ifindex, metric }) => [destination, dev, ifindex, metric]),
    [
      ['192.168.1.0', 'eth0', 2, 5],
      ['192.168.5.0', '', 44, 0],
    ],
  );
});

test('to groups lead the default routes of IPv4 and what names groups, by every link that is up', () => {
  const hops = [
    { ifindex: 2, hasGateway: true },
    { ifindex: 3, hasGateway: true },
    { ifindex: 4, hasGateway: true },
  ];
  const { toGroups } = linkFacts(
    [link(2, 'eth0'), link(3, 'eth1'), link(4, 'eth2', { isUp: false }), link(7, 'vpn-tun0', { group: LINK_GROUP })],
    [
      route('0.0.0.0/0', 2, { hops, metric: 100 }),
      route('0.0.0.0/0', 7),
      route('::/0', 2),
      route('192.168.1.0/24', 2),
      route('128.0.0.0/1', 2),
      route('224.0.0.0/4', 3),
      route('255.255.255.255/32', 2),
    ],
    [],
    {},
  );
  assert.deepEqual(
    toGroups.map(({ destination, prefixLength, link: { name } }) => `${destination}/${prefixLength} ${name}`),
    ['0.0.0.0/0 eth0', '0.0.0.0/0 eth1', '128.0.0.0/1 eth0', '224.0.0.0/4 eth1', '255.255.255.255/32 eth0'],
  );
});

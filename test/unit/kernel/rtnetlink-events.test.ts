/**
 * Notifications as Linux 6.18 sent them in an empty network namespace, to what `ip` 6.1, `sysctl` and `nft` 1.0.6 did; without
 * netlink's own header, and of the link's attributes only some.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { changedTable } from '../../../src/kernel/nftables-events.js';
import { readEvent } from '../../../src/kernel/rtnetlink-events.js';
import { readRoute } from '../../../src/kernel/rtnetlink-list.js';
import { IPV4, IPV6 } from '../../../src/model/vpn-types.js';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');
const NEWLINK = 16;
const DELLINK = 17;
const NEWADDR = 20;
const DELADDR = 21;
const NEWROUTE = 24;
const DELROUTE = 25;
const NEWRULE = 32;
const DELRULE = 33;
const NEWNETCONF = 80;

/** ip link set br0 up */
const LINK = hex(`
  0000010002000000 43100100 01000000 0800030062723000 08000400dc050000 08001b0000000000
  100012000b0001006272696467650000`);
/** ip addr add 10.1.2.3/24 dev br0 */
const ADDRESS = hex('0218800002000000 080001000a010203 080002000a010203 0800030062723000 0800080080000000');
/** ip route add 198.18.0.0/15 dev br0 table 50002 */
const ROUTE = hex('020f0000fc03fd0100000000 08000f0052c30000 08000100c6120000 0800040002000000');
/** What the kernel adds to table main by itself then. */
const MAIN_ROUTE = hex('02180000fe02fd0100000000 08000f00fe000000 080001000a010200 080007000a010203 0800040002000000');
/** ip -6 route add unreachable 2001:db8::/32 table 65000 */
const ROUTE6 = hex(`
  0a200000fc03000700000000 08000f00e8fd0000 1400010020010db8000000000000000000000000 0800060000040000
  0800040001000000`);
/** ip rule add pref 13100 table 50002 protocol kernel; ip -6 rule del pref 32766 */
const RULE = hex('02000000fc00000100000000 08000f0052c30000 08000e00ffffffff 0500150002000000 080006002c330000');
const RULE6 = hex('0a000000fe00000100000000 08000f00fe000000 08000e00ffffffff 0500150002000000 08000600fe7f0000');
/** sysctl net.ipv4.conf.all.rp_filter=1, and what a new link tells. */
const RP_FILTER = hex('02000000 08000100ffffffff 0800030001000000');
const NEW_LINK_CONF = hex(
  '02000000 0800010002000000 0800020000000000 0800030000000000 0800040000000000 0800080000000000',
);
/** nft flush ruleset: DELRULE, DELCHAIN, DELTABLE (cut behind the names), NEWGEN */
const DELETED_RULE = hex('01000005 0900010076706e6400000000 090002006c6f636b00000000');
const DELETED_CHAIN = hex('01000005 0900010076706e6400000000 090003006c6f636b00000000');
const DELETED_TABLE = hex('01000005 0900010076706e6400000000 0800030000000000');
const GENERATION = hex('00000005 0800010000000005 0800020000000a04 080003006e667400');

test('a link is read with its name, state and kind', () => {
  const link = {
    ifindex: 2,
    name: 'br0',
    group: 0,
    isUp: true,
    isLoopback: false,
    mtu: 1500,
    master: 0,
    kind: 'bridge',
  };
  assert.deepEqual(readEvent(NEWLINK, LINK), { kind: 'link', isGone: false, link });
  assert.deepEqual(readEvent(DELLINK, LINK), { kind: 'link', isGone: true, link });
});

test('what a bridge or addrconf says of a link is not about the link', () => {
  for (const family of [7, 10]) {
    const other = Buffer.from(LINK);
    other[0] = family;
    assert.equal(readEvent(DELLINK, other), undefined);
  }
});

test('addresses, routes and rules are read with what tells whose they are', () => {
  assert.deepEqual(readEvent(NEWADDR, ADDRESS), { kind: 'address', isGone: false, ifindex: 2 });
  assert.deepEqual(readEvent(DELADDR, ADDRESS), { kind: 'address', isGone: true, ifindex: 2 });
  const route = { kind: 'route', isGone: false, family: IPV4, table: 50002, ifindex: 2 };
  assert.deepEqual(readEvent(NEWROUTE, ROUTE), route);
  assert.deepEqual(readEvent(DELROUTE, ROUTE6), { ...route, isGone: true, family: IPV6, table: 65000, ifindex: 1 });
  const rule = { kind: 'rule', isGone: false, family: IPV4, priority: 13100, protocol: 2 };
  assert.deepEqual(readEvent(NEWRULE, RULE), rule);
  assert.deepEqual(readEvent(DELRULE, RULE6), { ...rule, isGone: true, family: IPV6, priority: 32766 });
});

test('a written rp_filter is told, the settings of a new link are not', () => {
  assert.deepEqual(readEvent(NEWNETCONF, RP_FILTER), { kind: 'rp_filter', ifindex: -1 });
  assert.equal(readEvent(NEWNETCONF, NEW_LINK_CONF), undefined);
});

test('a route is read with its source and without a gateway, or with the gateways of all its hops', () => {
  const hops = [{ ifindex: 2, hasGateway: false }];
  const route = { family: IPV4, destination: '10.1.2.0', prefixLength: 24, protocol: 2, metric: 0 };
  assert.deepEqual(readRoute(MAIN_ROUTE, IPV4), { ...route, source: '10.1.2.3', hops });
  const multipath = hex(`
    0200000 0fe03000100000000 08000f00fe000000 0800060064000000
    24000900 1000000002000000 080005000a010201 1000000003000000 080005000a010301`);
  assert.deepEqual(readRoute(multipath, IPV4), {
    family: IPV4,
    destination: '0.0.0.0',
    prefixLength: 0,
    protocol: 3,
    metric: 100,
    hops: [
      { ifindex: 2, hasGateway: true },
      { ifindex: 3, hasGateway: true },
    ],
  });
});

test('every nftables notification but the last of a transaction names its table', () => {
  assert.equal(changedTable(2568, DELETED_RULE), 'vpnd');
  assert.equal(changedTable(2565, DELETED_CHAIN), 'vpnd');
  assert.equal(changedTable(2562, DELETED_TABLE), 'vpnd');
  assert.equal(changedTable(2575, GENERATION), undefined);
  // NFNL_SUBSYS_CTNETLINK
  assert.equal(changedTable(0x100, DELETED_TABLE), undefined);
});

test('cut short or damaged, a notification is read or passed over, never thrown at', () => {
  const samples = [LINK, ADDRESS, ROUTE, ROUTE6, RULE, RP_FILTER, DELETED_RULE];
  const types = [NEWLINK, DELLINK, NEWADDR, DELADDR, NEWROUTE, DELROUTE, NEWRULE, DELRULE, NEWNETCONF, 0, 81];
  for (const sample of samples) {
    for (let length = 0; length <= sample.length; length++) {
      for (const type of types) readEvent(type, sample.subarray(0, length));
      changedTable(2562, sample.subarray(0, length));
    }
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.constantFrom(...types), (bytes, type) => {
      const known = readEvent(type, Buffer.from(bytes))?.kind;
      assert.ok(known === undefined || typeof known === 'string');
    }),
  );
});

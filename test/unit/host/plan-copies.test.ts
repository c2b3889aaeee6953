/** Which of the machine's rules are copied for protected sockets, in which order, and what is said of the rest. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { localRules } from '../../../src/host/local-rule.js';
import { isWayOut, type Lead, leadOf } from '../../../src/host/others-tables.js';
import { planCopies } from '../../../src/host/plan-copies.js';
import { NetlinkWriter } from '../../../src/kernel/netlink.js';
import { addRule, type RuleSettings } from '../../../src/kernel/rtnetlink.js';
import type { LinkEntry, RouteEntry } from '../../../src/kernel/rtnetlink-list.js';
import { addRuleCopy, copyOfRule, keyOfRule, type RuleEntry, readRuleEntry } from '../../../src/kernel/rule-entry.js';

const NETLINK_HEADER = 16;
const BYPASS = { value: 0x80000000, mask: 0x80000000 };
const MAIN = 254;
const LEADS: Record<number, Lead> = { 200: 'outside', 201: 'inside', 202: 'mixed', 203: 'nowhere', 204: 'unread' };
const leads = (table: number): Lead => LEADS[table] ?? 'nowhere';

/** As the kernel would list it. */
function rule(
  settings: Partial<RuleSettings> & { priority: number },
  more: (writer: NetlinkWriter) => void = () => {},
): RuleEntry {
  const writer = new NetlinkWriter();
  addRule({ family: 1, action: 'lookup', ...settings }).write(writer, 0, 0);
  more(writer);
  // Whoever reads it goes by the payload's length.
  const payload = Buffer.from(writer.bytes().subarray(NETLINK_HEADER));
  return { ...readRuleEntry(payload, settings.family ?? 1), protocol: 3 };
}

const local = rule({ priority: 0, table: 255 });
const main = rule({ priority: 32766, table: MAIN });
const last = rule({ priority: 32767, table: 253 });
const from = (priority: number, address: string, table = 200) => rule({ priority, from: address, table });

function plan(...rules: RuleEntry[]) {
  const { before, behind, leftOut } = planCopies([local, ...rules], leads);
  return { before: before.map(({ key }) => key), behind: behind.map(({ key }) => key), leftOut: [...leftOut] };
}

const copy = (of: RuleEntry, mark = BYPASS) => copyOfRule(of, mark).key;

test('rules that lead outside are copied in their order, in front of main and behind it', () => {
  const [a, b, c] = [from(9000, '192.0.2.1'), rule({ priority: 32000, table: 200 }), from(33000, '192.0.2.3')];
  assert.deepEqual(plan(a, b, main, last, c), { before: [copy(a), copy(b)], behind: [copy(c)], leftOut: [] });
});

test('a machine without rules of its own has no copies', () => {
  assert.deepEqual(plan(main, last), { before: [], behind: [], leftOut: [] });
});

test('rules far in front are met as they are', () => {
  assert.deepEqual(plan(from(100, '192.0.2.1'), from(7999, '192.0.2.2'), main), {
    before: [],
    behind: [],
    leftOut: [],
  });
  const early = rule({ priority: 100, table: MAIN });
  const late = from(32000, '192.0.2.1');
  assert.deepEqual(plan(early, late, main), { before: [], behind: [copy(late)], leftOut: [] });
});

test('main is asked earlier only for what stands behind', () => {
  const narrow = rule({ priority: 31000, table: MAIN, suppressPrefixLength: 0 });
  const late = from(32000, '192.0.2.1');
  assert.deepEqual(plan(narrow, late, main).before, [copy(narrow), copy(late)]);
  assert.deepEqual(plan(late, rule({ priority: 32001, table: MAIN, suppressPrefixLength: 0 }), main).before, [
    copy(late),
  ]);
  // wg-quick's.
  const tunnel = rule({ priority: 32001, table: 201, isInverted: true, fwmark: { value: 51820, mask: 0xffffffff } });
  const { before, leftOut } = plan(narrow, tunnel, main);
  assert.deepEqual(before, []);
  assert.match(leftOut.join(), /^ip -4 rule 32001 lookup 201: its table leads into what may be a tunnel$/);
});

test('what leads into a tunnel, or is not known to lead outside, is not copied', () => {
  const { before, leftOut } = plan(
    rule({ priority: 32001, table: 201 }),
    rule({ priority: 32002, table: 202 }),
    rule({ priority: 32003, table: 203 }),
    rule({ priority: 32004, table: 204 }),
    main,
  );
  assert.deepEqual(before, []);
  assert.deepEqual(
    leftOut.map((each) => each.replace(/^ip -4 rule (\d+) .*/, '$1')),
    ['32001', '32002', '32004'],
  );
});

test('of marks others’ bits are asked for, ours by nobody', () => {
  const marked = (value: number, mask: number) => rule({ priority: 32000, table: 200, fwmark: { value, mask } });
  const whole = marked(0x5, 0xffffffff);
  assert.deepEqual(plan(whole).before, [copy(whole, { value: 0x80000005, mask: 0x80ffffff })]);
  const part = marked(0x50, 0xf0);
  assert.deepEqual(plan(part).before, [copy(part, { value: 0x80000050, mask: 0x800000f0 })]);
  const absent = marked(0, 0xff000000);
  assert.deepEqual(plan(absent).before, [copy(absent, BYPASS)]);
  for (const value of [0x01000000, 0x80000000]) {
    assert.match(plan(marked(value, 0xff000000)).leftOut.join(), /bits of the mark that are vpnd’s/);
  }
});

test('what a goto passes over, and what is inverted or not known, is left out by name', () => {
  const jump = rule({ priority: 31000, action: 'goto', target: 32000, from: '192.0.2.9' });
  const [over, at] = [from(31500, '192.0.2.1'), from(32000, '192.0.2.2')];
  const passed = plan(jump, over, at, main);
  assert.deepEqual(passed.before, [copy(at)]);
  assert.match(passed.leftOut.join(), /rule 31500 lookup 200: a goto passes over it/);
  assert.match(
    plan(rule({ priority: 32000, table: 200, iif: 'eth0', isInverted: true })).leftOut.join(),
    /does not select|do not select/,
  );
  assert.match(plan(rule({ priority: 32000, isL3mdev: true })).leftOut.join(), /VRFs/);
  for (const type of [12, 18, 31, 99]) {
    const strange = rule({ priority: 32000, table: 200 }, (writer) => writer.attributeU32(type, 1));
    assert.match(plan(strange).leftOut.join(), /says something that vpnd does not know/, `attribute ${type}`);
  }
});

test('of rules that say the same one copy is made, and not more than 512', () => {
  assert.equal(
    plan(from(32000, '192.0.2.1'), from(32001, '192.0.2.1'), main, from(33000, '192.0.2.1')).before.length,
    1,
  );
  const many = Array.from({ length: 600 }, (_, index) => from(31000 + index, `198.51.${index >> 8}.${index & 255}`));
  const { before, leftOut } = plan(...many, main);
  assert.equal(before.length, 512);
  assert.equal(leftOut.length, 88);
});

test('a copy that stands has the key of the one that was made', () => {
  const of = rule({
    priority: 32000,
    table: 200,
    from: '192.0.2.0',
    fromPrefixLength: 24,
    iif: 'lo',
    suppressPrefixLength: 0,
  });
  const made = copyOfRule(of, BYPASS);
  const writer = new NetlinkWriter();
  addRuleCopy(made, 10002).write(writer, 0, 0);
  const standing = readRuleEntry(Buffer.from(writer.bytes().subarray(NETLINK_HEADER)), 1);
  assert.equal(standing.priority, 10002);
  assert.equal(standing.protocol, 2);
  assert.equal(keyOfRule(standing), made.key);
});

test('a table leads outside when all that leaves by it does', () => {
  const route = (ifindex: number, prefixLength: number, hasGateway = false): RouteEntry => {
    return { family: 1, destination: '0.0.0.0', prefixLength, protocol: 3, metric: 0, hops: [{ ifindex, hasGateway }] };
  };
  const [nic, bridge, tunnel] = [2, 3, 4];
  const lead = (...routes: RouteEntry[]) => leadOf(routes, new Set([nic]), new Set([nic, bridge]));
  assert.equal(lead(), 'nowhere');
  assert.equal(lead(route(nic, 0, true), route(nic, 24)), 'outside');
  assert.equal(lead(route(nic, 0, true), route(bridge, 24)), 'outside');
  assert.equal(lead(route(bridge, 0, true)), 'inside');
  assert.equal(lead(route(tunnel, 0)), 'inside');
  assert.equal(lead(route(nic, 0, true), route(tunnel, 24)), 'mixed');
  assert.equal(
    lead({
      ...route(nic, 0),
      hops: [
        { ifindex: nic, hasGateway: true },
        { ifindex: tunnel, hasGateway: false },
      ],
    }),
    'mixed',
  );
  // A next hop that is an object of its own has no link that could be looked at.
  assert.equal(lead(route(0, 0, true)), 'inside');
});

test('a veth leads out in a container, and to a container where there is hardware', () => {
  const link = (ifindex: number, kind: string, more: Partial<LinkEntry> = {}): LinkEntry => {
    const rest = { group: 0, isUp: true, isLoopback: false, mtu: 1500, master: 0 };
    return { ...rest, ifindex, name: `link${ifindex}`, kind, ...more };
  };
  const ways = (...links: LinkEntry[]) => links.filter((each) => isWayOut(each, links)).map(({ ifindex }) => ifindex);
  const loopback = link(1, '', { isLoopback: true });
  assert.deepEqual(ways(loopback, link(2, 'veth'), link(3, 'veth'), link(4, 'sit')), [2, 3]);
  assert.deepEqual(ways(loopback, link(2, ''), link(3, 'veth'), link(4, 'vlan')), [2, 4]);
  assert.deepEqual(ways(loopback, link(2, '', { master: 3 }), link(3, 'bridge'), link(4, 'veth', { master: 3 })), [3]);
});

test('the rule for local addresses is needed while theirs is behind ours, in front of what is in front', () => {
  const places = (rules: RuleEntry[], front?: number) =>
    localRules(rules, front).map((each) =>
      each.kind === 'rule' ? `${each.family} ${each.priority} ${each.isL3mdev ? 'vrf' : each.table}` : '',
    );
  const moved = rule({ priority: 32765, table: 255 });
  assert.deepEqual(places([local, main]), []);
  assert.deepEqual(places([rule({ priority: 7999, table: 255 }), main]), []);
  assert.deepEqual(places([rule({ priority: 8000, table: 255 }), main]), ['1 7999 255']);
  assert.deepEqual(places([moved, main]), ['1 7999 255']);
  assert.deepEqual(places([main]), ['1 7999 255'], 'while it is being moved');
  assert.deepEqual(places([]), [], 'a family that is not there');
  assert.deepEqual(places([rule({ priority: 0, table: 255, from: '192.0.2.1' }), main, moved]), ['1 7999 255']);
  assert.deepEqual(places([rule({ priority: 1000, isL3mdev: true }), moved]), ['1 7999 255']);
  assert.deepEqual(places([rule({ priority: 32000, isL3mdev: true }), moved]), ['1 7998 vrf', '1 7999 255']);
  assert.deepEqual(places([moved], 7900), ['1 7899 255']);
  assert.deepEqual(places([moved], 8950), ['1 7999 255']);
});

/**
 * The whole plan of a VPN as the `ip` and `nft` commands an administrator would type, compared with golden/NAME.txt. After
 * an intended change: UPDATE_GOLDEN=1 node --test dist/test/unit/host/plan.test.js, then read the difference line by line.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import test from 'node:test';
import { firewallBase, firewallTables } from '../../../src/host/firewall-base.js';
import { BYPASS_MARK, LAST_UID, PRIORITY } from '../../../src/host/numbers.js';
import { removals } from '../../../src/host/operation.js';
import { planBase, planVpn } from '../../../src/host/plan.js';
import { lockdownRules, lockdownTable, lockdownTables } from '../../../src/host/plan-lockdown.js';
import { renderOperations, renderPlan } from '../../../src/host/render.js';
import { inputOf, planOf, SAMPLES, type SamplePlan } from './lib/sample-plans.js';

/** This file is dist/test/unit/host/plan.test.js. */
const GOLDEN = new URL('../../../../test/unit/host/golden/', import.meta.url);

function compare(name: string, text: string): void {
  const file = new URL(`${name}.txt`, GOLDEN);
  if (process.env.UPDATE_GOLDEN) writeFileSync(file, text);
  assert.equal(text, readFileSync(file, 'utf8'));
}

function sample(name: string): SamplePlan {
  const found = SAMPLES.find((each) => each.name === name);
  if (!found) throw new Error(`no sample ${name}`);
  return found;
}

test('the rules every VPN shares', () => compare('base', renderOperations(planBase(LAST_UID))));

for (const each of SAMPLES) {
  test(`the plan of ${each.name} is what its golden text says`, () => compare(each.name, renderPlan(planOf(each))));
}

test('offload changes one word of a plan', () => {
  for (const each of SAMPLES) {
    const [without, having] = [false, true].map((offload) => renderPlan(planOf({ ...each, offload })));
    assert.equal(having, without?.replace(/^(ip tuntap add \S+ mode tun)\n/, '$1 vnet_hdr\n'));
    assert.notEqual(having, without);
  }
});

test('the firewall that every VPN shares', () =>
  compare('firewall-base', `${[...firewallTables(), ...firewallBase()].join('\n')}\n`));

test('of protocols, ports and users the firewall has numbers, and names that nft knows without a file of the host', () => {
  const everyone = { lan: [], frames: ['eth0'], tellsSubflows: false };
  const texts = [
    ...firewallBase({ takesNew: false, tellsSubflows: false }),
    ...SAMPLES.flatMap((each) => renderPlan(planOf(each)).split('\n')).filter((line) => line.startsWith('nft ')),
    ...lockdownTable(new Set([0, 2001]), { owners: new Set([2002]) }, everyone),
  ];
  const operands = texts.flatMap((text) => [
    ...text.matchAll(/\b(l4proto|protocol|[sd]port|skuid) (?:!= |== )?(\{[^}]*\}|@?["+\w-]+)/g),
  ]);
  const words = new Set(
    operands.flatMap(([, key, operand = '']) => (operand.match(/@?["+\w-]+/g) ?? []).map((word) => `${key} ${word}`)),
  );
  const known =
    /^(skuid (@\w+|vmap|"\+\d+"(-"\+\d+")?)|(l4proto|protocol|[sd]port) (@\w+|\d+(-\d+)?|tcp|udp|udplite|sctp|dccp|icmp|icmpv6|igmp))$/;
  assert.ok(words.size > 10, 'it finds them');
  assert.deepEqual(
    [...words].filter((word) => !known.test(word)),
    [],
  );
});

test('lockdown of two users, of whom one has a VPN', () => {
  const users = new Set([2001, 2002]);
  const lan = [{ dev: 'eth0', destination: '192.168.50.0', prefixLength: 24 }];
  const table = lockdownTable(users, { owners: new Set([2002]) }, { lan, frames: ['eth0'] });
  compare(
    'lockdown',
    `${renderOperations(lockdownRules(users, LAST_UID))}${[...lockdownTables(), ...table].join('\n')}\n`,
  );
});

test("root's lockdown is everyone's, but for those whose VPN is up", () => {
  const rules = renderOperations(lockdownRules([0], LAST_UID));
  assert.match(rules, /rule add pref 14900 iif lo uidrange 0-4294967294 goto 14950/);
  const closed = lockdownTable(new Set([0]), { owners: new Set() }, { lan: [], frames: [] }).join('\n');
  assert.match(closed, /^add rule inet vpnd_lockdown lockdown goto closed$/m);
  const released = lockdownTable(new Set([0]), { owners: new Set([0]) }, { lan: [], frames: [] }).join('\n');
  assert.doesNotMatch(released, /lockdown goto closed/);
});

test('every golden text has its plan', () => {
  const names = readdirSync(GOLDEN).map((file) => file.replace(/\.txt$/, ''));
  assert.deepEqual(names.sort(), ['base', 'firewall-base', 'lockdown', ...SAMPLES.map(({ name }) => name)].sort());
});

test('a goto comes after the rule it leads to', () => {
  for (const each of SAMPLES) {
    for (const family of [1, 2]) {
      const standing = new Set<number>();
      for (const operation of [...planBase(LAST_UID), ...planOf(each).rules]) {
        if (operation.kind !== 'rule' || operation.family !== family) continue;
        if (operation.target !== undefined) {
          assert.ok(standing.has(operation.target), `${each.name}: ${operation.priority} goto ${operation.target}`);
          assert.ok(operation.target > operation.priority, 'the kernel refuses a goto backwards');
        }
        standing.add(operation.priority);
      }
    }
  }
});

test('no rule but those of the base takes protected sockets', () => {
  for (const each of SAMPLES) {
    for (const operation of planOf(each).rules) {
      if (operation.kind !== 'rule' || operation.fwmark === undefined) continue;
      assert.equal((operation.fwmark.value & BYPASS_MARK) >>> 0, 0, each.name);
      assert.ok(operation.priority > PRIORITY.bypassEnd, each.name);
    }
  }
});

test('a family that is not accepted has no route, only a ladder that ends in unreachable', () => {
  const { routes, rules } = planOf(sample('user-ipv4'));
  assert.ok(routes.every(({ family }) => family === 1));
  const ladder = rules.filter((rule) => rule.kind === 'rule' && rule.family === 2 && rule.priority >= PRIORITY.ladders);
  assert.deepEqual(
    ladder.map((rule) => rule.kind === 'rule' && rule.action),
    ['unreachable', 'lookup', 'goto', 'goto', 'nop'],
  );
});

test('a route that its excluded parts leave nothing of has no set in the firewall, and no rule that names one', () => {
  const address = (text: string) => ({ address: { address: text }, prefixLength: 32 });
  const route = (text: string, prefixLength: number, isExcludedRoute: boolean) => {
    return { destination: { address: { address: text }, prefixLength }, gateway: { address: '' }, isExcludedRoute };
  };
  const routes = [route('192.0.2.0', 24, false), route('192.0.2.0', 25, true), route('192.0.2.128', 25, true)];
  const text = renderPlan(
    planOf({ name: '', slot: 0, owner: 2001, config: { addresses: [address('10.0.0.5')], routes } }),
  );
  assert.doesNotMatch(text, /in4_0/);
  assert.match(text, /add element inet vpnd out4_0 \{ 192\.0\.2\.0-192\.0\.2\.255 \}/);
});

test('what hangs on the vNIC goes with it; everything else is removed in reverse order', () => {
  const { routes, rules } = planOf(sample('excluded-routes'));
  const words = [...removals([...routes, ...rules])].map((request) => `${request.call} ${request.describe()}`);
  const expected = [...routes, ...rules]
    .filter((operation) => operation.kind === 'rule' || (operation.kind === 'route' && operation.dev === undefined))
    .reverse();
  assert.equal(words.length, expected.length);
  assert.match(words[0] ?? '', /^RTM_DELRULE rule 11\d00 goto/);
  assert.match(words.at(-1) ?? '', /^RTM_DELROUTE unreachable 0\.0\.0\.0\/0 table 50042$/);
});

test('planVpn() changes nothing of its input and answers equal for equal input', () => {
  for (const each of SAMPLES) {
    const input = inputOf(each);
    const before = structuredClone(input);
    assert.deepEqual(planVpn(input), planVpn(structuredClone(before)));
    assert.deepEqual(input, before);
  }
});

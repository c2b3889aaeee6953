import assert from 'node:assert/strict';
import test from 'node:test';
import { exceptionsOfLockdown, exceptionsOfVpn } from '../../../src/host/exceptions.js';
import { DEFAULT_HOST_POLICY } from '../../../src/host/host-policy.js';
import type { LanRoute } from '../../../src/host/links.js';
import { planOf, SAMPLES } from './lib/sample-plans.js';

const LAN: LanRoute[] = [
  { family: 1, destination: '192.168.50.0', prefixLength: 24, dev: 'eth0', ifindex: 2, metric: 0 },
  { family: 2, destination: 'fe80::', prefixLength: 64, dev: 'eth0', ifindex: 2, metric: 256 },
];

function of(name: string, lan: LanRoute[] = LAN) {
  const sample = SAMPLES.find((each) => each.name === name);
  assert.ok(sample);
  return exceptionsOfVpn(planOf(sample), lan, DEFAULT_HOST_POLICY);
}
const hops = (exceptions: { kind: string; hopLimit?: number }[]) =>
  exceptions.flatMap(({ kind, hopLimit }) => (hopLimit === undefined ? [] : [`${kind} ${hopLimit}`])).sort();
const kinds = (exceptions: { kind: string }[]) => [...new Set(exceptions.map(({ kind }) => kind))].sort();

test("a user's VPN lets out what is protected, answers, local networks and what others say because of it", () => {
  const exceptions = of('user-ipv4');
  const expected = [
    'handed-over',
    'igmp',
    'inbound',
    'lan',
    'lan-discovery',
    'mld',
    'parameter-problem',
    'privileged',
    'protected',
    'reassembly',
    'reset',
    'resolver',
    'subordinate',
    'unreachable',
    'vsock',
  ];
  assert.deepEqual(kinds(exceptions), expected);
  assert.ok(exceptions.every(({ uid, reason }) => uid === 2001 && reason.length > 20));
});

test("root's VPN lets out what keeps the links alive as well", () => {
  const added = kinds(of('root-everything')).filter((kind) => !kinds(of('user-ipv4')).includes(kind));
  assert.deepEqual(added, ['arp', 'dhcp', 'link-frames', 'ndp']);
  assert.deepEqual(hops(of('root-everything')), ['igmp 1', 'mld 1', 'ndp 255']);
  assert.deepEqual(hops(of('user-ipv4')), ['igmp 1', 'mld 1']);
});

test('without local networks there is no exception for them', () => {
  assert.ok(!kinds(of('user-ipv4', [])).some((kind) => kind.startsWith('lan')));
});

test('excluded prefixes are named', () => {
  const excluded = of('excluded-routes').filter(({ kind }) => kind === 'excluded');
  assert.deepEqual(
    excluded.map(({ family, destinations }) => [family, destinations]),
    [
      [4, ['192.168.0.0/16']],
      [6, ['2001:db8:7::/48']],
    ],
  );
});

test('a link that the policy lets forward directly is named, and packet sockets where lists have applications', () => {
  const sample = SAMPLES.find(({ name }) => name === 'root-blocked-dns');
  assert.ok(sample);
  const forwarding = new Map([
    ['docker0', 'direct'],
    ['virbr0', 'block'],
  ] as const);
  const exceptions = exceptionsOfVpn(planOf(sample), [], { ...DEFAULT_HOST_POLICY, forwarding });
  assert.deepEqual(
    exceptions.filter(({ kind }) => kind === 'forwarded').map(({ from }) => from),
    ['docker0'],
  );
  assert.ok(kinds(exceptions).includes('packet-socket'));
});

test('under lockdown nothing but local networks, protected sockets, the upkeep of links and what others say because of a user', () => {
  const exceptions = exceptionsOfLockdown([2001], LAN);
  const upkeep = ['arp', 'dhcp', 'igmp', 'link-frames', 'mld', 'ndp'];
  const sockets = ['handed-over', 'lan', 'lan-discovery', 'privileged', 'protected', 'vsock'];
  const around = ['parameter-problem', 'reassembly', 'reset', 'resolver', 'subordinate', 'unreachable'];
  assert.deepEqual(kinds(exceptions), [...upkeep, ...sockets, ...around].sort());
  assert.deepEqual(kinds(exceptionsOfLockdown([0], LAN)), [...upkeep, ...sockets].sort());
  assert.ok(exceptions.every(({ uid, lockdown }) => uid === 2001 && lockdown === true));
  const local = [...exceptions, ...exceptionsOfLockdown([0], LAN)].filter(({ kind }) => kind.startsWith('lan'));
  assert.ok(local.every(({ exceptDestinationPort }) => exceptDestinationPort === 53));
  assert.match(String(exceptions.find(({ kind }) => kind === 'resolver')?.reason), /nss-resolve, D-Bus/);
  assert.deepEqual(hops(exceptions), ['igmp 1', 'mld 1', 'ndp 255'], 'each once');
});

test('leases are of system accounts only, and the list says so', () => {
  for (const exceptions of [of('root-everything'), exceptionsOfLockdown([2001, 0], LAN)]) {
    const leases = exceptions.filter(({ kind }) => kind === 'dhcp');
    assert.ok(leases.length > 0 && leases.every(({ reason }) => /uids 0 to 999.*any server/.test(reason)));
  }
});

test('no exception would explain every packet', () => {
  for (const each of [...of('root-everything'), ...exceptionsOfLockdown([0], LAN)]) {
    const { kind: _, uid: __, lockdown: ___, reason: ____, ...fields } = each;
    assert.ok(
      Object.keys(fields).some((field) => field !== 'family'),
      each.kind,
    );
  }
});

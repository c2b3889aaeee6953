/**
 * Sixteen users with a VPN each, at once, each with other applications in it: everybody's everything, or only one cgroup's, or
 * all but one cgroup's. Every one is only in its own tunnel, and whom none covers is in none.
 *
 *   app: uids 2101 … 2116, 2200 without a VPN        eth0 ── LAN ── router ── server, exit1 … exit16        eth1 ── cafe
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { canonicalState } from './lib/canonical-state.js';
import type { TestCgroup } from './lib/cgroup.js';
import { connect, type Exit } from './lib/exits.js';
import { isTunnelDatagram, POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { type VpnApp, vpnConfig } from './lib/vpn-app.js';
import { exitOf, settledState } from './lib/vpn-lab.js';

const { internet } = ADDRESSES;
const { app: own, router } = POLICY_ADDRESSES;
const FAMILIES = ['ipv4', 'ipv6'] as const;
const PROTOCOLS = ['tcp', 'udp', 'icmp'] as const;
const COUNT = 16;
const UNCOVERED = 2200;

interface User {
  uid: number;
  exit: Exit;
  /** What its VPN is for: everything, only what is in the cgroup, or all but that. */
  kind: 'everything' | 'trusted' | 'blocked';
  cgroup: TestCgroup;
  process: VpnApp;
}

/** Who of a user is in its tunnel: `inside` the cgroup or not. */
function isCovered({ kind }: User, inside: boolean): boolean {
  return kind === 'everything' || (kind === 'trusted') === inside;
}

async function raise(lab: PolicyLab, number: number): Promise<User> {
  const uid = 2100 + number;
  const kind = (['everything', 'trusted', 'blocked'] as const)[number % 3] ?? 'everything';
  const exit = exitOf(lab, number);
  const cgroup = lab.cgroup(`app-of-${uid}.scope`);
  const process = await lab.process(uid);
  const list = [`cgroup:${cgroup.path}`];
  const more = { trusted: { trustedApplications: list }, blocked: { blockedApplications: list }, everything: {} }[kind];
  await connect(process, exit, vpnConfig(exit.vnic, { dnsAddresses: [exit.ipv4, exit.ipv6], ...more }));
  return { uid, exit, kind, cgroup, process };
}

async function isWhereItBelongs(lab: PolicyLab, user: User, inside: boolean): Promise<void> {
  const { uid, exit, kind, cgroup } = user;
  const covered = isCovered(user, inside);
  const who = { uid, timeoutMs: 10_000, ...(inside && { cgroup }) };
  for (const family of FAMILIES) {
    const about = `${uid} ${kind} ${inside ? 'inside' : 'outside'} ${family}`;
    const answers = PROTOCOLS.map(async (protocol) => {
      const wanted = covered
        ? { side: exit.name, source: exit.client[family] }
        : { side: 'server', source: own[family] };
      assert.deepEqual(await lab.probe({ ...who, protocol, target: internet[family] }), wanted, `${about} ${protocol}`);
    });
    const names = (['dns-udp', 'dns-tcp'] as const).map(async (protocol) => {
      const answer = await lab.probe({ ...who, protocol, target: router[family] });
      assert.deepEqual(answer, { side: covered ? exit.name : 'router' }, `${about} ${protocol}`);
    });
    await Promise.all([...answers, ...names]);
  }
}

/** By a device, or an address, of others. */
async function isKeptOut(lab: PolicyLab, uid: number, device: string, exit: Exit): Promise<void> {
  for (const family of FAMILIES) {
    for (const more of [{ bindTo: device }, { source: exit.client[family] }]) {
      const answer = await lab.probe({ uid, protocol: 'udp', target: internet[family], timeoutMs: 200, ...more });
      assert.ok(
        'error' in answer || answer.side !== exit.name,
        `${uid} by ${JSON.stringify(more)}: ${JSON.stringify(answer)}`,
      );
    }
  }
}

test('sixteen VPNs of sixteen users with different applications: each only in its own tunnel, with its own DNS', {
  timeout: 400_000,
}, async (t) => {
  const numbers = Array.from({ length: COUNT }, (_, index) => index + 1);
  const callers = numbers.map((number) => ({
    match: { uid: 2100 + number },
    system: true,
    permissions: ['ohos.permission.MANAGE_VPN'],
  }));
  const lab = await policyLab(t, { networks: numbers, vpnd: { policy: { callers } } });
  if (!lab) return;
  const before = await canonicalState(lab.app);
  const users: User[] = [];
  for (const number of numbers) users.push(await raise(lab, number));

  const since = await lab.moment();
  const covered = users.flatMap((user) =>
    [true, false].filter((inside) => isCovered(user, inside)).map((inside) => ({ user, inside })),
  );
  for (const { user, inside } of covered) await isWhereItBelongs(lab, user, inside);
  assert.deepEqual(await lab.leaks({ isProtected: isTunnelDatagram }, undefined, since), []);
  const outside = users.flatMap((user) =>
    [true, false].filter((inside) => !isCovered(user, inside)).map((inside) => ({ user, inside })),
  );
  assert.equal(outside.length, users.filter(({ kind }) => kind !== 'everything').length);
  for (const { user, inside } of outside) await isWhereItBelongs(lab, user, inside);

  const afterwards = await lab.moment();
  for (const [index, { uid }] of users.entries()) {
    const other = (index + 5) % COUNT;
    await isKeptOut(lab, uid, `vpn-tun${other}`, exitOf(lab, other + 1));
  }
  await isKeptOut(lab, UNCOVERED, 'vpn-tun3', exitOf(lab, 4));
  const tunnel = new Set(users.flatMap(({ exit }) => Object.values(exit.client)));
  const skipped = [...afterwards.values()].reduce((sum, each) => sum + each, 0);
  assert.ok(skipped > 0);
  assert.deepEqual(
    (await lab.departed()).filter(({ source }) => tunnel.has(source)),
    [],
  );
  const free = await lab.probe({ uid: UNCOVERED, protocol: 'tcp', target: internet.ipv4 });
  assert.deepEqual(free, { side: 'server', source: own.ipv4 });

  // Half of them go: the others stay where they are.
  const [gone, staying] = [users.filter(({ uid }) => uid % 2 === 0), users.filter(({ uid }) => uid % 2 === 1)];
  await Promise.all(gone.map(({ process }) => process.call('destroy')));
  for (const user of staying) await isWhereItBelongs(lab, user, user.kind === 'trusted');
  for (const { uid } of gone) {
    const answer = await lab.probe({ uid, protocol: 'tcp', target: internet.ipv6 });
    assert.deepEqual(answer, { side: 'server', source: own.ipv6 }, `${uid}`);
  }
  await Promise.all(staying.map(({ process }) => process.call('destroy')));
  await settledState(lab.app, before);
});

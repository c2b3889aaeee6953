/**
 * Hosts with VRFs look up the table `local` last: `ip rule add pref 1000 l3mdev`, and the rule of priority 0 at 32765. What is on
 * the host itself stays there all the same while VPNs are up. (This kernel has no VRF links.)
 *
 *   app  eth0 192.168.50.2, fd50::2 ── LAN with lanhost ── router ── server, exit1
 *        port 22 on all addresses; a resolver at 127.0.0.53
 */
import assert from 'node:assert/strict';
import { dirname } from 'node:path';
import { test } from 'node:test';
import { VICTIMS, type Victim } from './lib/attackers/victim.js';
import { canonicalState } from './lib/canonical-state.js';
import { connect } from './lib/exits.js';
import { startPeer } from './lib/peers.js';
import { INBOUND_PORT, POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import type { Answer } from './lib/prober/operations.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { type VpnApp, vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf, settledState } from './lib/vpn-lab.js';
import { startVpnd } from './lib/vpnd.js';

const TIMEOUT = { timeout: 300_000 };
const own = POLICY_ADDRESSES.app;
const STUB = '127.0.0.53';
const HERE = ['127.0.0.1', '::1', own.ipv4, own.ipv6];

async function both(lab: PolicyLab, ...commands: string[]): Promise<void> {
  for (const family of ['-4', '-6']) {
    for (const command of commands) await lab.app.run('ip', [family, ...command.split(' ')]);
  }
}

/** As hosts with VRFs do, and back. */
const localLast = (lab: PolicyLab) => both(lab, 'rule add pref 32765 lookup local', 'rule del pref 0');
const localFirst = (lab: PolicyLab) => both(lab, 'rule add pref 0 lookup local protocol kernel', 'rule del pref 32765');

async function raise(lab: PolicyLab, { owner, config }: Pick<Victim, 'owner' | 'config'>): Promise<VpnApp> {
  const exit = exitOf(lab, 1);
  const app = await lab.process(owner);
  await connect(app, exit, vpnConfig(exit.vnic, config));
  return app;
}

const said = (answer: Answer) => ('side' in answer ? answer.side : answer.error);

/** Who answers: on loopback and at the host's own addresses, at the local resolver, in the tunnel, to a stranger. */
async function whoAnswers(lab: PolicyLab, { covered }: Victim, timeoutMs: number): Promise<Record<string, string>> {
  const heard: Record<string, string> = {};
  for (const uid of covered) {
    for (const target of HERE) {
      const tcp = await lab.probe({ uid, protocol: 'tcp', target, port: INBOUND_PORT, timeoutMs });
      heard[`${uid} ${target} tcp`] = said(tcp);
      heard[`${uid} ${target} ping`] = said(await lab.probe({ uid, protocol: 'icmp', target, timeoutMs }));
    }
    heard[`${uid} ${STUB} dns`] = said(await lab.probe({ uid, protocol: 'dns-udp', target: STUB, timeoutMs }));
    for (const family of ['ipv4', 'ipv6'] as const) {
      const target = ADDRESSES.internet[family];
      heard[`${uid} ${family} internet`] = said(await lab.probe({ uid, protocol: 'udp', target, timeoutMs }));
    }
  }
  const stranger = await lab.stranger(lab.lanHost);
  for (const family of ['ipv4', 'ipv6'] as const) {
    const target = own[family];
    const answer = await stranger.call('probe', { protocol: 'tcp', target, port: INBOUND_PORT, timeoutMs });
    heard[`stranger ${family}`] = said(answer);
    heard[`stranger ${family} ping`] = said(await stranger.call('probe', { protocol: 'icmp', target, timeoutMs }));
  }
  return heard;
}

function wanted(what: string, internet: string): string {
  if (what.endsWith('ping')) return 'kernel';
  if (what.endsWith('dns')) return 'stub';
  return what.endsWith('internet') ? internet : 'app';
}

async function everythingAnswers(lab: PolicyLab, victim: Victim, internet: string, what: string): Promise<void> {
  const differences = async (timeoutMs: number) => {
    const heard = await whoAnswers(lab, victim, timeoutMs);
    return Object.entries(heard).filter(([each, side]) => side !== wanted(each, internet));
  };
  await eventually(what, async () => (await differences(1000)).length === 0 || undefined).catch(async () =>
    assert.deepEqual(await differences(5000), [], what),
  );
}

interface ListedRule {
  priority: number;
  table?: string;
  l3mdev?: null;
  protocol?: string;
}

/** Both families' rules, in their order, that decide what is local. */
async function localRules(lab: PolicyLab): Promise<ListedRule[][]> {
  const lists = ['-4', '-6'].map((family) => lab.app.json<ListedRule[]>('ip', [family, '-j', '-d', 'rule', 'list']));
  return (await Promise.all(lists)).map((rules) => rules.filter((rule) => rule.table === 'local' || 'l3mdev' in rule));
}

const ownLocals = async (lab: PolicyLab) =>
  (await localRules(lab)).flatMap((rules) =>
    rules.filter(({ priority, protocol, table }) => table === 'local' && priority > 0 && protocol === 'kernel'),
  ).length;

for (const victim of VICTIMS) {
  test(
    `${victim.whose}: what is on the host stays there, wherever the rule for the table local stands`,
    TIMEOUT,
    async (t) => {
      const lab = await policyLab(t);
      if (!lab) return;
      await startPeer(lab.app, { kind: 'dns', name: 'stub', a: '192.0.2.53', address: STUB });
      const { app } = lab;
      await both(lab, 'rule add pref 1000 l3mdev protocol kernel');
      const usual = await canonicalState(app);
      await localLast(lab);
      const last = await canonicalState(app);
      await everythingAnswers(lab, victim, 'server', 'without a VPN');

      const vpn = await raise(lab, victim);
      await everythingAnswers(lab, victim, 'exit1', 'local last, then the VPN');
      for (const rules of await localRules(lab)) {
        assert.ok('l3mdev' in (rules[0] ?? {}), `l3mdev first: ${JSON.stringify(rules)}`);
        assert.equal(rules[1]?.table, 'local');
      }
      // A rule of somebody else's in front of ours, where those without a priority land.
      await both(lab, 'rule add pref 9500 lookup main suppress_prefixlength 0');
      await everythingAnswers(lab, victim, 'exit1', 'with front rules');
      await both(lab, 'rule del pref 9500');

      await localFirst(lab);
      await eventually('ours goes when it is first again', async () => (await ownLocals(lab)) === 0 || undefined);
      await everythingAnswers(lab, victim, 'exit1', 'local first again');
      await localLast(lab);
      await everythingAnswers(lab, victim, 'exit1', 'local last while the VPN is up');

      const elsewhere = ['203.0.113.0/24 via 192.168.60.1', '2001:db8:f::/48 via fd60::1'];
      // Without a priority the kernel puts a rule right in front of ours for local addresses: of what is ours to decide it decides nothing.
      await app.ip(...elsewhere.map((route) => `route add ${route} dev eth1 table 200`));
      for (let times = 1; times <= 2; times++) {
        await both(lab, 'rule add lookup 200');
        await everythingAnswers(lab, victim, 'exit1', `${times} rules in front of ours`);
      }
      await both(lab, 'rule del lookup 200', 'rule del lookup 200');
      await app.ip(...elsewhere.map((route) => `route del ${route} dev eth1 table 200`));
      await everythingAnswers(lab, victim, 'exit1', 'without them');

      // Somebody takes ours away.
      await eventually('back at its place', async () => {
        const places = (await localRules(lab)).map((each) => each.find(({ table }) => table === 'local')?.priority);
        return places.every((each) => each === 7999) || undefined;
      });
      await both(lab, 'rule del pref 7999');
      await everythingAnswers(lab, victim, 'exit1', 'put back');

      await vpn.call('destroy');
      await settledState(app, last);
      await everythingAnswers(lab, victim, 'server', 'afterwards');

      await raise(lab, victim);
      await lab.vpnd.kill9();
      await everythingAnswers(lab, victim, 'exit1', 'with the service dead');
      await startVpnd(app, { directory: dirname(lab.vpnd.socket) });
      await settledState(app, last);
      await localFirst(lab);
      await settledState(app, usual);
    },
  );
}

test('a rule for VRFs that stands far behind is led before ours as well', TIMEOUT, async (t) => {
  const lab = await policyLab(t);
  if (!lab) return;
  await both(lab, 'rule add pref 32000 l3mdev');
  await localLast(lab);
  const before = await canonicalState(lab.app);
  const [victim] = VICTIMS as [Victim];
  const vpn = await raise(lab, victim);
  for (const rules of await localRules(lab)) {
    assert.ok('l3mdev' in (rules[0] ?? {}), `l3mdev first: ${JSON.stringify(rules)}`);
    assert.equal(rules[1]?.table, 'local');
  }
  await vpn.call('destroy');
  await settledState(lab.app, before);
});

test('lockdown: what is on the host stays there, and nothing else is let through', TIMEOUT, async (t) => {
  const lab = await policyLab(t);
  if (!lab) return;
  const { app } = lab;
  await both(lab, 'rule add pref 1000 l3mdev');
  await localLast(lab);
  const open = await canonicalState(app);
  const heard = async () => {
    const answers: Record<string, string> = {};
    for (const target of [...HERE, ...Object.values(POLICY_ADDRESSES.lanHost), ...Object.values(ADDRESSES.internet)]) {
      const port = HERE.includes(target) ? INBOUND_PORT : 7;
      answers[target] = said(await lab.probe({ uid: 2002, protocol: 'tcp', target, port, timeoutMs: 1500 }));
    }
    return answers;
  };
  const closed = {
    ...Object.fromEntries(HERE.map((target) => [target, 'app'])),
    ...Object.fromEntries(Object.values(POLICY_ADDRESSES.lanHost).map((target) => [target, 'lanhost'])),
    ...Object.fromEntries(Object.values(ADDRESSES.internet).map((target) => [target, 'EACCES'])),
  };
  const isClosed = async (what: string) => {
    const isSo = async () => JSON.stringify(await heard()) === JSON.stringify(closed) || undefined;
    await eventually(what, isSo).catch(async () => assert.deepEqual(await heard(), closed, what));
  };
  const callers = [0, 2001, 2002].map((uid) => ({
    match: { uid },
    system: true,
    permissions: ['ohos.permission.MANAGE_VPN'],
  }));
  const reload = (lockdown: number[]) => lab.vpnd.reload({ callers, ...(lockdown.length > 0 && { lockdown }) });
  reload([2002]);
  await isClosed('by a new policy');
  await localFirst(lab);
  await eventually('ours goes when it is first again', async () => (await ownLocals(lab)) === 0 || undefined);
  await isClosed('local first');
  await localLast(lab);
  await isClosed('local last again');
  const [victim] = VICTIMS as [Victim];
  const vpn = await raise(lab, victim);
  await isClosed('beside a VPN');
  await vpn.call('destroy');
  await isClosed('after a VPN');
  await lab.vpnd.kill9();
  await isClosed('with the service dead');
  const policy = { callers, lockdown: [2002] };
  const vpnd = await startVpnd(app, { directory: dirname(lab.vpnd.socket), policy });
  await isClosed('with its successor');
  vpnd.reload({ callers });
  await settledState(app, open);
  await vpnd.stop();
});

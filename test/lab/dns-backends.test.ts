/**
 * Names of covered users and applications with the three real back ends, from libc's call to the packet at the server:
 * lib/dns-lab.ts has the picture. `exit1` is user 2001's VPN, `exit2` root's.
 *
 *   uid 2001 ─ getent, dig ─┬─ systemd-resolved 127.0.0.53 ─┬─ vpn-tunA ═══ exit1 three servers
 *   uid 2002, root ─────────┤  openresolv                   ├─ vpn-tunB ═══ exit2 three servers
 *   cgroup of 2001 ─────────┘  /etc/resolv.conf             └─ eth0 ─────── lanhost two servers, router, the far ones
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { VpnConfig } from '../../src/model/vpn-types.js';
import { type TestCgroup, whyNoCgroup } from './lib/cgroup.js';
import { BACK_ENDS, type DnsLab, directQuestions, dnsLab, dnsOf, MACHINE, serversOf } from './lib/dns-lab.js';
import { connect, PLACES } from './lib/exits.js';
import type { DepartedPacket } from './lib/leak-check.js';
import { isTunnelDatagram, POLICY_ADDRESSES } from './lib/policy-lab.js';
import type { Answer } from './lib/prober/operations.js';
import { resolvectlAs } from './lib/resolvers.js';
import { type VpnApp, vpnConfig } from './lib/vpn-app.js';
import { exitOf } from './lib/vpn-lab.js';

const FAR = [PLACES[0], PLACES[1]];
const LAN = [POLICY_ADDRESSES.lanHost.ipv4, POLICY_ADDRESSES.lanHost.ipv6];
/** libc by UDP and by TCP; the names tell the user, the transport and the phase. */
const WAYS = [
  ['udp', 'timeout:10'],
  ['tcp', 'timeout:10 use-vc'],
] as const;

/** Every way to ask of one user, in the end: `libc` and `direct` name who answered. `cgroup`: of an application of the user. */
async function askAll(lab: DnsLab, uid: number, phase: string, cgroup?: TestCgroup) {
  const inside = cgroup && { cgroup };
  const label = `${uid}${cgroup ? `-${cgroup.path.split('/').at(-1)?.replace(/\W/g, '-')}` : ''}`;
  const libc = await Promise.all(
    WAYS.map(([way, options]) => lab.lookUp({ uid, name: `${way}.${label}.${phase}.example.net`, options, ...inside })),
  );
  const stub = lab.backEnd === 'systemd-resolved' ? ['127.0.0.53'] : [];
  const answers: [string, Answer][] = [];
  const prober = await lab.prober({ uid, ...inside });
  for (const question of directQuestions([...stub, ...MACHINE, ...LAN, ...FAR])) {
    answers.push([question.target, await prober.call('probe', { ...question, timeoutMs: 20_000 })]);
  }
  return { libc, direct: answers };
}

/** What libc asks of one user in one phase. */
const names = (uid: number | string, phase: string) => WAYS.map(([way]) => `${way}.${uid}.${phase}.example.net`);

/** Everything of this user is answered by that exit's servers, and nothing of it is seen outside. */
async function isCovered(lab: DnsLab, uid: number, exit: 'exit1' | 'exit2', phase: string): Promise<void> {
  const other = exit === 'exit1' ? 'exit2' : 'exit1';
  const asked = await lab.asked(async () => {
    const { libc, direct } = await askAll(lab, uid, phase);
    assert.deepEqual(libc, [exit, exit], `${phase}: uid ${uid}`);
    for (const [target, answer] of direct) assert.deepEqual(answer, { side: exit }, `${phase}: uid ${uid} ${target}`);
  });
  assert.deepEqual(asked[exit], [...names(uid, phase), 'who.test'].sort(), phase);
  assert.deepEqual({ [other]: asked[other], outside: asked.outside }, { [other]: [], outside: [] }, phase);
}

/** This user asks as if there were no VPN. */
async function isUncovered(lab: DnsLab, uid: number, phase: string): Promise<void> {
  const asked = await lab.asked(async () => expectUncovered(await askAll(lab, uid, phase), `${phase}: uid ${uid}`));
  assert.deepEqual({ exit1: asked.exit1, exit2: asked.exit2 }, { exit1: [], exit2: [] }, phase);
  for (const name of names(uid, phase)) {
    assert.ok(
      MACHINE.some((server) => asked.outside.includes(`${name} @${server}`)),
      `${phase}: ${name}`,
    );
  }
}

function expectUncovered({ libc, direct }: Awaited<ReturnType<typeof askAll>>, what: string): void {
  assert.deepEqual(libc, ['machine', 'machine'], what);
  for (const [target, answer] of direct) {
    const side = FAR.includes(target as never) ? 'server' : LAN.includes(target as never) ? 'lanhost' : 'machine';
    assert.deepEqual(answer, { side }, `${what} ${target}`);
  }
}

async function isMachines(lab: DnsLab, original: string, phase: string): Promise<void> {
  assert.equal(await lab.file(), original, phase);
  for (const uid of [2001, 2002]) await isUncovered(lab, uid, phase);
}

for (const backEnd of BACK_ENDS) {
  test(`${backEnd}: a user's VPN is for that user's names, root's for all others', and each goes by itself`, {
    timeout: 300_000,
  }, async (t) => {
    const lab = await dnsLab(t, backEnd);
    if (!lab) return;
    const [one, two] = [exitOf(lab, 1), exitOf(lab, 2)];
    const original = await lab.file();
    const [user, root] = (await Promise.all([2001, 0].map((uid) => lab.process(uid)))) as [VpnApp, VpnApp];
    await isMachines(lab, original, 'before');

    await connect(user, one, vpnConfig(one.vnic, dnsOf(one, { searchDomains: ['home.example'] })));
    assert.equal(await lab.file(), original, 'a user’s VPN is no business of the machine’s resolver');
    await isCovered(lab, 2001, 'exit1', 'users');
    await isUncovered(lab, 2002, 'users');
    if (backEnd === 'systemd-resolved') await isAskedByTheResolver(lab);

    const config = vpnConfig(two.vnic, dnsOf(two, { searchDomains: ['corp.example', 'lab.example'] }));
    await connect(root, two, config);
    const since = await lab.moment();
    for (const [uid, exit] of [[2001, 'exit1'] as const, [2002, 'exit2'] as const, [0, 'exit2'] as const]) {
      await isCovered(lab, uid, exit, 'both');
    }
    await completes(lab, 2002, 'intranet.corp.example');
    if (backEnd !== 'systemd-resolved') {
      const text = `search corp.example lab.example\n${serversOf(two)
        .map((server) => `nameserver ${server}\n`)
        .join('')}`;
      assert.ok((await lab.file()).endsWith(text), await lab.file());
    }

    await user.call('destroy');
    for (const uid of [2001, 2002]) await isCovered(lab, uid, 'exit2', 'roots');
    await connect(user, one, vpnConfig(one.vnic, dnsOf(one)));
    assert.deepEqual(await lab.leaks({ isProtected: isTunnelDatagram }, undefined, since), []);
    await root.call('destroy');
    assert.equal(await lab.file(), original, 'root’s VPN has gone');
    await isCovered(lab, 2001, 'exit1', 'left');
    await isUncovered(lab, 2002, 'left');
    await user.call('destroy');
    await isMachines(lab, original, 'after');
  });

  test(`${backEnd}: names of a user's listed applications go to the VPN's servers, those of its others do not`, {
    timeout: 300_000,
    skip: whyNoCgroup() ?? false,
  }, async (t) => {
    const lab = await dnsLab(t, backEnd);
    if (!lab) return;
    const one = exitOf(lab, 1);
    const user = await lab.process(2001);
    const browser = lab.cgroup('app.slice/app-gnome-org.example.Browser-4711.scope');
    const mailer = lab.cgroup('app.slice/app-gnome-org.example.Mailer-4712.scope');
    await lab.prober({ uid: 2001, cgroup: browser });
    const cases: [Omit<VpnConfig, 'addresses'>, TestCgroup, TestCgroup][] = [
      [{ trustedApplications: ['org.example.Browser'] }, browser, mailer],
      [{ blockedApplications: [`cgroup:${browser.path}`] }, mailer, browser],
    ];
    for (const [lists, covered, passed] of cases) {
      await connect(user, one, vpnConfig(one.vnic, dnsOf(one, lists)));
      const phase = Object.keys(lists)[0]?.slice(0, 7).toLowerCase() ?? '';
      const inside = await lab.asked(async () => {
        const { libc, direct } = await askAll(lab, 2001, phase, covered);
        assert.deepEqual(libc, ['exit1', 'exit1'], phase);
        for (const [target, answer] of direct) assert.deepEqual(answer, { side: 'exit1' }, `${phase}: ${target}`);
      });
      assert.deepEqual(inside.outside, [], phase);
      const outside = await lab.asked(async () => {
        expectUncovered(await askAll(lab, 2001, phase, passed), phase);
        expectUncovered(await askAll(lab, 2002, phase), phase);
      });
      assert.deepEqual(outside.exit1, [], phase);
      await user.call('destroy');
    }
  });
}

/** A name without a dot gets the VPN's first domain. */
async function completes(lab: DnsLab, uid: number, name: string): Promise<void> {
  const asked = await lab.asked(async () =>
    assert.equal(await lab.lookUp({ uid, name: name.split('.')[0] ?? '' }), 'exit2'),
  );
  assert.deepEqual(asked, { exit1: [], exit2: [name], outside: [] });
}

/**
 * Over D-Bus nobody's packet to port 53 can be redirected: the resolver asks as itself, which is one of the exceptions, and
 * the only packets of its name that are seen.
 */
async function isAskedByTheResolver(lab: DnsLab): Promise<void> {
  const since = await lab.moment();
  const name = 'bus.2001.example.net';
  // The bus talks to users that it finds there.
  await lab.app.run('sh', ['-c', 'echo "dns-user:x:2001:2001::/:/bin/false" >> /etc/passwd']);
  const asked = await lab.asked(() => resolvectlAs(lab.app, 2001, 'query', name));
  // Of the machine's servers whichever it is with at the moment: it leaves one that was slow.
  const { outside, ...inside } = asked;
  assert.deepEqual(inside, { exit1: [], exit2: [] });
  assert.notDeepEqual(outside, []);
  const allowed = MACHINE.map((server) => `${name} @${server}`);
  assert.deepEqual(
    outside.filter((each) => !allowed.includes(each)),
    [],
  );
  const exceptions = await lab.exceptions();
  assert.ok(exceptions.some(({ uid, socket }) => uid === 2001 && (socket as string) === 'resolver'));
  const isUncovered = ({ destination, destinationPort }: DepartedPacket) =>
    destinationPort === 53 && MACHINE.includes(destination as never);
  assert.deepEqual(
    (await lab.leaks({ isUncovered, isProtected: isTunnelDatagram }, exceptions, since)).filter(
      (line) => !line.includes(' arp ') && !line.includes(' icmpv6 '),
    ),
    [],
  );
}

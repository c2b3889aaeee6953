/**
 * VPNs for some applications only, or for all but some. An application here is a user or a cgroup of the machine's own tree.
 *
 *   app                                               router           server
 *   uid 2001 ── vpn-tunA ═════════════════════════════════════════════ UDP 51821 ══ exit1
 *   uid 0    ── vpn-tunB ═════════════════════════════════════════════ UDP 51822 ══ exit2
 *                eth0 ─────────────────────────────── 192.0.2.1 `lan` ─ answers as `server`
 *
 *   cgroup2 root ── vpnd-lab-PID ── processes called "inside": one of uid 2001, one of uid 2002
 */
import assert from 'node:assert/strict';
import { mkdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { listSocketMarks } from '../../src/kernel/bpf.js';
import type { VpnConfig } from '../../src/model/vpn-types.js';
import { makeCgroup, type TestCgroup, whyNoCgroup } from './lib/cgroup.js';
import { captureDepartures } from './lib/departures.js';
import { connect, EVERYWHERE, type Exit, pathOf, startServers } from './lib/exits.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { type VpnApp, vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf, type VpnLab, vpnLab } from './lib/vpn-lab.js';

const skip = whyNoCgroup() ?? false;
const MANAGE_VPN = 'ohos.permission.MANAGE_VPN';
/** For answers that are to come. */
const PATIENT = { timeoutMs: 20_000 };
const ask = (app: VpnApp): Promise<string[]> =>
  app.call('ask', ...EVERYWHERE.map((question) => ({ ...question, ...PATIENT })));

interface AppLab extends VpnLab {
  cgroup: TestCgroup;
  /** Who uses the network. */
  inside1: VpnApp;
  inside2: VpnApp;
  outside1: VpnApp;
  outside2: VpnApp;
  root: VpnApp;
}

async function appLab(t: TestContext): Promise<AppLab | undefined> {
  const policy = (path: string) => ({
    callers: [0, 2001, 2002].map((uid) => ({ match: { uid }, system: true, permissions: [MANAGE_VPN] })),
    applications: { browser: { cgroup: path }, mailer: { uid: 2002 } },
  });
  const lab = await vpnLab(t, { networks: [1, 2] });
  if (!lab) return undefined;
  // After the lab's: hooks run in the order in which they were given, and a cgroup goes when its processes have ended.
  const cgroup = makeCgroup(t);
  lab.vpnd.reload(policy(cgroup.path));
  await lab.vpnd.process.waitFor(/ policy-loaded /);
  await lab.app.run('sh', ['-c', 'echo "vpn-lab-mailer:x:2002:2002::/:/bin/false" >> /etc/passwd']);
  await startServers(lab.router, 'lan', ['192.0.2.1', '2001:db8:1::1']);
  const processes = await Promise.all([2001, 2002, 2001, 2002, 0].map((uid) => lab.process(uid)));
  const [inside1, inside2, outside1, outside2, root] = processes as [VpnApp, VpnApp, VpnApp, VpnApp, VpnApp];
  cgroup.add(inside1);
  cgroup.add(inside2);
  return { ...lab, cgroup, inside1, inside2, outside1, outside2, root };
}

const USERS = ['inside1', 'outside1', 'inside2', 'outside2', 'root'] as const;
type Path = 'in' | 'out';

/** Asks everything as everybody: who goes in arrives with the vNIC's address, who does not with the host's. */
async function expectPaths(lab: AppLab, exit: Exit, expected: readonly Path[], what: string): Promise<void> {
  const answers: string[][] = await Promise.all(USERS.map((user) => ask(lab[user])));
  USERS.forEach((user, index) => {
    const path = expected[index] === 'in' ? pathOf(exit.name, exit.client) : pathOf('server', ADDRESSES.app);
    assert.deepEqual(answers[index], path, `${what}: ${user}`);
  });
}

test("a user's VPN for some of its applications, or for all but some", { timeout: 240_000, skip }, async (t) => {
  const lab = await appLab(t);
  if (!lab) return;
  const exit = exitOf(lab, 1);
  const owner = await lab.process(2001);
  const cgroup = `cgroup:${lab.cgroup.path}`;
  //                                             inside1  outside1  inside2  outside2  root
  const cases: [object, readonly Path[]][] = [
    [{ trustedApplications: [cgroup] }, /*     */ ['in', 'out', 'out', 'out', 'out']],
    [{ trustedApplications: ['browser'] }, /*  */ ['in', 'out', 'out', 'out', 'out']],
    [{ blockedApplications: [cgroup] }, /*     */ ['out', 'in', 'out', 'out', 'out']],
    [{ blockedApplications: ['browser'] }, /*  */ ['out', 'in', 'out', 'out', 'out']],
    [{ trustedApplications: ['uid:2001'] }, /* */ ['in', 'in', 'out', 'out', 'out']],
    [{ trustedApplications: ['browser', 'uid:2001'] }, ['in', 'in', 'out', 'out', 'out']],
  ];
  for (const [lists, expected] of cases) {
    await connect(owner, exit, vpnConfig(exit.vnic, lists));
    await expectPaths(lab, exit, expected, JSON.stringify(lists));
    assert.doesNotMatch(
      (await lab.app.run('nft', ['list', 'ruleset'])).stdout,
      /snat/,
      'source addresses are right without NAT',
    );
    await owner.call('destroy');
    assert.deepEqual(listSocketMarks(lab.cgroup.directory), []);
    const fd: number = await lab.inside1.call('open', 1, 'udp');
    assert.equal((await lab.inside1.call('state', fd)).mark, '0', 'a new socket after destroy');
    await lab.inside1.call('close', fd);
  }
});

test('a cgroup that is made again is covered again', { timeout: 240_000, skip }, async (t) => {
  const lab = await appLab(t);
  if (!lab) return;
  const exit = exitOf(lab, 1);
  const { directory, path } = lab.cgroup;
  const named = join(directory, 'service');
  mkdirSync(named);
  const owner = await lab.process(2001);
  await connect(owner, exit, vpnConfig(exit.vnic, { trustedApplications: [`cgroup:${path}/service`] }));
  assert.equal(listSocketMarks(named).length, 1);
  rmdirSync(named);
  mkdirSync(named);
  await eventually('the program', async () => listSocketMarks(named).length === 1 || undefined);
  await owner.call('destroy');
  assert.deepEqual(listSocketMarks(named), []);
  rmdirSync(named);
});

test("root's VPN for some users and cgroups, or for all but some", { timeout: 240_000, skip }, async (t) => {
  const lab = await appLab(t);
  if (!lab) return;
  const exit = exitOf(lab, 2);
  const owner = await lab.process(0);
  const cgroup = `cgroup:${lab.cgroup.path}`;
  //                                                       inside1 outside1 inside2 outside2 root
  const cases: [object, readonly Path[]][] = [
    [{ trustedApplications: ['uid:2002'] }, /*           */ ['out', 'out', 'in', 'in', 'out']],
    [{ trustedApplications: ['user:vpn-lab-mailer'] }, /**/ ['out', 'out', 'in', 'in', 'out']],
    [{ trustedApplications: ['mailer'] }, /*             */ ['out', 'out', 'in', 'in', 'out']],
    [{ trustedApplications: [cgroup] }, /*               */ ['in', 'out', 'in', 'out', 'out']],
    [{ trustedApplications: ['browser', 'uid:0'] }, /*   */ ['in', 'out', 'in', 'out', 'in']],
    [{ blockedApplications: ['uid:2002'] }, /*           */ ['in', 'in', 'out', 'out', 'in']],
    [{ blockedApplications: ['browser'] }, /*            */ ['out', 'in', 'out', 'in', 'in']],
    [{ blockedApplications: ['browser', 'uid:0'] }, /*   */ ['out', 'in', 'out', 'in', 'out']],
  ];
  for (const [lists, expected] of cases) {
    await connect(owner, exit, vpnConfig(exit.vnic, lists));
    await expectPaths(lab, exit, expected, JSON.stringify(lists));
    await owner.call('destroy');
    assert.deepEqual(listSocketMarks(lab.cgroup.directory), []);
  }
});

test("the same cgroup in a user's and in root's list: the user's wins, and its other sockets are not root's", {
  timeout: 240_000,
  skip,
}, async (t) => {
  const lab = await appLab(t);
  if (!lab) return;
  const [one, two] = [exitOf(lab, 1), exitOf(lab, 2)];
  const [owner, root] = await Promise.all([lab.process(2001), lab.process(0)]);
  const lists = { trustedApplications: ['browser'] };
  const inOne = pathOf('exit1', one.client);
  const inTwo = pathOf('exit2', two.client);
  const physical = pathOf('server', ADDRESSES.app);
  for (const order of [
    [owner, root],
    [root, owner],
  ]) {
    for (const app of order) {
      const exit = app === owner ? one : two;
      await connect(app, exit, vpnConfig(exit.vnic, lists));
    }
    const answers: string[][] = await Promise.all(USERS.map((user) => ask(lab[user])));
    assert.deepEqual(answers, [inOne, physical, inTwo, physical, physical]);
    await owner.call('destroy');
    assert.deepEqual(await ask(lab.inside1), inTwo);
    await root.call('destroy');
    assert.deepEqual(listSocketMarks(lab.cgroup.directory), []);
  }
});

test('DNS of the applications in the list goes to the servers of the VPN, DNS of the others where it went', {
  timeout: 240_000,
  skip,
}, async (t) => {
  const lab = await appLab(t);
  if (!lab) return;
  const [one, two] = [exitOf(lab, 1), exitOf(lab, 2)];
  const [owner, root] = await Promise.all([lab.process(2001), lab.process(0)]);
  const questions = ['192.0.2.1', '2001:db8:1::1'].flatMap((address) => [
    { address, transport: 'dns-udp' as const, ...PATIENT },
    { address, transport: 'dns-tcp' as const, ...PATIENT },
  ]);
  const answered = async (expected: readonly string[], what: string) => {
    const answers: string[][] = await Promise.all(USERS.map((user) => lab[user].call('ask', ...questions)));
    assert.deepEqual(
      answers.map((each) => [...new Set(each)].join()),
      expected,
      what,
    );
  };
  for (const [app, exit, lists, expected] of [
    [owner, one, { trustedApplications: ['browser'] }, ['exit1', 'lan', 'lan', 'lan', 'lan']],
    [owner, one, { blockedApplications: ['browser'] }, ['lan', 'exit1', 'lan', 'lan', 'lan']],
    [root, two, { trustedApplications: ['browser', 'uid:0'] }, ['exit2', 'lan', 'exit2', 'lan', 'exit2']],
    [root, two, { blockedApplications: ['browser', 'mailer'] }, ['lan', 'exit2', 'lan', 'lan', 'exit2']],
  ] as const) {
    const servers = { dnsAddresses: [exit.ipv4, exit.ipv6] };
    await connect(app, exit, vpnConfig(exit.vnic, { ...mutable(lists), ...servers }));
    const departures = await captureDepartures(lab.app);
    await answered(expected, JSON.stringify(lists));
    const left = (await departures.stop()).filter((line) => line.endsWith(':53'));
    assert.equal(
      left.every((line) => / > (192\.0\.2\.1|2001:db8:1::1):53$/.test(line)),
      true,
      left.join(),
    );
    await app.call('destroy');
  }
  await answered(['lan', 'lan', 'lan', 'lan', 'lan'], 'after destroy');
});

test("a socket that outlives its VPN never gets into another user's", { timeout: 800_000, skip }, async (t) => {
  const lab = await appLab(t);
  if (!lab) return;
  const [one, two] = [exitOf(lab, 1), exitOf(lab, 2)];
  const whoami = { transport: 'udp' as const, address: ADDRESSES.internet.ipv4, unconnected: true, ...PATIENT };
  const dns = { transport: 'dns-udp' as const, address: '192.0.2.1', unconnected: true, ...PATIENT };
  const physical = [`server ${ADDRESSES.app.ipv4}`, 'lan'];
  for (const first of [2001, 0]) {
    const [before, after] = await Promise.all([lab.process(first), lab.process(2002)]);
    for (const lists of [{ trustedApplications: ['browser'] }, { blockedApplications: ['browser'] }]) {
      await connect(before, one, vpnConfig(one.vnic, { ...lists, dnsAddresses: [one.ipv4] }));
      const fds = [await lab.inside1.call('open', 1, 'udp'), await lab.inside1.call('open', 1, 'udp')] as const;
      assert.notEqual((await lab.inside1.call('state', fds[0])).mark, '0');
      await before.call('destroy');
      const config = vpnConfig(two.vnic, { dnsAddresses: [two.ipv4] });
      await connect(after, two, config);
      if (first !== 0) await untilMarkIsReused(lab, after, config, two, (await lab.inside1.call('state', fds[0])).mark);
      const answers: string[] = [
        await lab.inside1.call('askOn', fds[0], whoami),
        await lab.inside1.call('askOn', fds[1], dns),
      ];
      assert.deepEqual(answers, physical, `${first}, ${JSON.stringify(lists)}`);
      await after.call('destroy');
      for (const fd of fds) await lab.inside1.call('close', fd);
    }
  }
});

/** Marks are given out in turn: sets the VPN up again and again until it has the one that the old socket has. */
async function untilMarkIsReused(lab: AppLab, app: VpnApp, config: VpnConfig, exit: Exit, mark: string): Promise<void> {
  let fd: number | undefined;
  for (let turn = 0; turn < 127; turn++) {
    const { stdout } = await lab.app.run('ip', ['rule', 'show', 'pref', '10100']);
    if (stdout.includes(`fwmark 0x${mark}/`)) {
      if (fd !== undefined) await app.call('forward', fd, exit.address, exit.port);
      return;
    }
    await app.call('destroy');
    fd = await app.call('setUp', config);
  }
  assert.fail(`0x${mark} does not come again`);
}

const mutable = (lists: { readonly [list: string]: readonly string[] }) =>
  Object.fromEntries(Object.entries(lists).map(([list, names]) => [list, [...names]]));

/**
 * Who is an application: its cgroups, by every name that desktops and package systems give them, started before and after setUp, by
 * fork and by exec, several at once, children, and started again; on the list of a user's and of root's VPN, trusted and blocked.
 *
 *   app cgroup2 ── vpnd-policy-… ── app-gnome-org.example.App-1234.scope, … ── processes of uid 2001, 2002 and 0
 *       vpn-tun0 ════════════════════════════════════ exit1      captured: what is covered asks `internet`,
 *       eth0 ─── router ── server                                          what is not asks `server`
 *       eth1 ─── cafe
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { removeCgroup } from '../../src/kernel/cgroup.js';
import type { VpnConfig } from '../../src/model/vpn-types.js';
import type { Capture } from './lib/capture.js';
import { whyNoCgroup } from './lib/cgroup.js';
import { connect } from './lib/exits.js';
import { type Answers, type FlowKind, type Launcher, type Start, startLauncher } from './lib/launcher.js';
import type { DepartedPacket } from './lib/leak-check.js';
import { FAMILIES, isLinkUpkeep, momentAt } from './lib/policy-facts.js';
import { isTunnelDatagram, POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { type VpnApp, vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf } from './lib/vpn-lab.js';

const skip = whyNoCgroup() ?? false;
const TIMEOUT = { timeout: 300_000, skip };
const { internet, server } = ADDRESSES;
const KINDS: readonly FlowKind[] = ['tcp', 'udp', 'datagram', 'icmp'];
const UUID = '1f0c2c5e-98a4-4f0e-8a55-0123456789ab';
const PLAIN = 'plain';

/** What the lists name, and the cgroups in which such an application may be found. */
const LISTED: Record<string, readonly string[]> = {
  [PLAIN]: [PLAIN, `${PLAIN}/inner`],
  'org.example.App': [
    'app-gnome-org.example.App-1234.scope',
    'app-org.example.App-1.scope',
    'app.slice/app-KDE-org.example.App-7.scope/inner/deeper',
    'app-org.example.App.scope',
    'app-gnome-org.example.App@autostart.service',
    'app-org.example.App-3.slice/run-1.scope',
    'dbus-:1.2-org.example.App@0.service',
    'gnome-launched-org.example.App.desktop-9.scope',
  ],
  'web-mail.desktop': ['app-gnome-web\\x2dmail-55.scope', 'gnome-launched-web-mail.desktop-56.scope'],
  'exampled.service': ['exampled.service', 'exampled.service/worker'],
  'example-tpl@': ['example-tpl@one.service'],
  'org.example.Flat': ['app-flatpak-org.example.Flat-42.scope', 'flatpak-org.example.Flat-43.scope'],
  snapbox: [`snap.snapbox.gui-${UUID}.scope`, 'snap.snapbox.daemon.service'],
};
/** Nobody's on the list, and alike. */
const OTHERS = [
  'other',
  `${PLAIN}er`,
  'app-gnome-org.example.AppPlus-1.scope',
  'app-org.example-1.scope',
  'app-org.example.app-1.scope',
  'app-gnome-web-mail-55.scope',
  'xexampled.service',
  'org.example.App',
  `snap.snapboxer.gui-${UUID}.scope`,
];
/** Only in these mounts, which are the lab host's own. */
const INSTALL = `
set -e
for folder in /usr/share /var/lib; do
  mkdir -p "/run/overlay$folder/upper" "/run/overlay$folder/work"
  mount -t overlay -o "lowerdir=$folder,upperdir=/run/overlay$folder/upper,workdir=/run/overlay$folder/work" overlay "$folder"
done
mkdir -p /usr/share/applications /run/systemd/system
: > /usr/share/applications/org.example.App.desktop
: > /usr/share/applications/web-mail.desktop
: > /run/systemd/system/exampled.service
: > '/run/systemd/system/example-tpl@.service'
mkdir -p /var/lib/flatpak/app/org.example.Flat /var/lib/snapd/snap/snapbox
ln -s 1 /var/lib/snapd/snap/snapbox/current`;

interface Instance extends Start {
  isListed: boolean;
}

interface Scene {
  lab: PolicyLab;
  launcher: Launcher;
  vpn: VpnApp;
  owner: number;
  list: 'trustedApplications' | 'blockedApplications';
}

async function scene(t: TestContext, { owner, list }: Pick<Scene, 'owner' | 'list'>): Promise<Scene | undefined> {
  const lab = await policyLab(t);
  if (!lab) return undefined;
  await lab.app.run('sh', ['-c', INSTALL]);
  const [launcher, vpn] = await Promise.all([startLauncher(lab.app), lab.process(owner)]);
  return { lab, launcher, vpn, owner, list };
}

/** With every name in the list; and the capture of its vNIC. */
async function raise({ lab, vpn, list }: Scene): Promise<Capture> {
  const exit = exitOf(lab, 1);
  const names = Object.keys(LISTED).map((name) => (name === PLAIN ? `cgroup:${lab.cgroup(PLAIN).path}` : name));
  const config: VpnConfig = vpnConfig(exit.vnic, { [list]: names });
  await connect(vpn, exit, config);
  return lab.app.capture('vpn-tun0');
}

function isCovered({ owner, list }: Scene, { isListed, uid }: Instance): boolean {
  return isListed === (list === 'trustedApplications') && (owner === 0 || owner === uid);
}

/** One in each cgroup and for each of these users; where it is plain, of root's too. */
async function startAll(
  { lab, launcher }: Scene,
  generation: string,
  how: Start['how'],
  uids: readonly number[] = [2001, 2002],
): Promise<Instance[]> {
  const started: Instance[] = [];
  const cgroups = [
    ...Object.values(LISTED).flatMap((paths) => paths.map((path) => ({ path, isListed: true }))),
    ...OTHERS.map((path) => ({ path, isListed: false })),
  ];
  for (const { path, isListed } of cgroups) {
    for (const uid of [...uids, ...(path === PLAIN || path === OTHERS[0] ? [0] : [])]) {
      const name = `${generation} ${path} ${uid}`;
      const instance: Instance = { name, cgroup: lab.cgroup(path), uid, isListed, ...(how && { how }) };
      await launcher.start(instance);
      started.push(instance);
    }
  }
  return started;
}

/** Their cgroups go with them, as systemd sees to it; the one that a list names by its path stays. */
async function leave(instances: readonly Instance[]): Promise<void> {
  const directories = instances
    .filter(({ cgroup }) => !cgroup.path.includes(`/${PLAIN}`))
    .map(({ cgroup }) => cgroup.directory);
  // A process leaves its cgroup a moment after its end is heard of.
  for (const directory of new Set(directories.toReversed()))
    await eventually(directory, async () => removeCgroup(directory) || undefined);
}

const namesOf = (instances: readonly Instance[]) => instances.map(({ name }) => name);

/** Where each is to ask: so that a packet's destination says whether it was covered. */
function questions(the: Scene, instances: readonly Instance[]): Map<string, readonly string[]> {
  return new Map(instances.map((each) => [each.name, Object.values(isCovered(the, each) ? internet : server)]));
}

/** What somebody is told who has this address. */
function told(targets: { ipv4: string; ipv6: string }, side: string, own: { ipv4: string; ipv6: string }): Answers {
  const lines = FAMILIES.flatMap((family) =>
    KINDS.map((kind) => [`${kind} ${targets[family]}`, `${side} ${own[family]}`]),
  );
  return Object.fromEntries(lines);
}

async function allGoTheirWay(the: Scene, instances: readonly Instance[]): Promise<void> {
  const { client, name } = exitOf(the.lab, 1);
  const answers = await the.launcher.ask(questions(the, instances), KINDS);
  const wanted = instances.map((each) => [
    each.name,
    isCovered(the, each) ? told(internet, name, client) : told(server, 'server', POLICY_ADDRESSES.app),
  ]);
  const differences = wanted.filter(([name, each]) => !isDeepStrictEqual(answers[name as string], each));
  assert.deepEqual(
    Object.fromEntries(differences.map(([name]) => [name, answers[name as string]])),
    Object.fromEntries(differences),
  );
}

/** What a socket from before the VPN says: it has ended, or what it sends is dropped or inside; what is not covered goes on. */
function isRight(the: Scene, instance: Instance, kind: FlowKind, answer: string): boolean {
  if (!isCovered(the, instance)) return answer === 'again' || answer.startsWith('server ');
  if (/^(EPIPE|EDESTADDRREQ|ECONNABORTED)$/.test(answer)) return true;
  const isConnected = kind === 'tcp' || kind === 'udp';
  return !isConnected && (answer === 'EPERM' || answer === 'silence' || answer.startsWith('exit1 '));
}

/** What left and was covered, what is in the tunnel and was not, and what nobody explains. */
async function strays({ lab }: Scene, tunnel: Capture, since = 0): Promise<string[]> {
  const isTo = (addresses: object, packet: { destination: string }) =>
    Object.values(addresses).includes(packet.destination);
  const inside = (await tunnel.stop()).filter((packet) => isTo(server, packet));
  const outside = (await lab.departed())
    .filter(({ timeMs }) => timeMs > since)
    .filter((packet) => isTo(internet, packet));
  const isUncovered = (packet: DepartedPacket) =>
    isLinkUpkeep(packet) || (isTo(server, packet) && !isTunnelDatagram(packet));
  const leaks = await lab.leaks({ isUncovered, isProtected: isTunnelDatagram }, undefined, await momentAt(lab, since));
  const lines = (where: string, packets: typeof inside) =>
    packets.map((each) => `${where} ${each.protocol} ${each.source}`);
  return [...new Set([...lines('tunnel', inside), ...lines('link', outside), ...leaks])];
}

const MATRIX = [2001, 0].flatMap((owner) =>
  (['trustedApplications', 'blockedApplications'] as const).map((list) => ({ owner, list })),
);

for (const { owner, list } of MATRIX) {
  const what = `${owner === 0 ? "root's" : "a user's"} VPN, ${list}`;

  test(
    `${what}: what starts later is itself from its first packet, by every name, again and again`,
    TIMEOUT,
    async (t) => {
      const the = await scene(t, { owner, list });
      if (!the) return;
      const tunnel = await raise(the);
      const first = await startAll(the, 'first', 'exec');
      await allGoTheirWay(the, first);
      const second = await startAll(the, 'second', 'fork', [2001]);
      const children = await startAll(the, 'child', 'child', [2001]);
      await allGoTheirWay(the, [...first, ...second, ...children]);
      await the.launcher.end(namesOf([...first, ...second, ...children]));
      await leave(first);
      const restarted = await startAll(the, 'restarted', 'fork');
      await allGoTheirWay(the, restarted);
      assert.deepEqual(await strays(the, tunnel), []);
      assert.equal(the.launcher.complaints(), '');
    },
  );

  test(`${what}: what runs already gets on the right side, and its old sockets on no other`, TIMEOUT, async (t) => {
    const the = await scene(t, { owner, list });
    if (!the) return;
    const { launcher } = the;
    const old = await startAll(the, 'old', 'fork');
    const before = await launcher.open(questions(the, old), KINDS);
    const sides = new Set(
      Object.values(before).flatMap((each) => Object.values(each).map((text) => text.split(' ')[0])),
    );
    assert.deepEqual([...sides], ['server']);

    const tunnel = await raise(the);
    const since = Date.now();
    const answers = {
      ...(await launcher.again(namesOf(old.filter((each) => isCovered(the, each))), 300)),
      ...(await launcher.again(namesOf(old.filter((each) => !isCovered(the, each))), 30_000)),
    };
    const wrong = old.flatMap((each) =>
      Object.entries(answers[each.name] ?? {}).flatMap(([question, answer]) => {
        const kind = question.split(' ')[0] as FlowKind;
        return isRight(the, each, kind, answer) ? [] : [`${each.name}: ${question}: ${answer}`];
      }),
    );
    assert.deepEqual(wrong, []);
    const more = [
      ...(await startAll(the, 'second', 'fork', [2001])),
      ...(await startAll(the, 'child', 'child', [2001])),
    ];
    await allGoTheirWay(the, [...old, ...more]);
    assert.deepEqual(await strays(the, tunnel, since), []);

    await the.vpn.call('destroy');
    const all = [...old, ...more];
    const after = await launcher.ask(new Map(all.map((each) => [each.name, Object.values(internet)])), KINDS);
    const wanted = told(internet, 'server', POLICY_ADDRESSES.app);
    assert.deepEqual(
      Object.keys(after).filter((name) => !isDeepStrictEqual(after[name], wanted)),
      [],
    );
    assert.equal(launcher.complaints(), '');
  });
}

for (const owner of [2001, 0]) {
  const whose = owner === 0 ? "root's" : "a user's";

  test(`${whose} VPN: the firewall comes back also when applications that it knew have ended`, TIMEOUT, async (t) => {
    const the = await scene(t, { owner, list: 'trustedApplications' });
    if (!the) return;
    const { lab, launcher } = the;
    const cgroup = lab.cgroup('app-gnome-org.example.App-1234.scope');
    const instance: Instance = { name: 'one', cgroup, uid: 2001, isListed: true };
    await launcher.start(instance);
    const tunnel = await raise(the);
    const listed = async () => (await lab.app.run('nft', ['list', 'table', 'inet', 'vpnd'], { check: false })).stdout;
    assert.match(await listed(), /socket cgroupv2 .*app-gnome-org\.example\.App-1234\.scope/);
    await launcher.end(['one']);
    await leave([instance]);
    await lab.app.run('nft', ['flush', 'ruleset']);
    await eventually('the firewall', async () => /chain lock/.test(await listed()) || undefined);
    const again = { ...instance, cgroup: lab.cgroup('app-gnome-org.example.App-1235.scope') };
    await launcher.start(again);
    await allGoTheirWay(the, [again]);
    assert.deepEqual(await strays(the, tunnel), []);
  });
}

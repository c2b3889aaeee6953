/**
 * Applications that send with their first breath, two hundred of them, while the CPU is busy with other things: a launcher makes
 * a cgroup with an application's name, forks into it and sends. Not one packet on the wrong side.
 *
 *   app launcher ── app-gnome-org.example.App-0.scope … -199.scope, each a process of uid 2001 that sends and ends
 *       vpn-tun0 ════════════════════════════════════ exit1      captured: where the list says
 *       eth0 ─── router ── server                                captured: and nowhere else
 */
import assert from 'node:assert/strict';
import { availableParallelism } from 'node:os';
import { type TestContext, test } from 'node:test';
import type { Capture } from './lib/capture.js';
import { whyNoCgroup } from './lib/cgroup.js';
import { connect } from './lib/exits.js';
import { FIRST_PORT, type Launcher, startLauncher } from './lib/launcher.js';
import type { DepartedPacket } from './lib/leak-check.js';
import type { CapturedPacket } from './lib/pcap.js';
import { FAMILIES, isLinkUpkeep } from './lib/policy-facts.js';
import { isTunnelDatagram, POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { vpnConfig } from './lib/vpn-app.js';
import { exitOf } from './lib/vpn-lab.js';

const skip = whyNoCgroup() ?? false;
const TIMEOUT = { timeout: 240_000, skip };
const ID = 'org.example.App';
const PATTERN = `app-gnome-${ID}-#.scope`;
const LAUNCHES = 200;
const TARGETS = Object.values(ADDRESSES.internet);
const OWNERS = [
  { owner: 2001, name: "a user's VPN" },
  { owner: 0, name: "root's VPN" },
];
/** A unit file is enough for the name; the host's /run is its own. */
const INSTALL = `mkdir -p /run/systemd/system && : > /run/systemd/system/${ID}.service`;

interface Scene {
  lab: PolicyLab;
  launcher: Launcher;
}

async function scene(t: TestContext): Promise<Scene | undefined> {
  const lab = await policyLab(t);
  if (!lab) return undefined;
  await lab.app.run('sh', ['-c', INSTALL]);
  const launcher = await startLauncher(lab.app);
  await launcher.load(2 * availableParallelism());
  return { lab, launcher };
}

async function raise({ lab }: Scene, owner: number, lists: object): Promise<Capture> {
  const exit = exitOf(lab, 1);
  await connect(await lab.process(owner), exit, vpnConfig(exit.vnic, lists));
  return lab.app.capture('vpn-tun0');
}

const isToTargets = ({ destination }: CapturedPacket) => TARGETS.some((target) => target === destination);

/** `LAUNCH PROTOCOL FAMILY SOURCE` of what was sent by volleys, each once. */
function sentBy(packets: readonly CapturedPacket[]): Set<string> {
  const lines = packets.filter(isToTargets).map(({ protocol, family, source, destinationPort, payload }) => {
    const text = /volley (\d+)/.exec(Buffer.from(payload).toString('latin1'))?.[1];
    const launch = protocol.startsWith('icmp') ? text : String((destinationPort ?? 0) - FIRST_PORT);
    return `${launch} ${protocol.replace('v6', '')} ${family} ${source}`;
  });
  return new Set(lines);
}

/** What so many launches send in all. */
function expected(count: number, sources: { ipv4: string; ipv6: string }): Set<string> {
  const lines = Array.from({ length: count }, (_, launch) =>
    FAMILIES.flatMap((family, index) =>
      ['tcp', 'udp', 'icmp'].map((protocol) => `${launch} ${protocol} ${index + 1} ${sources[family]}`),
    ),
  );
  return new Set(lines.flat());
}

function assertSame(actual: ReadonlySet<string>, wanted: ReadonlySet<string>, where: string): void {
  const differences = {
    missing: [...wanted].filter((line) => !actual.has(line)),
    extra: [...actual].filter((line) => !wanted.has(line)),
  };
  assert.deepEqual(differences, { missing: [], extra: [] }, where);
}

const FACTS = { isProtected: isTunnelDatagram };

for (const { owner, name } of OWNERS) {
  test(`${name}: a trusted application is inside from its first packet, ${LAUNCHES} times`, TIMEOUT, async (t) => {
    const the = await scene(t);
    if (!the) return;
    const { lab, launcher } = the;
    const tunnel = await raise(the, owner, { trustedApplications: [ID] });
    const below = lab.cgroup('app.slice');
    const volleys = { below, pattern: PATTERN, uid: 2001, count: LAUNCHES, targets: TARGETS, execEvery: 5 };
    assert.equal(await launcher.volleys(volleys), 0, launcher.complaints());
    assertSame(sentBy(await tunnel.stop()), expected(LAUNCHES, exitOf(lab, 1).client), 'tunnel');
    assert.deepEqual((await lab.departed()).filter(isToTargets), []);
    assert.deepEqual(await lab.leaks({ ...FACTS, isUncovered: isLinkUpkeep }), []);
  });

  test(`${name}: a blocked application is outside from its first packet, ${LAUNCHES} times`, TIMEOUT, async (t) => {
    const the = await scene(t);
    if (!the) return;
    const { lab, launcher } = the;
    const tunnel = await raise(the, owner, { blockedApplications: [ID] });
    const below = lab.cgroup('app.slice');
    const volleys = { below, pattern: PATTERN, uid: 2001, count: LAUNCHES, targets: TARGETS, execEvery: 5 };
    assert.equal(await launcher.volleys(volleys), 0, launcher.complaints());
    assertSame(sentBy(await lab.departed()), expected(LAUNCHES, POLICY_ADDRESSES.app), 'links');
    assert.deepEqual((await tunnel.stop()).filter(isToTargets), []);
    const isUncovered = (packet: DepartedPacket) => isLinkUpkeep(packet) || isToTargets(packet);
    assert.deepEqual(await lab.leaks({ ...FACTS, isUncovered }), []);
  });
}

for (const { owner, name } of OWNERS) {
  for (const list of ['trustedApplications', 'blockedApplications'] as const) {
    test(
      `${name}, ${list}: what starts while it is set up is on the right side as soon as it is`,
      TIMEOUT,
      async (t) => {
        const the = await scene(t);
        if (!the) return;
        const { lab, launcher } = the;
        const isTrusted = list === 'trustedApplications';
        const targets = Object.values(isTrusted ? ADDRESSES.internet : ADDRESSES.server);
        const [lasting, ending] = [lab.cgroup('lasting.slice'), lab.cgroup('ending.slice')];
        const second = await startLauncher(lab.app);
        // They keep the sockets they made with their first breath; others come and go, cgroup and all.
        const crowd = launcher.crowd({ below: lasting, pattern: PATTERN, uid: 2001, count: LAUNCHES, targets }, 5000);
        const volleys = second.volleys({ below: ending, pattern: PATTERN, uid: 2001, count: LAUNCHES, targets });
        const tunnel = await raise(the, owner, { [list]: [ID] });
        const names = await crowd;
        await volleys;
        const before = (await lab.departed()).length;
        const inside = (await tunnel.peek()).length;
        // Of the trusted some say nothing: what they send is dropped.
        const sides = new Set<string | undefined>();
        // A tunnel on a busy machine may answer nobody in the first time.
        for (const patienceMs of isTrusted ? [100, 2000] : [30_000]) {
          if (sides.has('exit1')) break;
          const answers = await launcher.again(names, patienceMs);
          for (const text of Object.values(answers).flatMap((each) => Object.values(each)))
            sides.add(text.split(' ')[0]);
        }
        if (isTrusted) assert.ok(sides.has('exit1') && !sides.has('server'), [...sides].join());
        else assert.deepEqual([...sides], ['server']);
        const strays = isTrusted ? (await lab.departed()).slice(before) : (await tunnel.peek()).slice(inside);
        const lines = strays.filter(({ destination }) => targets.some((target) => target === destination));
        assert.deepEqual(
          [...new Set(lines.map((each) => `${each.protocol} ${each.source} ${each.sourcePort ?? ''}`))],
          [],
        );
      },
    );
  }
}

for (const { owner, name } of OWNERS) {
  test(`${name}: what vpnctl run starts is inside from its first packet`, TIMEOUT, async (t) => {
    const the = await scene(t);
    if (!the) return;
    const { lab } = the;
    await raise(the, owner, { trustedApplications: [ID] });
    const { client, name: side } = exitOf(lab, 1);
    const env = { VPND_SOCKET: lab.vpnd.socket };
    for (const family of FAMILIES) {
      for (const protocol of ['tcp', 'udp', 'icmp'] as const) {
        const words = ['run', '--app', ID, '--', '/run/node', lab.app.path('dist/test/lab/lib/prober/program.js')];
        const program = lab.app.spawnNode('dist/src/cli/vpnctl.js', words, { uid: 2001, env });
        await program.waitFor(/^ready$/m);
        const target = ADDRESSES.internet[family];
        const question = { id: 1, operation: 'probe', args: [{ protocol, target, timeoutMs: 20_000 }] };
        program.write(`${JSON.stringify(question)}\n`);
        const [, answer = ''] = await program.waitFor(/^\{"id":1,"result":(.*)\}$/m, 40_000);
        assert.deepEqual(JSON.parse(answer), { side, source: client[family] }, `${protocol} ${family}`);
      }
    }
    assert.deepEqual((await lab.departed()).filter(isToTargets), []);
    assert.deepEqual(await lab.leaks({ ...FACTS, isUncovered: isLinkUpkeep }), []);
  });
}

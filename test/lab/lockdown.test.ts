/**
 * Lockdown: who is under it reaches nothing without a VPN but loopback, the local network as the policy allows, what keeps the
 * links alive, and protected sockets; whatever becomes of vpnd. lockdown-dns.test.ts: and no resolver.
 *
 *   app uid 2001 under lockdown, uid 2002 not; or everyone
 *     eth0 ─── router ── server, lanhost     everything that leaves is captured
 *     eth1 ─── cafe
 *     vpn-tunN ════════════ exit1            when there is a VPN
 */
import assert from 'node:assert/strict';
import { dirname } from 'node:path';
import { test } from 'node:test';
import { udpFrame } from './lib/attackers/frames.js';
import type { LeakException } from './lib/leak-check.js';
import { FAMILIES, isInside, isLinkUpkeep, raise } from './lib/policy-facts.js';
import { isTunnelDatagram, POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import type { LabProcess } from './lib/process.js';
import { startSocketProcess } from './lib/socket-process.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { type Flow, plainFlows, type SteadyTraffic, startTraffic } from './lib/steady-traffic.js';
import { eventually } from './lib/vpn-lab.js';
import { startVpnd, type Vpnd } from './lib/vpnd.js';

const { internet, server: SERVER } = ADDRESSES;
const { app: HOST, lanHost, cafe } = POLICY_ADDRESSES;
const BYPASS = 0x80000000;
const ECHO = 7;
const UIDS = [0, 2001, 2002];
const TIMEOUT = { timeout: 300_000 };
const PATIENT = { timeoutMs: 20_000 };
const LAN_PROTOCOLS = ['tcp', 'udp', 'icmp'] as const;
const DNS_PROTOCOLS = ['dns-udp', 'dns-tcp'] as const;
const PROTOCOLS = [...LAN_PROTOCOLS, ...DNS_PROTOCOLS];

const callers = UIDS.map((uid) => ({ match: { uid }, system: true, permissions: ['ohos.permission.MANAGE_VPN'] }));
const policyOf = (lockdown: number[], more: object = {}) => ({
  callers,
  lockdown,
  ...more,
});

/** Every way out that a program without a right may try. */
const WAYS_OUT: Flow[] = FAMILIES.flatMap((family) => [
  ...plainFlows([internet[family]]),
  ...(['tcp', 'udp', 'icmp'] as const).flatMap((protocol) => [
    { protocol, target: internet[family], bindTo: 'eth0' },
    { protocol, target: internet[family], bindTo: 'eth1' },
    { protocol, target: internet[family], source: HOST[family] },
  ]),
]);

async function reachesNothing(lab: PolicyLab, uid: number): Promise<void> {
  for (const family of FAMILIES) {
    for (const protocol of PROTOCOLS) {
      for (const way of [{}, { bindTo: 'eth0' }, { bindTo: 'eth1' }, { source: HOST[family] }]) {
        const answer = await lab.probe({ uid, protocol, target: internet[family], ...way, timeoutMs: 100 });
        assert.ok('error' in answer, `uid ${uid}, ${protocol}, ${family}, ${JSON.stringify({ way, answer })}`);
      }
      if (protocol === 'icmp') continue;
      const answer = await lab.probe({ uid, protocol, target: internet[family], ...PATIENT });
      assert.deepEqual(answer, { error: 'EACCES' }, `uid ${uid}, ${protocol}, ${family}`);
    }
  }
}

async function reachesLocalNetwork(lab: PolicyLab, uid: number): Promise<void> {
  for (const family of FAMILIES) {
    for (const [side, target] of [
      ['lanhost', lanHost[family]],
      ['cafe', cafe[family]],
    ] as const) {
      for (const protocol of LAN_PROTOCOLS) {
        const answer = await lab.probe({ uid, protocol, target, ...PATIENT });
        assert.equal('side' in answer ? answer.side : answer.error, side, `uid ${uid}, ${protocol}, ${target}`);
      }
      // A resolver there would ask on.
      for (const protocol of DNS_PROTOCOLS) {
        const answer = await lab.probe({ uid, protocol, target, ...PATIENT });
        assert.deepEqual(answer, { error: 'EACCES' }, `uid ${uid}, ${protocol}, ${target}`);
      }
    }
    const loopback = family === 'ipv4' ? '127.0.0.1' : '::1';
    for (const target of [loopback, HOST[family]]) {
      const answer = await lab.probe({ uid, protocol: 'tcp', target, port: 22, ...PATIENT });
      assert.equal('side' in answer ? answer.side : answer.error, 'app', target);
    }
  }
}

async function isOutside(lab: PolicyLab, uid: number): Promise<void> {
  for (const family of FAMILIES) {
    const answer = await lab.probe({ uid, protocol: 'tcp', target: internet[family], ...PATIENT });
    assert.deepEqual(answer, { side: 'server', source: HOST[family] }, `uid ${uid}`);
  }
}

async function reload(vpnd: Vpnd, policy: object): Promise<void> {
  const loads = () => vpnd.log().split('policy-loaded').length;
  const before = loads();
  vpnd.reload(policy);
  await eventually('the policy', async () => loads() > before || undefined);
}

/** What leaves after this call and before the answer. */
async function leaks(lab: PolicyLab, work: () => Promise<void>, known?: LeakException[]): Promise<string[]> {
  const since = await lab.moment();
  await work();
  return lab.leaks({ isUncovered: isLinkUpkeep, isProtected: isTunnelDatagram }, known, since);
}

test(
  'without a VPN a user under lockdown reaches loopback and the local network, others everything',
  TIMEOUT,
  async (t) => {
    const lab = await policyLab(t, { vpnd: { policy: policyOf([2001]) } });
    if (!lab) return;
    const found = await leaks(lab, async () => {
      await reachesNothing(lab, 2001);
      await reachesLocalNetwork(lab, 2001);
    });
    assert.deepEqual(found, []);
    await isOutside(lab, 2002);
    await isOutside(lab, 0);
    const marked = await startSocketProcess(lab.app, 2001, { mayMark: true });
    for (const family of FAMILIES) {
      const fd = await marked.call('open', { transport: 'tcp', remote: [internet[family], ECHO], mark: BYPASS });
      assert.equal(await marked.call('hears', fd, 'server'), true, 'protected');
    }

    await reload(lab.vpnd, policyOf([2001], { lan: 'off' }));
    await eventually('the local network is closed', async () => {
      const answer = await lab.probe({ uid: 2001, protocol: 'udp', target: lanHost.ipv4, timeoutMs: 200 });
      return ('error' in answer && answer.error !== 'silence') || undefined;
    });
    const closed = await leaks(lab, async () => {
      await reachesNothing(lab, 2001);
      for (const family of FAMILIES) {
        for (const protocol of PROTOCOLS) {
          const answer = await lab.probe({ uid: 2001, protocol, target: lanHost[family], timeoutMs: 100 });
          assert.ok('error' in answer, `${protocol} ${family}`);
        }
      }
    });
    assert.deepEqual(closed, []);
  },
);

test(
  "root's lockdown is everyone's, root's too; leases and neighbours go on, sessions from the LAN too",
  TIMEOUT,
  async (t) => {
    const lab = await policyLab(t, { vpnd: { policy: policyOf([0]) } });
    if (!lab) return;
    const found = await leaks(lab, async () => {
      for (const uid of UIDS) await reachesNothing(lab, uid);
      for (const uid of UIDS) await reachesLocalNetwork(lab, uid);
      await lab.app.ip('neigh flush all');
      await reachesLocalNetwork(lab, 2002);
      const near = await lab.stranger(lab.lanHost);
      for (const family of FAMILIES) {
        await near.goesOn(await near.call('openSession', { target: HOST[family], port: 22 }));
      }
    });
    assert.deepEqual(found, []);

    const since = await lab.moment();
    const client = await startSocketProcess(lab.app, 0);
    const renewals = [
      { family: 'ipv4', port: 68, any: '0.0.0.0', server: 67 },
      { family: 'ipv6', port: 546, any: '::', server: 547 },
    ] as const;
    for (const { family, port, any, server } of renewals) {
      const fd = await client.call('open', { transport: 'udp', local: [any, port], remote: [SERVER[family], server] });
      await client.call('send', fd, 'renewal');
      await eventually('the renewal', async () => {
        const sent = await lab.departed();
        return (
          sent.some(({ sourcePort, destination }) => sourcePort === port && destination === SERVER[family]) || undefined
        );
      });
    }
    assert.deepEqual(await lab.leaks({}, undefined, since), []);

    // Whatever came in from beyond the link: nothing of the answer leaves.
    const far = await lab.stranger(lab.server);
    const silent = await leaks(lab, async () => {
      for (const family of FAMILIES) {
        const answer = await far.call('probe', { protocol: 'tcp', target: HOST[family], port: 22, timeoutMs: 300 });
        assert.deepEqual(answer, { error: 'silence' }, family);
      }
    });
    assert.deepEqual(silent, []);
  },
);

for (const users of [[2001], [0]]) {
  const whose = users[0] === 0 ? "everyone's" : "a user's";
  test(`${whose} lockdown holds without a gap when vpnd is killed, started and stopped`, TIMEOUT, async (t) => {
    const lab = await policyLab(t, { vpnd: { policy: policyOf(users) } });
    if (!lab) return;
    const known = await lab.exceptions();
    const traffic = await trafficOf(lab, users[0] === 0 ? UIDS : users);
    const frames = await floodFrames(lab);
    const directory = dirname(lab.vpnd.socket);
    const found = await leaks(
      lab,
      async () => {
        await allAskedOn(traffic);
        await lab.vpnd.kill9();
        await allAskedOn(traffic);
        const second = await startVpnd(lab.app, { directory, policy: policyOf(users) });
        await allAskedOn(traffic);
        await second.stop();
        await allAskedOn(traffic);
        const third = await startVpnd(lab.app, { directory, policy: policyOf(users) });
        for (let round = 0; round < 5; round++) await reload(third, policyOf([...users, 2005 + round]));
        await allAskedOn(traffic);
        await third.kill9();
        await frames.kill();
      },
      known,
    );
    assert.deepEqual(found, []);
    for (const each of traffic)
      assert.deepEqual(
        (await each.states()).flatMap(({ sides }) => sides),
        [],
      );

    const last = await startVpnd(lab.app, { directory, policy: policyOf(users) });
    await reload(last, policyOf([]));
    for (const each of traffic) await each.answeredOn(({ bindTo }) => bindTo === undefined);
    for (const uid of UIDS) await isOutside(lab, uid);
    // They go behind the rules, which have opened the way.
    await eventually(
      'no tables',
      async () => (await lab.app.run('nft', ['list', 'tables'])).stdout === '' || undefined,
    );
    const { stdout: rules } = await lab.app.run('ip', ['rule', 'show']);
    assert.equal(rules.split('\n').filter((line) => line !== '').length, 3);
  });

  test(`${whose} lockdown: a VPN works under it, and when it ends nothing opens`, TIMEOUT, async (t) => {
    const lab = await policyLab(t, { vpnd: { policy: policyOf(users) } });
    if (!lab) return;
    const owner = users[0] ?? 0;
    const traffic = await trafficOf(lab, [2001]);
    const found = await leaks(lab, async () => {
      for (const end of ['destroy', 'kill9'] as const) {
        const vpn = await raise(lab, owner);
        await isInside(lab, 2001);
        for (const each of traffic)
          await each.answeredOn(({ bindTo, source }) => bindTo === undefined && source === undefined);
        if (owner === 0) await isInside(lab, 2002);
        if (end === 'destroy') await vpn.call('destroy');
        else await vpn.kill9();
        await eventually('the end of the VPN', async () => {
          const { status } = await lab.app.run('ip', ['link', 'show', 'vpn-tun0'], { check: false });
          return status !== 0 || undefined;
        });
        await allAskedOn(traffic);
        await eventually('refusals', async () => {
          const answer = await lab.probe({ uid: 2001, protocol: 'tcp', target: internet.ipv4, timeoutMs: 200 });
          return ('error' in answer && answer.error === 'EACCES') || undefined;
        });
        await reachesNothing(lab, 2001);
        await reachesLocalNetwork(lab, 2001);
      }
    });
    assert.deepEqual(found, []);
    for (const each of traffic) {
      for (const { sides } of await each.states())
        assert.ok(
          sides.every((side) => side === 'exit1'),
          String(sides),
        );
    }
  });
}

function trafficOf(lab: PolicyLab, uids: readonly number[]): Promise<SteadyTraffic[]> {
  return Promise.all(uids.map((uid) => startTraffic(lab.app, uid, WAYS_OUT)));
}

async function allAskedOn(traffic: readonly SteadyTraffic[]): Promise<void> {
  await Promise.all(traffic.map((each) => each.askedOn()));
}

/** Frames past all IP hooks, without a pause: by a user who has CAP_NET_RAW. */
const FLOOD = `
import socket, sys
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind(('eth0', 0))
print('ready', flush=True)
while True:
    try: link.send(bytes.fromhex(sys.argv[1]))
    except OSError: pass
`;

async function floodFrames(lab: PolicyLab): Promise<LabProcess> {
  const stations = { from: await lab.mac(lab.app), to: await lab.mac(lab.attacker) };
  const flow = { source: HOST.ipv4, destination: internet.ipv4, sourcePort: 1, destinationPort: 2 };
  const user = ['--reuid=2001', '--regid=2001', '--clear-groups', '--inh-caps=+net_raw', '--ambient-caps=+net_raw'];
  const words = [...user, '--', 'nice', 'python3', '-c', FLOOD, udpFrame(stations, flow)];
  const process = lab.app.spawn('setpriv', words);
  await process.waitFor(/^ready$/m);
  return process;
}

/**
 * What one user, a far end or a crash may do to somebody else's lock, each by a way round the usual order of things.
 *
 *   app uid 2001, 2002 ── vpn-tunN ═══════════════ exit1, exit2 (the same addresses)
 *       docker0 ── container1
 *       eth0 ─── router ── server
 */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { test } from 'node:test';
import { PUBLISHED_PORT, startContainer, startDocker } from './lib/docker-bridge.js';
import { connect } from './lib/exits.js';
import type { LabHost } from './lib/host.js';
import { FAMILIES, fromVnic, raise } from './lib/policy-facts.js';
import { type Moment, POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { type Flow, startTraffic } from './lib/steady-traffic.js';
import { vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf } from './lib/vpn-lab.js';
import { startVpnd } from './lib/vpnd.js';

const { internet } = ADDRESSES;
const { app: own } = POLICY_ADDRESSES;
const TIMEOUT = { timeout: 180_000 };
const callers = [0, 2001, 2002].map((uid) => ({
  match: { uid },
  system: true,
  permissions: ['ohos.permission.MANAGE_VPN'],
}));

/** What left by eth0 for this port and the internet. */
async function left(lab: PolicyLab, since: Moment, port: number): Promise<string[]> {
  const packets = (await lab.departed()).filter(({ link }) => link === 'eth0').slice(since.get('eth0') ?? 0);
  const isFar = (address: string) => address === internet.ipv4 || address === internet.ipv6;
  return packets
    .filter(({ destination, destinationPort }) => isFar(destination) && destinationPort === port)
    .map(({ destination }) => destination);
}

for (const lists of [{ trustedApplications: ['firefox'] }, { blockedApplications: ['steam'] }]) {
  const [[list = '', [name = ''] = []] = []] = Object.entries(lists);
  test(
    `${list}: a socket that has its mark from a VPN that is gone is told by its cgroup in the next`,
    TIMEOUT,
    async (t) => {
      const lab = await policyLab(t);
      if (!lab) return;
      const cgroup = lab.cgroup(`app.slice/app-${name}-1.scope`);
      const first = await raise(lab, 2001, lists);
      const flows: Flow[] = FAMILIES.map((family) => ({ protocol: 'udp', target: internet[family], isKept: true }));
      const traffic = await startTraffic(lab.app, 2001, flows, { cgroup: cgroup.directory });
      await traffic.answeredOn();
      const side = name === 'firefox' ? 'exit1' : 'server';
      for (const { sides } of await traffic.states()) assert.deepEqual(sides, [side]);
      await first.call('destroy');
      await raise(lab, 2001, lists);
      const since = await lab.moment();
      await traffic.askedOn();
      if (side === 'exit1') assert.deepEqual(await left(lab, since, 7), []);
      else for (const { sides } of await traffic.states()) assert.deepEqual(sides, [side]);
      await traffic.stop();
    },
  );
}

test('a service that comes after one that was killed lets no socket of its VPNs out', TIMEOUT, async (t) => {
  const lab = await policyLab(t);
  if (!lab) return;
  await raise(lab, 2001);
  const app = await lab.process(2001);
  const sockets: { fd: number; address: string }[] = [];
  for (const [index, family] of FAMILIES.entries()) {
    const fd = await app.call('open', index === 0 ? 1 : 2, 'udp');
    const address = internet[family];
    const answer = await app.call('askOn', fd, { transport: 'udp', address, timeoutMs: 20_000 });
    assert.equal(answer, `exit1 ${exitOf(lab, 1).client[family]}`);
    sockets.push({ fd, address });
  }
  await lab.vpnd.kill9();
  await startVpnd(lab.app, { directory: dirname(lab.vpnd.socket), policy: { callers } });
  for (const { fd, address } of sockets) {
    await app.call('askOn', fd, { transport: 'udp', address, isConnected: true, timeoutMs: 200 });
  }
  assert.deepEqual(await fromVnic(lab), []);
});

test(
  "somebody else's cgroups with an application's name, deeper than nft can say, are in nobody's way",
  TIMEOUT,
  async (t) => {
    const lab = await policyLab(t);
    if (!lab) return;
    lab.cgroup('app.slice/app-firefox-1.scope');
    let { directory } = lab.cgroup('user-2002.slice');
    for (let level = 1; level <= 260; level++) {
      directory += level < 260 ? '/x' : '/app-firefox-2.scope';
      mkdirSync(directory);
    }
    await raise(lab, 2001, { trustedApplications: ['firefox'] });
  },
);

test('a VPN that ends leaves alone who is covered by another one of the same address', TIMEOUT, async (t) => {
  const lab = await policyLab(t, { networks: [1, 1] });
  if (!lab) return;
  await raise(lab, 2001);
  const prober = await lab.prober({ uid: 2001 });
  const sessions: number[] = [];
  for (const family of FAMILIES) sessions.push(await prober.call('openSession', { target: internet[family] }));
  const other = await lab.process(2002);
  const exit = exitOf(lab, 2);
  await connect(other, exit, vpnConfig(exit.vnic));
  await other.call('destroy');
  for (const session of sessions) await prober.goesOn(session);
});

test("a user's tunnel does not lead to what containers have published, root's does", TIMEOUT, async (t) => {
  const lab = await policyLab(t);
  if (!lab) return;
  await startDocker(lab.app);
  await startContainer(lab.lab, lab.app, 1);
  const capture = await lab.app.capture('docker0');
  const exit = exitOf(lab, 1);
  const arrived = async (owner: number): Promise<number> => {
    const vpn = await raise(lab, owner);
    // The far end knows where the tunnel ends when something has come from there.
    await lab.probe({ uid: owner, protocol: 'tcp', target: internet.ipv4, timeoutMs: 20_000 });
    const before = (await capture.peek()).length;
    for (const family of FAMILIES) {
      for (const protocol of ['udp', 'tcp'] as const) {
        const probe = { protocol, target: exit.client[family], port: PUBLISHED_PORT, timeoutMs: 1000 };
        await (await lab.stranger(exit.host)).call('probe', probe);
      }
    }
    const packets = (await capture.peek()).slice(before).filter(({ destinationPort }) => destinationPort === 80);
    await vpn.call('destroy');
    return packets.length;
  };
  assert.notEqual(await arrived(0), 0);
  assert.equal(await arrived(2001), 0);
});

test("what others send to the address of a user's vNIC is not heard by that user", TIMEOUT, async (t) => {
  const lab = await policyLab(t);
  if (!lab) return;
  const addresses = FAMILIES.map((family) => internet[family]);
  const vpn = await lab.process(2001);
  await vpn.call('setUp', vpnConfig(addresses.map((each) => `${each}/${each.includes(':') ? 128 : 32}`)));
  const [eavesdropper, other] = [await lab.prober({ uid: 2001 }), await lab.prober({ uid: 2002 })];
  for (const address of addresses) {
    for (const protocol of ['udp', 'tcp'] as const) {
      const listener = await eavesdropper.call('listen', protocol, address, 5353);
      const probe = { protocol, target: address, port: 5353, timeoutMs: 300 };
      assert.ok('error' in (await other.call('probe', probe)));
      assert.deepEqual(await eavesdropper.call('heard', listener), [], `${protocol} ${address}`);
      await eavesdropper.call('probe', probe);
      const heard = async () => (await eavesdropper.call('heard', listener))[0];
      await eventually('its own', heard);
    }
  }
});

test("under lockdown nothing answers what came in while somebody else's VPN is up", TIMEOUT, async (t) => {
  const lab = await policyLab(t, { vpnd: { policy: { callers, lockdown: [2001] } } });
  if (!lab) return;
  await raise(lab, 2002);
  const since = await lab.moment();
  // Only IPv4 takes every address for a neighbour when the rules have refused a socket that is bound to a device.
  const [here, there] = [own.ipv4, internet.ipv4];
  await escapeBy(lab.server, 0, { way: 'udp', port: 5555, target: here, source: there, from: 4444 });
  for (const uid of [2001, 2002]) {
    const answer = { way: 'udp', port: 4444, target: there, source: '0.0.0.0', from: 5555, device: 'eth0' };
    assert.equal((await escapeBy(lab.app, uid, answer)) === 'ok', uid === 2002, `uid ${uid}`);
  }
  // The other user's, whose VPN answers what came in.
  await eventually('the answer', async () => (await left(lab, since, 4444)).length > 0 || undefined);
  assert.deepEqual(await left(lab, since, 4444), [there]);
});

/** `ok` or the errno's name. */
async function escapeBy(host: LabHost, uid: number, way: object): Promise<string | undefined> {
  const script = host.path('test/lab/lib/attackers/escape.py');
  const { stdout } = await host.run('python3', ['-SE', script, String(uid)], { input: `${JSON.stringify(way)}\n` });
  return stdout.trim().split('\n').at(-1);
}

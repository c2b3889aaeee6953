/**
 * Who is covered: users, root, and the application lists, read from the kernel's own choice of a way and of a source address.
 *
 *   app (vpnd, the apps) 192.0.2.2 ── router ── server
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ADDRESSES } from '../lab/lib/standard-lab.js';
import type { App } from './lib/app.js';
import { assertRefused } from './lib/rows.js';
import { POLICY, scene, USERS } from './lib/scene.js';

const TO = ADDRESSES.internet.ipv4;
const PHYSICAL = ADDRESSES.app.ipv4;
const { root, system, other, third } = USERS;

function config(address: string, more: object = {}): object {
  return { addresses: [{ address: { address }, prefixLength: 24 }], ...more };
}

test('who is covered', { timeout: 600_000 }, async (t) => {
  const stage = await scene(t, {
    policy: { ...POLICY, applications: { browser: { uid: other }, daemons: { user: 'daemon' } } },
  });
  if (!stage) return;
  const ways = (...uids: number[]) => Promise.all(uids.map((uid) => stage.way(uid, TO)));
  const source = (app: App) => app.do((agent, to) => agent.source(to), TO);

  await t.test("a user's VPN covers that user and nobody else", async () => {
    const app = await stage.app(system);
    await app.setUp(config('10.0.0.5'));
    assert.deepEqual(await ways(system, other, root, 1, 65534), ['vpn-tun0', 'eth0', 'eth0', 'eth0', 'eth0']);
    assert.equal(await source(await stage.app(other)), PHYSICAL);
    await app.destroy();
  });

  await t.test("root's VPN covers every user without one of its own; the user's wins", async () => {
    const [forAll, mine] = [await stage.app(root), await stage.app(system)];
    await forAll.setUp(config('10.0.0.5'));
    assert.deepEqual(await ways(system, other, root, 65534), ['vpn-tun0', 'vpn-tun0', 'vpn-tun0', 'vpn-tun0']);
    await mine.setUp(config('10.1.0.5'));
    assert.deepEqual(await ways(system, other, root), ['vpn-tun1', 'vpn-tun0', 'vpn-tun0']);
    assert.deepEqual([await source(mine), await source(await stage.app(other))], ['10.1.0.5', '10.0.0.5']);
    // Ends with root's VPN still there.
    await mine.destroy();
    assert.deepEqual(await ways(system), ['vpn-tun0']);
    await forAll.destroy();
    assert.deepEqual(await ways(system, other, root), ['eth0', 'eth0', 'eth0']);
  });

  await t.test('VpnConfig: trustedApplications', async () => {
    const app = await stage.app(root);
    for (const name of ['browser', `uid:${other}`]) {
      await app.setUp(config('10.0.0.5', { trustedApplications: [name] }));
      assert.deepEqual(await ways(other, system, root), ['vpn-tun0', 'eth0', 'eth0'], name);
      await app.destroy();
    }
    for (const name of ['daemons', 'user:daemon']) {
      await app.setUp(config('10.0.0.5', { trustedApplications: [name, `uid:${third}`] }));
      assert.deepEqual(await ways(1, third, other, root), ['vpn-tun0', 'vpn-tun0', 'eth0', 'eth0'], name);
      await app.destroy();
    }
  });

  await t.test('VpnConfig: blockedApplications', async () => {
    const app = await stage.app(root);
    for (const name of ['browser', `uid:${other}`]) {
      await app.setUp(config('10.0.0.5', { blockedApplications: [name] }));
      assert.deepEqual(await ways(other, system, root), ['eth0', 'vpn-tun0', 'vpn-tun0'], name);
      await app.destroy();
    }
  });

  await t.test('a trusted cgroup is covered, also when it is empty at setUp, and nothing else is', async () => {
    const app = await stage.app(system);
    const { path, join } = await stage.cgroup();
    await app.setUp(config('10.0.0.5', { trustedApplications: [`cgroup:${path}`] }));
    const started = await stage.newApp(system);
    assert.equal(await source(started), PHYSICAL);
    join(started.pid);
    assert.equal(await source(started), '10.0.0.5');
    assert.equal(await source(app), PHYSICAL);
    // A user's VPN takes nobody else's sockets, wherever they are.
    const stranger = await stage.newApp(other);
    join(stranger.pid);
    assert.equal(await source(stranger), PHYSICAL);
    await app.destroy();
    assert.equal(await source(started), PHYSICAL);
    await Promise.all([started.end(), stranger.end()]);
  });

  await t.test('a blocked cgroup is not covered, and everything else is', async () => {
    const app = await stage.app(system);
    const { path, join } = await stage.cgroup();
    await app.setUp(config('10.0.0.5', { blockedApplications: [`cgroup:${path}`] }));
    const started = await stage.newApp(system);
    assert.equal(await source(started), '10.0.0.5');
    join(started.pid);
    assert.equal(await source(started), PHYSICAL);
    await app.destroy();
    await started.end();
  });

  await t.test("a user's VPN cannot name another user, nor block its own", async () => {
    const app = await stage.app(system);
    const cases: [string, object, RegExp][] = [
      ['another user', { trustedApplications: [`uid:${other}`] }, /names uid 2002, but this VPN covers only uid 2001/],
      ['the policy', { trustedApplications: ['browser'] }, /names uid 2002/],
      ['itself', { blockedApplications: [`uid:${system}`] }, /nothing would be left/],
    ];
    await stage.unchanged(async () => {
      for (const [, lists, why] of cases) {
        assertRefused(await app.attempt('promise', 'setUp', config('10.0.0.5', lists)), 'promise', 2200001, why);
      }
    });
  });

  await t.test('a protected socket is never covered', async () => {
    const app = await stage.app(system);
    await app.setUp(config('10.0.0.5'));
    const unprotected = await app.do(async (agent, to) => {
      const { socket, fd } = await agent.udp();
      const { error, thrown } = await agent.attempt('promise', 'protect', fd);
      if (error ?? thrown) throw new Error(JSON.stringify(error ?? thrown));
      socket.connect(9, to);
      await new Promise((resolve) => socket.once('connect', resolve));
      agent.kept.socket = socket;
      return agent.source(to);
    }, TO);
    assert.equal(unprotected, '10.0.0.5');
    const capture = await stage.host.capture('eth0', ['udp', 'dst', 'port', '9']);
    await app.do(async ({ kept }) => {
      const { socket } = kept as { socket: import('node:dgram').Socket };
      await new Promise((resolve) => socket.send('out', resolve));
      socket.close();
    });
    assert.deepEqual(
      (await capture.stop()).map((packet) => [packet.source, packet.destination]),
      [[PHYSICAL, TO]],
    );
    await app.destroy();
  });
});

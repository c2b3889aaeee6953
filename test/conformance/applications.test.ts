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
import { POLICY, scene, USERS, until } from './lib/scene.js';

const TO = ADDRESSES.internet.ipv4;
const PHYSICAL = ADDRESSES.app.ipv4;
const { root, system, other, third } = USERS;

const INSTALLED = 'org.example.Installed';
const PRINT_SOURCE = `
  const socket = require('node:dgram').createSocket('udp4');
  socket.connect(9, process.argv[1], () => {
    process.stdout.write(socket.address().address);
    socket.close();
  });`;

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

  /** A unit file is enough: nobody has to start it. The host's /run is its own. */
  const install = () =>
    stage.host.run('sh', [
      '-c',
      'mkdir -p /run/systemd/system && : > "$1"',
      'sh',
      `/run/systemd/system/${INSTALLED}.service`,
    ]);
  /** The source address of a program's first socket, started as this application. */
  const sourceOf = async (id: string, uid: number): Promise<string> => {
    const words = ['run', '--app', id, '--', '/run/node', '-e', PRINT_SOURCE, TO];
    const env = { VPND_SOCKET: stage.vpnd.socket };
    return (await stage.host.node('dist/src/cli/vpnctl.js', words, { uid, env })).stdout;
  };

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

  await t.test(
    'an installed application is covered as soon as it starts, by its id and for this user only',
    async () => {
      await install();
      for (const name of [INSTALLED, `${INSTALLED}.service`]) {
        const app = await stage.app(system);
        await app.setUp(config('10.0.0.5', { trustedApplications: [name] }));
        const [vpn] = await stage.status();
        assert.deepEqual(vpn?.trustedApplications, [name]);
        assert.equal(await sourceOf(name, system), '10.0.0.5', name);
        assert.equal(await sourceOf(name, other), PHYSICAL, name);
        assert.equal(await sourceOf('org.example.Another', system), PHYSICAL, name);
        assert.equal(await source(app), PHYSICAL);
        await app.destroy();
        assert.equal(await sourceOf(name, system), PHYSICAL, name);
      }
    },
  );

  await t.test('an application that is blocked by its id is not covered, and everything else is', async () => {
    await install();
    const app = await stage.app(system);
    await app.setUp(config('10.0.0.5', { blockedApplications: [INSTALLED] }));
    assert.equal(await sourceOf(INSTALLED, system), PHYSICAL);
    assert.equal(await sourceOf('org.example.Another', system), '10.0.0.5');
    assert.equal(await source(app), '10.0.0.5');
    await app.destroy();
  });

  await t.test('a name that resolves to nothing, or that is hostile, is refused and changes nothing', async () => {
    await install();
    const app = await stage.app(system);
    const cases: [name: string, why: RegExp][] = [
      [
        'org.example.Nobody',
        /"org\.example\.Nobody" resolves to nothing: .*no desktop entry, flatpak, snap or systemd service/,
      ],
      ['org.example.Nobody.desktop', /resolves to nothing/],
      ['nobody@1.service', /resolves to nothing/],
      ['cgroup:/no/such', /there is no cgroup "\/no\/such"/],
      ['user:ghost', /there is no user "ghost"/],
      ['../../etc/passwd', /is no application id/],
      ['a\\x2e\\x2e\\x2fb', /is no application id/],
      ['a" ; flush ruleset ; "', /is no application id/],
      ['a\nb', /has control characters/],
      ['a\u001b[2J', /has control characters/],
      ['y'.repeat(300), /has 300 characters/],
      ['y'.repeat(10_240), /more than 1024 characters/],
      ['é', /is no application id/],
    ];
    await stage.unchanged(async () => {
      for (const field of ['trustedApplications', 'blockedApplications']) {
        for (const [name, why] of cases) {
          const outcome = await app.attempt('promise', 'setUp', config('10.0.0.5', { [field]: [INSTALLED, name] }));
          assertRefused(outcome, 'promise', 2200001, why);
          assert.equal(outcome.error?.data.field, `config.${field}[1]`);
        }
      }
    });
    // None of it went to the log as it is.
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that none is there is the point
    assert.doesNotMatch(stage.vpnd.log(), /[\u0000-\u0009\u000b-\u001f]|y{100}/);
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
    // It waits for what the router answers, who has not been asked so far.
    await until('it has left', async () => (await capture.peek()).length > 0);
    assert.deepEqual(
      (await capture.stop()).map((packet) => [packet.source, packet.destination]),
      [[PHYSICAL, TO]],
    );
    await app.destroy();
  });
});

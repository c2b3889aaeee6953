/**
 * The service's own conditions: the policy file at start and on SIGHUP, the socket path, what is missing; callers it cannot
 * see; Worker and policy effects on live VPNs.
 *
 *   app (vpnd, the apps) ── router ── server
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Result } from '../lab/lib/process.js';
import { startVpnd } from '../lab/lib/vpnd.js';
import { assertRefused, assertSucceeded, FORMS } from './lib/rows.js';
import { POLICY, type Scene, scene, until, USERS } from './lib/scene.js';

const CONFIG = { addresses: [{ address: { address: '10.0.0.5' }, prefixLength: 24 }] };

test('the service', { timeout: 600_000 }, async (t) => {
  const stage = await scene(t);
  if (!stage) return;
  const app = await stage.app(USERS.system);

  await t.test('a changed policy binds new calls at once and does not end a live VPN', async () => {
    await app.setUp(CONFIG);
    await stage.policy({ callers: [] });
    const link = await stage.link('vpn-tun0');
    assert.equal(link?.ifname, 'vpn-tun0');
    for (const form of FORMS) assertRefused(await app.attempt(form, 'destroy'), form, 202, /system application/);
    await stage.policy(POLICY);
    await app.destroy();
  });

  await t.test('a live VPN ends when disabled becomes true', async () => {
    await stage.unchanged(async () => {
      await app.setUp(CONFIG);
      await stage.policy({ ...POLICY, disabled: true });
      await until('the VPN is down', () => stage.vpnd.log().includes('reason="disabled by policy"'));
      await stage.policy(POLICY);
    });
  });

  await t.test('a bad policy file at SIGHUP keeps the old policy, with one error line', async () => {
    const errors = () => stage.vpnd.log().split('\n').filter((line) => line.includes(' error '));
    const before = errors().length;
    writeFileSync(stage.vpnd.policyFile, '{\n "callers": [],\n "disabled": 1\n}');
    process.kill(stage.vpnd.pid, 'SIGHUP');
    await until('the error line', () => errors().length > before);
    assert.equal(errors().length, before + 1);
    assert.match(errors().at(-1) ?? '', /policy-kept .*policy\.json:3: disabled: is neither true nor false/);
    assertSucceeded(await app.attempt('promise', 'destroy'), 'promise', 'undefined');
    await stage.policy(POLICY);
  });

  await t.test('a bad policy file at start is exit 78 with line and reason', async () => {
    for (const [text, reason] of [
      ['{\n "callers": [\n', /:3: /],
      ['{\n "guest": {}\n}', /:2: guest: is unknown/],
      ['{ "callers": [{ "match": { "user": "no-such-user" } }] }', /:1: callers\[0\]\.match\.user: there is no user/],
      ['', /:1: a value is expected here/],
    ] as const) {
      const { status, stderr } = await start(stage, text);
      assert.equal(status, 78);
      assert.match(stderr, reason);
    }
  });

  await t.test('a socket path in use by a live service is exit 73, and the live service is unharmed', async () => {
    const { status, stderr } = await start(stage, JSON.stringify(POLICY), stage.vpnd.socket, 'router');
    assert.equal(status, 73);
    assert.match(stderr, /another service listens on/);
    assertSucceeded(await app.attempt('promise', 'destroy'), 'promise', 'undefined');
  });

  await t.test('a second service for the same network is exit 73', async () => {
    const state = stage.vpnd.socket.replace(/[^/]*$/, 'state');
    const other = stage.vpnd.socket.replace(/[^/]*$/, 'other.sock');
    const args = ['--socket', other, '--state-dir', state, '--policy', stage.vpnd.policyFile];
    const { status, stderr } = await stage.host.node('dist/src/service/vpnd.js', args, { check: false });
    assert.equal(status, 73);
    assert.match(stderr, /another service serves this network namespace/);
  });

  await t.test('a stale socket is replaced', async () => {
    const first = await startVpnd(stage.lab.server);
    await first.kill9();
    const directory = first.socket.replace(/\/[^/]*$/, '');
    const second = await startVpnd(stage.lab.server, { directory });
    assert.equal((await second.stop()).status, 0);
  });

  await t.test('without CAP_NET_ADMIN it is exit 77, and the message names the fix', async () => {
    const { status, stderr } = await stage.lab.router.node('dist/src/service/vpnd.js', [], { uid: 2001, check: false });
    assert.equal(status, 77);
    assert.match(stderr, /vpnd needs CAP_NET_ADMIN: run it as root/);
  });

  await t.test('callers in another pid namespace are refused', async () => {
    const script = `
      const { vpn } = await import('/run/repo/dist/src/vpn/index.js');
      try { vpn.createVpnConnection({}); console.log('made'); } catch (error) { console.log(JSON.stringify(error)); }`;
    const inside = ['--fork', '--pid', '--mount-proc', '/run/node', '--input-type=module', '-e', script];
    // Root, which is a system application everywhere else, in a child namespace: the service can see its pid.
    const child = await stage.host.run('unshare', inside, { env: { VPND_SOCKET: stage.vpnd.socket } });
    assert.equal(child.stdout.trim(), 'made');
    // The other way round: a service in a child namespace cannot see the pids outside.
    const socket = join(await mkdtemp(join(stage.host.directory, 'inner-')), 'vpnd.sock');
    const service = ['/run/node', stage.host.path('dist/src/service/vpnd.js'), '--socket', socket];
    const options = ['--state-dir', `${socket}.state`, '--policy', stage.vpnd.policyFile];
    const vpnd = stage.lab.router.spawn('unshare', ['--fork', '--kill-child', '--pid', '--mount-proc', ...service, ...options]);
    await vpnd.waitFor(/ ready /, 60_000);
    const outside = await stage.host.node('--input-type=module', ['-e', script], { env: { VPND_SOCKET: socket } });
    assert.match(outside.stdout, /"code":202/);
    await vpnd.kill('SIGKILL');
  });

  await t.test('SIGTERM ends every VPN and exits 0', async () => {
    const other = await stage.app(USERS.other);
    await stage.unchanged(async () => {
      await app.setUp(CONFIG);
      await other.setUp({ addresses: [{ address: { address: '10.1.0.5' }, prefixLength: 24 }] });
      assert.equal((await stage.vpnd.stop()).status, 0);
    });
  });
});

/** On a host of its own, so that nothing but what is asked for is in the way. */
async function start(stage: Scene, policy: string, socket?: string, host: 'router' | 'server' = 'server'): Promise<Result> {
  const directory = await mkdtemp(join(stage.host.directory, 'start-'));
  const file = join(directory, 'policy.json');
  writeFileSync(file, policy);
  const args = ['--socket', socket ?? join(directory, 'vpnd.sock'), '--state-dir', join(directory, 'state'), '--policy', file];
  return stage.lab[host].node('dist/src/service/vpnd.js', args, { check: false });
}

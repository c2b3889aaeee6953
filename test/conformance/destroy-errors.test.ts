/**
 * Every documented code of destroy, in both forms.
 *
 *   app (vpnd, the apps) ── router ── server
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertRefused, errorTest, SIGNATURES } from './lib/rows.js';
import { POLICY, type Scene, scene, USERS } from './lib/scene.js';

const CONFIG = { addresses: [{ address: { address: '10.0.0.5' }, prefixLength: 24 }] };

test('destroy: every code', { timeout: 600_000 }, async (t) => {
  const stage = await scene(t);
  if (!stage) return;
  const system = await stage.app(USERS.system);

  await errorTest(t, 'destroy', 201, async (form) => {
    const app = await stage.app(USERS.noPermission);
    assertRefused(await app.attempt(form, 'destroy'), form, 201, /ohos\.permission\.MANAGE_VPN/);
    await stage.policy({ ...POLICY, disabled: true });
    assertRefused(await system.attempt(form, 'destroy'), form, 201, /disabled by the administrator/);
    await stage.policy(POLICY);
  });

  await errorTest(t, 'destroy', 202, async (form) => {
    const app = await stage.app(USERS.ordinary);
    await app.connectUnasked(stage.vpnd.socket);
    await system.setUp(CONFIG);
    await stage.unchanged(async () => {
      assertRefused(await app.attempt(form, 'destroy'), form, 202, /uid 2005 is no system application/);
    });
    await system.destroy();
  });

  await t.test(`${SIGNATURES.destroy.callback}: 401 Parameter error.`, async () => {
    await system.setUp(CONFIG);
    await stage.unchanged(async () => {
      for (const value of [null, 1, 'callback', {}, []]) {
        assertRefused(
          await system.attempt('promise', 'destroy', value),
          'callback',
          401,
          /^callback: is not a function$/,
        );
      }
      const surplus = await system.attempt('callback', 'destroy', undefined);
      assertRefused(surplus, 'callback', 401, /^2 arguments instead of at most 1$/);
    });
    await system.destroy();
  });

  await t.test(`${SIGNATURES.destroy.promise}: 401 Parameter error.`, async () => {
    await system.setUp(CONFIG);
    await stage.unchanged(async () => {
      const surplus = await system.attempt('promise', 'destroy', undefined, undefined);
      assertRefused(surplus, 'promise', 401, /^2 arguments instead of at most 1$/);
      const stranger = await system.do((agent) => {
        const { destroy } = agent.connection;
        return agent.outcome('promise', () => destroy.call({} as never));
      });
      assertRefused(stranger, 'promise', 401, /^this: is not a VpnConnection/);
    });
    await system.destroy();
  });

  await errorTest(t, 'destroy', 2200002, async (form) => {
    const app = await stage.newApp(USERS.system, stage.host, '/run/nobody/listens');
    assertRefused(await app.attempt(form, 'destroy'), form, 2200002, /ENOENT.*start it.* with: .*vpnd/);
    await app.end();
  });

  await errorTest(t, 'destroy', 2200003, async (form) => {
    // A program was attached to a cgroup; the service may open no more files, so it cannot take it off again.
    const cgroup = await stage.cgroup();
    await system.setUp({ ...CONFIG, trustedApplications: [`cgroup:${cgroup.path}`] });
    await limitOpenFiles(stage, '0:');
    assertRefused(await system.attempt(form, 'destroy'), form, 2200003, /log has the cause under reference=/);
    await limitOpenFiles(stage, '1024:');
    assert.match(stage.vpnd.log(), /EMFILE/);
    // What could be removed is gone, and the user may have another VPN.
    assert.equal(await stage.link('vpn-tun0'), undefined);
    await system.setUp(CONFIG);
    await system.destroy();
  });
});

async function limitOpenFiles({ host, vpnd }: Scene, limit: string): Promise<void> {
  await host.run('prlimit', ['--pid', String(vpnd.pid), `--nofile=${limit}`]);
}

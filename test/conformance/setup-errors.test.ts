/**
 * Every documented code of setUp, in both forms. The kernel is asked after each refusal whether anything has changed.
 *
 *   app (vpnd, the apps) ── router ── server
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Form } from './lib/agent.js';
import type { App } from './lib/app.js';
import { assertRefused, assertSucceeded, errorTest } from './lib/rows.js';
import { POLICY, type Scene, scene, USERS } from './lib/scene.js';

const CONFIG = { addresses: [{ address: { address: '10.0.0.5', family: 1 }, prefixLength: 24 }] };

test('setUp: every code', { timeout: 600_000 }, async (t) => {
  const stage = await scene(t);
  if (!stage) return;
  const system = await stage.app(USERS.system);

  await errorTest(t, 'setUp', 201, async (form) => {
    await stage.unchanged(async () => {
      const app = await stage.app(USERS.noPermission);
      assertRefused(await app.attempt(form, 'setUp', CONFIG), form, 201, /ohos\.permission\.MANAGE_VPN/);
      await stage.policy({ ...POLICY, disabled: true });
      assertRefused(await system.attempt(form, 'setUp', CONFIG), form, 201, /disabled by the administrator/);
      await stage.policy(POLICY);
    });
  });

  await errorTest(t, 'setUp', 202, async (form) => {
    const app = await stage.app(USERS.ordinary);
    await app.connectUnasked(stage.vpnd.socket);
    await stage.unchanged(async () => {
      assertRefused(await app.attempt(form, 'setUp', CONFIG), form, 202, /uid 2005 is no system application/);
    });
  });

  await errorTest(t, 'setUp', 401, async (form) => {
    await stage.unchanged(async () => {
      const outcome = await system.attempt(form, 'setUp', { ...CONFIG, mtu: '1400' });
      assertRefused(outcome, form, 401, /^config\.mtu: "1400" is not a number$/);
    });
  });

  await errorTest(t, 'setUp', 2200001, async (form) => {
    await stage.unchanged(async () => {
      const outcome = await system.attempt(form, 'setUp', { ...CONFIG, mtu: 575 });
      assertRefused(outcome, form, 2200001, /^config\.mtu: 575 is not an integer in 576\.\.65535$/);
    });
  });

  await errorTest(t, 'setUp', 2200002, async (form) => {
    const app = await stage.newApp(USERS.system, stage.host, '/run/nobody/listens');
    const outcome = await app.attempt(form, 'setUp', CONFIG);
    assertRefused(outcome, form, 2200002, /\/run\/nobody\/listens \(ENOENT\); start it.* with: .*vpnd/);
    await app.end();
  });

  await errorTest(t, 'setUp', 2200003, async (form) => {
    // Somebody else has the name of the first vNIC. The refusal says where the cause is, not what it is.
    await stage.host.ip('link add vpn-tun0 type veth peer name elsewhere');
    await stage.unchanged(async () => {
      const outcome = await system.attempt(form, 'setUp', CONFIG);
      assertRefused(outcome, form, 2200003, /log has the cause under reference=([0-9a-f]+)$/);
      const reference = /reference=(\S+)$/.exec(outcome.error?.message ?? '')?.[0] ?? '?';
      const line = stage.vpnd
        .log()
        .split('\n')
        .find((each) => each.includes(reference));
      assert.match(line ?? '', /TUNSETIFF vpn-tun0: EBUSY/);
    });
    await stage.host.ip('link del vpn-tun0');
    // The last of the things a VPN with DNS servers needs is refused: what was made before it goes again.
    await stage.host.run('nft', ['add table inet vpnd; add map inet vpnd dns_user { type ipv4_addr : verdict; }']);
    await stage.unchanged(async () => {
      const outcome = await system.attempt(form, 'setUp', { ...CONFIG, dnsAddresses: ['10.0.0.1'] });
      assertRefused(outcome, form, 2200003, /reference=/);
    });
    await stage.host.run('nft', ['delete table inet vpnd']);
  });

  await errorTest(t, 'setUp', 2203001, async (form) => {
    const app = await stage.app(USERS.guest);
    await stage.unchanged(async () => {
      assertRefused(await app.attempt(form, 'setUp', CONFIG), form, 2203001, /uid 2006 is a guest/);
    });
  });

  await errorTest(t, 'setUp', 2203002, async (form) => {
    const another = await stage.newApp(USERS.system);
    await system.setUp(CONFIG);
    await stage.unchanged(async () => {
      for (const app of [system, another]) await assertExists(app, form);
    });
    await system.destroy();
    await raceForTheFirst(stage, [system, another], form);
    await another.end();
  });
});

async function assertExists(app: App, form: Form): Promise<void> {
  assertRefused(await app.attempt(form, 'setUp', CONFIG), form, 2203002, /uid 2001 has vpn-tun0/);
}

/** While one is being set up, the others are refused: one VPN, whoever was first. */
async function raceForTheFirst(stage: Scene, apps: App[], form: Form): Promise<void> {
  const outcomes = await Promise.all([...apps, ...apps].map((app) => app.attempt(form, 'setUp', CONFIG)));
  const [winner, ...second] = outcomes.filter(({ data }) => data !== undefined);
  assert.ok(winner && second.length === 0, JSON.stringify(outcomes));
  assertSucceeded(winner, form, 'number');
  for (const outcome of outcomes.filter((each) => each !== winner)) assertRefused(outcome, form, 2203002, /uid 2001/);
  const links = await stage.host.json<{ ifname: string }[]>('ip', ['-j', 'link', 'show', 'type', 'tun']);
  assert.deepEqual(
    links.map(({ ifname }) => ifname),
    ['vpn-tun0'],
  );
  await apps[0]?.destroy();
}

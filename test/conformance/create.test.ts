/**
 * createVpnConnection: its parameter, its result, its codes, and how little it asks of the service.
 *
 *   app (vpnd, the apps) ── router ── server
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startFakeService } from '../lab/lib/fake-service.js';
import type { Outcome } from './lib/agent.js';
import type { App } from './lib/app.js';
import { assertRefused } from './lib/rows.js';
import { POLICY, scene, USERS } from './lib/scene.js';

test('createVpnConnection', { timeout: 600_000 }, async (t) => {
  const stage = await scene(t);
  if (!stage) return;
  const system = await stage.app(USERS.system);

  await t.test('createVpnConnection(context): parameter context', async () => {
    const kinds = await system.do(({ vpn }) => {
      const contexts: object[] = [{}, [], Object.create(null), new Date(), Object.freeze({})];
      return contexts.map((context) => typeof vpn.createVpnConnection(context));
    });
    assert.deepEqual(kinds, ['object', 'object', 'object', 'object', 'object']);
    // Nothing in it is read, so nothing in it is trusted.
    const read = await system.do(({ vpn }) => {
      const asked: string[] = [];
      const trap = { get: (_: object, key: string | symbol) => void asked.push(String(key)) };
      vpn.createVpnConnection(new Proxy({}, trap));
      return asked;
    });
    assert.deepEqual(read, []);
  });

  await t.test('createVpnConnection(context): returns VpnConnection', async () => {
    const seen = await system.do(({ vpn }) => {
      const connection = vpn.createVpnConnection({});
      const methods = (['setUp', 'protect', 'destroy'] as const).map((name) => typeof connection[name]);
      return { json: JSON.stringify(connection), keys: Reflect.ownKeys(connection).length, methods };
    });
    assert.deepEqual(seen, { json: '{}', keys: 0, methods: ['function', 'function', 'function'] });
  });

  await t.test('createVpnConnection(context): 202 Non-system applications use system APIs.', async () => {
    const ordinary = await stage.app(USERS.ordinary);
    assertRefusedAtOnce(await create(ordinary, '[{}]'), 202, /^uid 2005 is no system application/);
    // It is a matter of the policy, not of the process: asked again at every call.
    await stage.policy({ callers: [{ match: { uid: USERS.ordinary }, system: true }] });
    assert.equal((await create(ordinary, '[{}]')).thrown, undefined);
    await stage.policy(POLICY);
  });

  await t.test('createVpnConnection(context): 401 Parameter error.', async () => {
    for (const values of [
      '[]',
      '[{}, {}]',
      '[undefined]',
      '[null]',
      '[1]',
      '["context"]',
      '[() => {}]',
      '[{}, undefined]',
    ]) {
      assertRefused(await create(system, values), 'promise', 401, /^context: /);
    }
  });

  await t.test('createVpnConnection: 401 comes before 202', async () => {
    const ordinary = await stage.app(USERS.ordinary);
    assertRefused(await create(ordinary, '[null]'), 'promise', 401, /^context: is not an object$/);
  });

  await t.test('createVpnConnection: a service that cannot be reached is no error', async () => {
    const app = await stage.newApp(USERS.ordinary, stage.host, '/run/nobody/listens');
    assert.equal((await create(app, '[{}]')).thrown, undefined);
    await app.end();
  });

  await t.test(
    'createVpnConnection: a service that does not answer is waited for once, not long, and is no error',
    async () => {
      const { socket } = await startFakeService(stage.host, 'is silent');
      const app = await stage.newApp(USERS.ordinary, stage.host, socket);
      assert.equal((await create(app, '[{}]')).thrown, undefined);
      await app.end();
    },
  );
});

/** `values` is source text: JSON has no undefined. */
function create(app: App, values: string): Promise<Outcome> {
  return app.do(async (agent, text) => {
    const { default: all } = await import(`data:text/javascript,export default ${encodeURIComponent(text)}`);
    const call = agent.vpn.createVpnConnection as (...given: unknown[]) => unknown;
    return agent.outcome('callback', (callback) => {
      call(...all);
      (callback as () => void)();
    });
  }, values);
}

/** The only code besides 401 that is thrown: the call has no later to deliver it in. */
function assertRefusedAtOnce({ thrown }: Outcome, code: number, why: RegExp): void {
  assert.ok(thrown, 'thrown');
  assert.equal(thrown.code, code);
  assert.match(thrown.message.replace(/^[^.]*\. /, ''), why);
}

/**
 * Malformed configurations: each is refused with its code and its field, in both forms, and nothing changes; and the values at
 * the edges that are right.
 *
 *   app (vpnd, the apps) ── router ── server
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Form, Outcome } from './lib/agent.js';
import type { App } from './lib/app.js';
import { type BadValue, PRELUDE, TYPES_AND_SHAPES, VALUES } from './lib/bad-values.js';
import { assertRefused, assertSucceeded, FORMS } from './lib/rows.js';
import { scene, USERS } from './lib/scene.js';

test('configurations', { timeout: 600_000 }, async (t) => {
  const stage = await scene(t);
  if (!stage) return;
  const system = await stage.app(USERS.system);

  async function refuseAll(code: 401 | 2200001, all: readonly BadValue[]): Promise<void> {
    await stage?.unchanged(async () => {
      for (const [config, why] of all) {
        for (const form of FORMS) {
          const outcome = await setUp(system, form, config);
          try {
            assertRefused(outcome, form, code, why);
          } catch (error) {
            throw new Error(`${config}: ${(error as Error).message}`);
          }
        }
      }
    });
  }

  await t.test('401: every value of a wrong type or shape names its field and changes nothing', async () => {
    await refuseAll(401, TYPES_AND_SHAPES);
  });

  await t.test('2200001: every well-typed but wrong value names its field and changes nothing', async () => {
    await refuseAll(2200001, VALUES);
  });

  await t.test('a wrong field is named whatever is right around it', async () => {
    const outcome = await setUp(
      system,
      'promise',
      'C({ routes: many(9, (n) => R({ hasGateway: n === 8 ? 1 : true })) })',
    );
    assertRefused(outcome, 'promise', 401, /^config\.routes\[8\]\.hasGateway: 1 is not a boolean$/);
    assert.deepEqual(outcome.thrown?.data, { field: 'config.routes[8].hasGateway', reason: '1 is not a boolean' });
  });

  await t.test('values at the edges are accepted', async () => {
    const right = [
      'C({ mtu: 576 })',
      'C({ mtu: 65535 })',
      '{ addresses: [A6], mtu: 1280 }',
      '{ addresses: [D("10.0.0.5", 32), D("10.0.1.0", 31), D("2001:db8::", 128)] }',
      'C({ unknown: null, another: () => {} })',
      'C({ routes: undefined, mtu: undefined, isBlocking: undefined, dnsAddresses: undefined })',
      'C({ routes: [R(), R()] })',
      'C({ routes: [R({ gateway: { address: "" } }), R({ destination: D("20.0.0.0", 8), gateway: { address: "0.0.0.0" } })] })',
      'C({ routes: [R({ gateway: { address: "192.0.2.1" }, hasGateway: false })] })',
      'C({ routes: [R({ interface: "vpn-tun0" }), R({ destination: D("20.0.0.0", 8), interface: "" })] })',
      'C({ addresses: [{ ...A, address: { address: "10.0.0.5", port: "any" } }] })',
      'C({ dnsAddresses: [], routes: [], searchDomains: [], trustedApplications: [], blockedApplications: [] })',
      'C({ dnsAddresses: many(64, (n) => "10.0.0." + (n + 10)), searchDomains: many(64, (n) => "d" + n + ".example.") })',
      '{ addresses: many(2000, (n) => D(V4(10, n, 9), 32)) }',
      'C({ routes: many(10000, (n) => R({ destination: D(V4(20, n, 0), 24) })) })',
    ];
    await stage.unchanged(async () => {
      for (const config of right) {
        const outcome = await setUp(system, 'promise', config);
        assert.ok(outcome.data, `${config}: ${JSON.stringify(outcome)}\n${stage.vpnd.log()}`);
        assertSucceeded(outcome, 'promise', 'number');
        await system.destroy();
      }
    });
  });

  await t.test('256 applications are accepted', async () => {
    const root = await stage.app(USERS.root);
    assertSucceeded(
      await setUp(root, 'promise', 'C({ blockedApplications: many(256, (n) => "uid:" + n) })'),
      'promise',
      'number',
    );
    await root.destroy();
  });
});

function setUp(app: App, form: Form, config: string): Promise<Outcome> {
  return app.do(
    async (agent, how, prelude, text) => {
      const source = `${prelude}\nexport default ${text};`;
      const { default: value } = await import(`data:text/javascript,${encodeURIComponent(source)}`);
      return agent.attempt(how, 'setUp', value);
    },
    form,
    PRELUDE,
    config,
  );
}

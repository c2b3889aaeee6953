/**
 * How outcomes arrive: what a callback is called with and when, what a promise resolves to, what is thrown, and what an error
 * looks like; the rows of parameters and return values.
 *
 *   app (vpnd, the apps) ── router ── server
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startFakeService } from '../lab/lib/fake-service.js';
import { assertRefused, assertSucceeded, FORMS, SIGNATURES } from './lib/rows.js';
import { scene, USERS } from './lib/scene.js';

const CONFIG = { addresses: [{ address: { address: '10.0.0.5' }, prefixLength: 24 }] };

test('delivery', { timeout: 600_000 }, async (t) => {
  const stage = await scene(t);
  if (!stage) return;
  const system = await stage.app(USERS.system);

  for (const form of FORMS) {
    await t.test(`${SIGNATURES.setUp[form]}: parameter config`, async () => {
      const outcome = await system.attempt(form, 'setUp', CONFIG);
      assertSucceeded(outcome, form, 'number');
      const link = await stage.link('vpn-tun0');
      assert.deepEqual(
        link?.addr_info.map(({ local, prefixlen }) => `${local}/${prefixlen}`),
        ['10.0.0.5/24'],
      );
      await system.destroy();
      const missing = await system.attempt(form, 'setUp');
      // In the callback form the callback then stands in the configuration's place.
      assertRefused(missing, form, 401, form === 'promise' ? /^config: is missing$/ : /^config: .*is not an object$/);
    });

    await t.test(`${SIGNATURES.protect[form]}: parameter socketFd`, async () => {
      const outcome = await system.do(async (agent, how) => {
        const { socket: udp, fd } = await agent.udp();
        agent.kept.udp = udp;
        return agent.attempt(how, 'protect', fd);
      }, form);
      assertSucceeded(outcome, form, 'undefined');
      assert.equal(await stage.marks(system.pid), '0x80000000');
      await system.do(({ kept }) => (kept.udp as { close(): void }).close());
    });
  }

  await t.test('setUp(config, callback): parameter callback', async () => {
    assertSucceeded(await system.attempt('callback', 'setUp', CONFIG), 'callback', 'number');
    await system.destroy();
    for (const value of [null, 1, 'callback', {}, []]) {
      assertRefused(
        await system.attempt('promise', 'setUp', CONFIG, value),
        'promise',
        401,
        /^callback: is not a function$/,
      );
    }
  });

  await t.test('protect(socketFd, callback): parameter callback', async () => {
    for (const value of [null, 1, 'callback', {}, []]) {
      assertRefused(
        await system.attempt('promise', 'protect', 3, value),
        'promise',
        401,
        /^callback: is not a function$/,
      );
    }
  });

  await t.test('destroy(callback): parameter callback', async () => {
    assertSucceeded(await system.attempt('callback', 'destroy'), 'callback', 'undefined');
  });

  await t.test('setUp(config): returns Promise<number>', async () => {
    const outcome = await system.attempt('promise', 'setUp', CONFIG);
    assertSucceeded(outcome, 'promise', 'number');
    assert.equal(system.descriptor(outcome.data as number).link, 'vpn-tun0');
    await system.destroy();
  });

  await t.test('protect(socketFd): returns Promise<void>', async () => {
    const outcome = await system.do(async (agent) => {
      const { socket: udp, fd } = await agent.udp();
      const result = await agent.attempt('promise', 'protect', fd);
      udp.close();
      return result;
    });
    assertSucceeded(outcome, 'promise', 'undefined');
  });

  await t.test('destroy(): returns Promise<void>', async () => {
    await system.setUp(CONFIG);
    assertSucceeded(await system.attempt('promise', 'destroy'), 'promise', 'undefined');
    assert.equal(await stage.link('vpn-tun0'), undefined);
  });

  await t.test('an undefined callback is an absent one: the promise form', async () => {
    const { returned, data } = await system.attempt('promise', 'setUp', CONFIG);
    assert.deepEqual([returned, typeof data], ['promise', 'number']);
    const outcome = await system.do((agent) =>
      agent.outcome('promise', () => agent.connection.destroy(undefined as never)),
    );
    assertSucceeded(outcome, 'promise', 'undefined');
  });

  await t.test('extra arguments are 401 in every call', async () => {
    for (const [method, values] of [
      ['setUp', [CONFIG, undefined]],
      ['protect', [3, undefined]],
      ['destroy', [undefined]],
    ] as const) {
      const outcome = await system.do(
        (agent, name, given) => {
          const call = agent.connection[name] as (...all: unknown[]) => unknown;
          const all = given.map((each) => each ?? undefined);
          return agent.outcome('callback', (callback) => call.call(agent.connection, ...all, callback));
        },
        method,
        values as readonly unknown[],
      );
      assertRefused(outcome, 'callback', 401, /arguments instead of at most/);
    }
  });

  await t.test('a method with a wrong this is 401', async () => {
    for (const method of ['setUp', 'protect', 'destroy'] as const) {
      for (const source of ['undefined', 'null', '{}', '1', 'Object.create(agent.connection)']) {
        const outcome = await system.do(
          async (agent, name, text) => {
            const call = agent.connection[name] as (...all: unknown[]) => unknown;
            const { default: make } = await import(`data:text/javascript,export default (agent) => (${text})`);
            return agent.outcome('promise', () => call.call(make(agent), agent.config()));
          },
          method,
          source,
        );
        assertRefused(outcome, 'promise', 401, /^this: is not a VpnConnection/);
      }
    }
  });

  await t.test('what a callback throws is an uncaught exception of the app', async () => {
    const app = await stage.newApp(USERS.other);
    const caught = await app.do(
      ({ connection }) =>
        new Promise((resolve) => {
          process.once('uncaughtException', (error, origin) => resolve([error.message, origin]));
          connection.destroy(() => {
            throw new Error('of the callback');
          });
        }),
    );
    assert.deepEqual(caught, ['of the callback', 'uncaughtException']);
    await app.end();
  });

  await t.test('a promise that is dropped does not end the process when it fails', async () => {
    const app = await stage.newApp(USERS.system, stage.host, '/run/nobody/listens');
    const alive = await app.do(async ({ connection, config }) => {
      void connection.setUp(config());
      void connection.protect(0);
      void connection.destroy();
      await new Promise((resolve) => setTimeout(resolve, 100));
      return true;
    });
    assert.equal(alive, true);
    await app.end();
  });

  await t.test('the configuration is copied once, at the call', async () => {
    const reads = await system.do(async ({ connection, config }) => {
      const given = config({ mtu: 1400 });
      const counts: Record<string, number> = {};
      const counting = new Proxy(given, {
        get(target, key) {
          counts[String(key)] = (counts[String(key)] ?? 0) + 1;
          return Reflect.get(target, key);
        },
      });
      const result = connection.setUp(counting);
      const atTheCall = JSON.stringify(counts);
      given.mtu = 9000;
      given.addresses.length = 0;
      await result;
      return { atTheCall, atTheEnd: JSON.stringify(counts), most: Math.max(...Object.values(counts)) };
    });
    assert.equal(reads.atTheEnd, reads.atTheCall);
    assert.equal(reads.most, 1);
    assert.equal((await stage.link('vpn-tun0'))?.mtu, 1400);
    await system.destroy();
  });

  await t.test('2200002 when the service went away before it answered', async () => {
    for (const form of FORMS) {
      const { socket } = await startFakeService(stage.host, 'closes');
      const app = await stage.newApp(USERS.system, stage.host, socket);
      assertRefused(
        await app.attempt(form, 'destroy'),
        form,
        2200002,
        /went away before it answered.*start it.* with: .*vpnd/,
      );
      await app.end();
    }
  });

  await t.test(
    'an answer that is none of the API is 2200003, and its text does not reach the caller as a code',
    async () => {
      for (const form of FORMS) {
        const { socket } = await startFakeService(stage.host, 'fails');
        const app = await stage.newApp(USERS.system, stage.host, socket);
        assertRefused(await app.attempt(form, 'destroy'), form, 2200003, /^the service refused the request/);
        await app.end();
      }
    },
  );

  await t.test('2200002 when the service does not answer in time: protect 5 s, the others 30 s', async () => {
    const { socket } = await startFakeService(stage.host, 'is silent');
    const app = await stage.newApp(USERS.system, stage.host, socket);
    const outcomes = await app.do(async (agent) => {
      const { fd } = await agent.udp();
      return Promise.all([
        agent.attempt('promise', 'protect', fd),
        agent.attempt('promise', 'setUp', agent.config()),
        agent.attempt('promise', 'destroy'),
      ]);
    });
    for (const [index, why] of [/within 5 s/, /within 30 s/, /within 30 s/].entries()) {
      assertRefused(outcomes[index] ?? assert.fail(), 'promise', 2200002, why);
    }
    await app.end();
  });
});

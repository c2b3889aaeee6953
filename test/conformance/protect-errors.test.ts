/**
 * Every documented code of protect, in both forms.
 *
 *   app (vpnd, the apps) ── router (an app in another network namespace) ── server
 */
import { test } from 'node:test';
import type { Form, Outcome } from './lib/agent.js';
import type { App } from './lib/app.js';
import { assertRefused, errorTest } from './lib/rows.js';
import { POLICY, scene, USERS } from './lib/scene.js';

test('protect: every code', { timeout: 600_000 }, async (t) => {
  const stage = await scene(t);
  if (!stage) return;
  const system = await stage.app(USERS.system);

  await errorTest(t, 'protect', 201, async (form) => {
    const app = await stage.app(USERS.noPermission);
    assertRefused(await protectNew(app, form), form, 201, /ohos\.permission\.MANAGE_VPN/);
    await stage.policy({ ...POLICY, disabled: true });
    assertRefused(await protectNew(system, form), form, 201, /disabled by the administrator/);
    await stage.policy(POLICY);
  });

  await errorTest(t, 'protect', 202, async (form) => {
    const app = await stage.app(USERS.ordinary);
    await app.connectUnasked(stage.vpnd.socket);
    assertRefused(await protectNew(app, form), form, 202, /uid 2005 is no system application/);
  });

  await errorTest(t, 'protect', 401, async (form) => {
    for (const value of ['4', null, true, [4], {}]) {
      const outcome = await system.attempt(form, 'protect', value);
      assertRefused(outcome, form, 401, /^socketFd: .*is not a number$/);
    }
  });

  await errorTest(t, 'protect', 2200001, async (form) => {
    for (const source of ['1.5', '2 ** 31', '-(2 ** 31) - 1', 'NaN', 'Infinity', '-Infinity', '2 ** 53']) {
      const outcome = await protectNumber(system, form, source);
      assertRefused(outcome, form, 2200001, /^socketFd: \S+ is not a 32-bit integer$/);
    }
  });

  await errorTest(t, 'protect', 2200002, async (form) => {
    const app = await stage.newApp(USERS.system, stage.host, '/run/nobody/listens');
    assertRefused(await protectNew(app, form), form, 2200002, /ENOENT.*start it.* with: .*vpnd/);
    await app.end();
  });

  await errorTest(t, 'protect', 2200003, async (form) => {
    // The service's socket is a file and can be reached from there; its network cannot.
    const elsewhere = await stage.newApp(USERS.system, stage.lab.router);
    const outcome = await protectNew(elsewhere, form);
    assertRefused(outcome, form, 2200003, /^socketFd: belongs to another network namespace than the service's$/);
    await elsewhere.end();
  });

  await errorTest(t, 'protect', 2203004, async (form) => {
    for (const source of ['0', '-0', '-1', '-(2 ** 31)', '2 ** 31 - 1', '999']) {
      assertRefused(await protectNumber(system, form, source), form, 2203004, /^socketFd: \S+ is not a/);
    }
    const tun = await system.setUp({ addresses: [{ address: { address: '10.0.0.5' }, prefixLength: 24 }] });
    assertRefused(await system.attempt(form, 'protect', tun), form, 2203004, /AF_INET/);
    await system.destroy();
    for (const kind of ['file', 'directory', 'unix'] as const) {
      assertRefused(
        await protectOther(system, form, kind),
        form,
        2203004,
        /is not an open AF_INET or AF_INET6 socket$/,
      );
    }
    const closed = await system.do(async (agent, how) => {
      const { socket: udp, fd } = await agent.udp();
      await new Promise<void>((resolve) => udp.close(() => setTimeout(resolve, 50)));
      return agent.attempt(how, 'protect', fd);
    }, form);
    assertRefused(closed, form, 2203004, /is not an open AF_INET or AF_INET6 socket$/);
  });
});

/** Of a UDP socket that is closed afterwards. */
function protectNew(app: App, form: Form): Promise<Outcome> {
  return app.do(async (agent, how) => {
    const { socket: udp, fd } = await agent.udp();
    const outcome = await agent.attempt(how, 'protect', fd);
    udp.close();
    return outcome;
  }, form);
}

/** JSON has not all numbers: the app reads them from source text. */
function protectNumber(app: App, form: Form, source: string): Promise<Outcome> {
  return app.do(
    async (agent, how, text) => {
      const { default: value } = await import(`data:text/javascript,export default ${encodeURIComponent(text)}`);
      return agent.attempt(how, 'protect', value);
    },
    form,
    source,
  );
}

function protectOther(app: App, form: Form, kind: 'file' | 'directory' | 'unix'): Promise<Outcome> {
  return app.do(
    async (agent, how, what) => {
      if (what !== 'unix') {
        const fd = agent.fs.openSync(what === 'file' ? '/dev/null' : '/', 'r');
        const outcome = await agent.attempt(how, 'protect', fd);
        agent.fs.closeSync(fd);
        return outcome;
      }
      const { createServer } = await import('node:net');
      const server = createServer().listen(`\0conformance-${process.pid}`);
      await new Promise((resolve) => server.once('listening', resolve));
      const { fd } = (server as unknown as { _handle: { fd: number } })._handle;
      const outcome = await agent.attempt(how, 'protect', fd);
      server.close();
      return outcome;
    },
    form,
    kind,
  );
}

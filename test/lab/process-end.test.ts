/**
 * Processes end, and their VPNs with them: one host without any link.
 *
 *   app: vpnd ◄── child (process-end/child.ts): setUp, then process.exit(3) | uncaught throw | natural end
 */
import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { canonicalState } from './lib/canonical-state.js';
import type { LabHost } from './lib/host.js';
import { Lab } from './lib/lab.js';
import { requireRoot } from './lib/prerequisites.js';
import type { LabProcess, Result } from './lib/process.js';
import { stateBecomes, tunnelsOf } from './lib/settled-state.js';
import { startVpnd } from './lib/vpnd.js';

const CHILD = 'dist/test/lab/process-end/child.js';
const STATUS = { exit: 3, throw: 1, natural: 0 } as const;
const ENDINGS = Object.keys(STATUS) as (keyof typeof STATUS)[];
const MEANING = {
  call: 'with a call in flight',
  up: 'with a VPN up',
  read: 'with two reads blocked on the TUN',
} as const;
const STATES = Object.keys(MEANING) as (keyof typeof MEANING)[];
/** Far more than any end takes, far less than any time-out of the product that could hide a process that hangs. */
const BOUND_MS = 25_000;

test('a process with a VPN ends in every way, and its VPN with it', { timeout: 300_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { app, before } = await oneHost(t);
  const vpnd = await startVpnd(app);
  for (const state of STATES) {
    for (const ending of ENDINGS) {
      await t.test(`${ending} ${MEANING[state]}`, async () => {
        const child = app.spawnNode(CHILD, [state, ending], { uid: 2001, env: { VPND_SOCKET: vpnd.socket } });
        await child.waitFor(/^ready$/m, 60_000);
        assert.deepEqual(await tunnelsOf(app), state === 'call' ? [] : ['vpn-tun0']);
        process.kill(child.pid, 'SIGUSR2');
        checkEnd(await endOf(child), state, ending);
        await stateBecomes(app, before);
      });
    }
  }

  await t.test('a VPN that is up keeps its process alive, as a listening server does', async () => {
    const script = `
      import { vpn } from '/run/repo/dist/src/vpn/index.js';
      const connection = vpn.createVpnConnection({});
      await connection.setUp({ addresses: [{ address: { address: '10.0.0.5' }, prefixLength: 24 }] });
      process.on('SIGUSR2', () => void connection.destroy());
      process.on('beforeExit', () => console.log('nothing left to do'));
      console.log('ready');`;
    const child = app.spawnNode('--input-type=module', ['-e', script], {
      uid: 2001,
      env: { VPND_SOCKET: vpnd.socket },
    });
    await child.waitFor(/^ready$/m, 60_000);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    assert.ok(child.running);
    assert.doesNotMatch(child.stdout, /nothing left/);
    assert.deepEqual(await tunnelsOf(app), ['vpn-tun0']);
    process.kill(child.pid, 'SIGUSR2');
    assert.equal((await endOf(child)).status, 0);
    assert.match(child.stdout, /nothing left/);
    await stateBecomes(app, before);
  });

  await t.test('a process ends when another one of the same user has destroyed its VPN', async () => {
    const script = (calls: string) => `
      import { vpn } from '/run/repo/dist/src/vpn/index.js';
      const connection = vpn.createVpnConnection({});
      ${calls}
      console.log('ready');`;
    const run = (calls: string) =>
      app.spawnNode('--input-type=module', ['-e', script(calls)], { uid: 2001, env: { VPND_SOCKET: vpnd.socket } });
    const config = `{ addresses: [{ address: { address: '10.0.0.5' }, prefixLength: 24 }] }`;
    const child = run(`await connection.setUp(${config});`);
    await child.waitFor(/^ready$/m, 60_000);
    const other = run('await connection.destroy();');
    assert.equal((await endOf(other)).status, 0);
    assert.equal((await endOf(child)).status, 0);
    await stateBecomes(app, before);
  });

  for (const [state, ending] of [
    ['call', 'exit'],
    ['call', 'throw'],
    ['up', 'exit'],
  ] as const) {
    await t.test(`${ending} ${MEANING[state]} while vpnd is stopped`, async () => {
      const child = app.spawnNode(CHILD, [state, ending], { uid: 2001, env: { VPND_SOCKET: vpnd.socket } });
      await child.waitFor(/^ready$/m, 60_000);
      process.kill(vpnd.pid, 'SIGSTOP');
      try {
        process.kill(child.pid, 'SIGUSR2');
        checkEnd(await endOf(child), state, ending);
      } finally {
        process.kill(vpnd.pid, 'SIGCONT');
      }
      await stateBecomes(app, before);
    });
  }

  await t.test('a natural end comes after the time-out of a call that a stopped vpnd does not answer', async () => {
    const script = `
      import { vpn } from '/run/repo/dist/src/vpn/index.js';
      import { constructUDPSocketInstance } from '/run/repo/dist/src/vpn/socket.js';
      const fd = await constructUDPSocketInstance().getSocketFd();
      vpn.createVpnConnection({}).protect(fd, (error) => console.log(error.code));`;
    process.kill(vpnd.pid, 'SIGSTOP');
    try {
      const child = app.spawnNode('--input-type=module', ['-e', script], {
        uid: 2001,
        env: { VPND_SOCKET: vpnd.socket },
      });
      const { status, stdout } = await endOf(child);
      assert.deepEqual([status, stdout], [0, '2200002\n']);
    } finally {
      process.kill(vpnd.pid, 'SIGCONT');
    }
    await stateBecomes(app, before);
  });

  assert.equal((await vpnd.stop()).status, 0);
});

test('a process ends in every way with the service inside, and its VPN with it', { timeout: 300_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { app, before } = await oneHost(t);
  for (const state of STATES) {
    for (const ending of ENDINGS) {
      await t.test(`${ending} ${MEANING[state]}`, async () => {
        const socket = join(mkdtempSync(join(app.directory, 'service-')), 'vpnd.sock');
        const child = app.spawnNode(CHILD, [`service-${state}`, ending, socket]);
        await child.waitFor(/^ready$/m, 60_000);
        assert.deepEqual(await tunnelsOf(app), state === 'call' ? [] : ['vpn-tun0']);
        process.kill(child.pid, 'SIGUSR2');
        checkEnd(await endOf(child), state, ending);
        await stateBecomes(app, before);
      });
    }
  }
});

async function oneHost(t: TestContext): Promise<{ app: LabHost; before: string }> {
  const lab = await Lab.create();
  t.after(() => lab.close());
  const app = await lab.host('app');
  return { app, before: await canonicalState(app) };
}

function checkEnd({ status, stdout, stderr }: Result, state: keyof typeof MEANING, ending: keyof typeof STATUS): void {
  assert.equal(status, STATUS[ending], stderr);
  if (ending === 'throw') assert.match(stderr, /uncaught on purpose/);
  else assert.equal(stderr, '');
  if (ending !== 'natural') return;
  assert.match(stdout, /destroyed/);
  if (state === 'read') assert.match(stdout, /read ended EFAULT/);
}

async function endOf(child: LabProcess): Promise<Result> {
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    void child.kill('SIGKILL');
  }, BOUND_MS);
  const result = await child.exited;
  clearTimeout(timer);
  if (late) throw new Error(`the process is still there after ${BOUND_MS} ms\n${result.stdout}${result.stderr}`);
  return result;
}

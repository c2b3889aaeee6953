/**
 * Peers that do not behave: silent, half-closed, deaf, gone in the middle, thousands of them, or out of sight. Their
 * connection ends or they get an error, and the service goes on.
 *
 *   app: vpnd ◄── raw connections of an allowed user (2001) and of a stranger (4001)
 */
import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { libc } from '../../src/kernel/ffi.js';
import { Lab } from './lib/lab.js';
import { requireRoot } from './lib/prerequisites.js';
import { RawClient } from './lib/raw-client.js';
import { eventually, tunnelsOf } from './lib/settled-state.js';
import { CALLER, CONFIG, STRANGER, target } from './lib/unharmed.js';

const STATUS = '{"jsonrpc":"2.0","id":1,"method":"status","params":{}}\n';
/** The most connections of one uid; see docs/protocol.md. */
const CONNECTIONS = 256;

test('peers that do not behave', { timeout: 600_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { app, vpnd, connect, unharmed } = await target(t);

  await t.test('who is silent, or stops in the middle of a line, is closed; who has said hello may wait', async () => {
    const patient = connect(CALLER);
    await patient.hello();
    const halves = [connect(CALLER), connect(STRANGER)];
    for (const client of halves) {
      await client.hello();
      await client.send('{"jsonrpc":');
    }
    const silent = [CALLER, STRANGER, undefined].map((identity) => connect(identity));
    const talking = connect(STRANGER);
    await talking.send(STATUS);
    await Promise.all([...halves, ...silent, talking].map((client) => client.ended));
    assert.ok((await patient.call('status')).result);
    await unharmed();
  });

  await t.test('a half-closed connection is a closed one', async () => {
    for (const identity of [CALLER, STRANGER]) {
      for (const data of ['', '{"jsonrpc"', STATUS]) {
        const client = connect(identity);
        if (data === STATUS) await client.hello();
        await client.send(data);
        client.halfClose();
        await client.ended;
      }
    }
    const owner = connect(CALLER);
    await owner.hello();
    const { fd } = await owner.setUp(CONFIG);
    assert.deepEqual(await tunnelsOf(app), ['vpn-tun0']);
    owner.halfClose();
    await owner.ended;
    await eventually(
      async () => (await tunnelsOf(app)).length === 0,
      () => 'the VPN is still there',
    );
    libc.close(fd ?? -1);
    await unharmed();
  });

  await t.test('who asks and never reads the answers is closed before they cost memory', async () => {
    for (const identity of [CALLER, STRANGER]) {
      const deaf = connect(identity, { isDeaf: true });
      const hello = '{"jsonrpc":"2.0","id":0,"method":"hello","params":{"protocol":1}}\n';
      await deaf.send(`${hello}${STATUS.replace('status', 'subscribe')}`);
      const many = STATUS.repeat(1000);
      let lines = 0;
      while ((await deaf.send(many)) && lines < 1_000_000) lines += 1000;
      assert.ok(lines < 1_000_000, 'a million lines were taken');
    }
    await unharmed();
  });

  await t.test('who goes in the middle of setUp leaves nothing, whenever he goes', async () => {
    // Many routes: long enough that there is a middle.
    const routes = Array.from({ length: 4000 }, (_, index) => ({
      destination: { address: { address: `10.${100 + (index >> 8)}.${index & 255}.0` }, prefixLength: 24 },
      gateway: { address: '' },
    }));
    const params = { config: { ...CONFIG, routes } };
    const line = `${JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'setUp', fds: 1, params })}\n`;
    // The mailboxes stay open: it is not because nobody takes the descriptor that a VPN goes.
    const mailboxes: number[] = [];
    const watcher = connect(CALLER);
    await watcher.hello();
    for (let turn = 0; turn < 40; turn++) {
      // Behind the end of the last one it would wait, and be refused at once when its turn comes.
      await eventually(
        async () => JSON.stringify((await watcher.call('status')).result?.vpns) === '[]',
        () => `the VPN of turn ${turn - 1} is still there`,
        60_000,
      );
      const client = connect(CALLER);
      await client.hello();
      const [mine, theirs] = client.mailbox();
      mailboxes.push(mine, theirs);
      await client.send(line, [theirs]);
      if (turn % 3 > 0) await delay(turn);
      client.close();
    }
    await unharmed();
    for (const fd of mailboxes) libc.close(fd);
  });

  await t.test('many setUps of one who goes at once leave nothing', async () => {
    const line = `${JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'setUp', fds: 1, params: { config: CONFIG } })}\n`;
    const client = connect(CALLER);
    await client.hello();
    const [mine, theirs] = client.mailbox();
    for (let call = 0; call < 200; call++) await client.send(line, [theirs]);
    client.close();
    for (const fd of [mine, theirs]) libc.close(fd);
    await unharmed();
  });

  await t.test('who goes away while a call waits for those of the same user is no failure of the service', async () => {
    const [patient, hasty] = [connect(CALLER), connect(CALLER)];
    await Promise.all([patient, hasty].map((client) => client.hello()));
    const [mailbox, another] = [patient.mailbox(), hasty.mailbox()];
    const setUp = (id: number) =>
      `${JSON.stringify({ jsonrpc: '2.0', id, method: 'setUp', fds: 1, params: { config: CONFIG } })}\n`;
    await patient.send(setUp(10), [mailbox[1]]);
    const destroyed = patient.call('destroy');
    await hasty.send(setUp(11), [another[1]]);
    hasty.close();
    assert.ok((await destroyed).result);
    for (const each of [...mailbox, ...another]) libc.close(each);
    await unharmed();
  });

  await t.test('thousands of quick connections', async () => {
    for (let count = 0; count < 4000; count++) {
      const client = new RawClient(app, vpnd.socket, count % 2 === 0 ? CALLER : STRANGER);
      if (count % 3 === 0) await client.send(STATUS);
      client.close();
      if (count % 100 === 0) await delay(1);
    }
    // On a busy machine so many of this user's are still to be closed that there is no room for one more.
    await eventually(
      () =>
        connect(CALLER)
          .hello()
          .then(
            () => true,
            () => false,
          ),
      () => 'the user is not served again',
      60_000,
    );
    await unharmed();
  });

  await t.test("one user's connections do not use up everybody's", async () => {
    // Each says hello at once: who is silent for long is closed, and so many take their time.
    const hellos = Array.from({ length: CONNECTIONS + 50 }, () => connect(STRANGER).hello());
    const outcomes = await Promise.allSettled(hellos);
    assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, CONNECTIONS);
    await unharmed();
  });
});

test('a caller that the service cannot see, in another pid namespace, is refused', { timeout: 120_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const lab = await Lab.create();
  t.after(() => lab.close());
  const app = await lab.host('app');
  const directory = mkdtempSync(join(app.directory, 'vpnd-'));
  const socket = join(directory, 'vpnd.sock');
  const service = ['/run/node', app.path('dist/src/service/vpnd.js'), '--socket', socket, '--state-dir', directory];
  const vpnd = app.spawn('unshare', ['--pid', '--fork', '--kill-child', '--mount-proc', ...service]);
  await vpnd.waitFor(/ ready /);

  // Root, by the policy that holds without a file, but not a process that this service can name.
  const client = new RawClient(app, socket);
  t.after(() => client.close());
  assert.equal((await client.hello()).result?.isSystem, false);
  const refusals = [
    (await client.setUp(CONFIG)).answer,
    await client.call('protect', {}, [0]),
    await client.call('destroy'),
  ];
  for (const { error } of refusals) {
    assert.equal(error?.code, 202);
    assert.match(error?.message ?? '', /pid namespace/);
  }
  assert.deepEqual(await tunnelsOf(app), []);
});

/**
 * Many calls at once: one host without any link, one vpnd, up to 64 users.
 *
 *   app: vpnd ◄══ 64 connections of uids 3001..3064, or 64 of uid 2001; one process of uid 2001 with 64 calls
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { libc } from '../../src/kernel/ffi.js';
import { socketMark } from '../../src/kernel/socket-options.js';
import { canonicalState } from './lib/canonical-state.js';
import type { LabHost } from './lib/host.js';
import { Lab } from './lib/lab.js';
import { requireRoot } from './lib/prerequisites.js';
import { RawClient, udpSocketIn } from './lib/raw-client.js';
import { eventually, stateBecomes, tunnelsOf } from './lib/settled-state.js';
import { startVpnd } from './lib/vpnd.js';

const COUNT = 64;
const USERS = Array.from({ length: COUNT }, (_, index) => 3001 + index);
const GROUP = 'daemon';
const PERMISSION = 'ohos.permission.MANAGE_VPN';
const POLICY = {
  callers: [{ uid: 0 }, { uid: 2001 }, { group: GROUP }].map((match) => ({
    match,
    system: true,
    permissions: [PERMISSION],
  })),
};
const CONFIG = { addresses: [{ address: { address: '10.0.0.5' }, prefixLength: 24 }], dnsAddresses: ['10.0.0.1'] };
const BYPASS = 0x80000000;

test('64 calls at once of one process: one setUp succeeds, all the rest as the contract says', async (t) => {
  if (!requireRoot(t)) return;
  const { app, socket, before } = await service(t);
  const script = `
    import { vpn } from '/run/repo/dist/src/vpn/index.js';
    import { constructUDPSocketInstance } from '/run/repo/dist/src/vpn/socket.js';
    const each = (work) => Promise.all(Array.from({ length: ${COUNT} }, async () => {
      try { const value = await work(vpn.createVpnConnection({})); return typeof value; } catch (error) { return error.code; }
    }));
    const fds = await Promise.all(Array.from({ length: ${COUNT} }, () => constructUDPSocketInstance().getSocketFd()));
    console.log(JSON.stringify([
      await each((c) => c.setUp(${JSON.stringify(CONFIG)})),
      await each((c) => c.protect(fds.pop())),
      await each((c) => c.destroy()),
      await each(async (c) => { const fd = await c.setUp(${JSON.stringify(CONFIG)}); await c.destroy(); return fd; }),
    ]));`;
  const args = ['-e', script];
  const env = { VPND_SOCKET: socket };
  const { stdout } = await app.node('--input-type=module', args, { uid: 2001, env, timeoutMs: 90_000 });
  const [setUps, protects, destroys, pairs] = JSON.parse(stdout) as (string | number)[][];
  assert.deepEqual(tally(setUps), { number: 1, 2203002: COUNT - 1 });
  assert.deepEqual(tally(protects), { undefined: COUNT });
  assert.deepEqual(tally(destroys), { undefined: COUNT });
  // All setUps are asked before the first destroy is.
  assert.deepEqual(tally(pairs), { number: 1, 2203002: COUNT - 1 });
  await stateBecomes(app, before);
});

test('64 connections of one user at once: one setUp succeeds, and any of them may destroy', async (t) => {
  if (!requireRoot(t)) return;
  const { app, socket, before } = await service(t);
  const sameUser = USERS.map(() => 2001);
  const clients = await connect(t, app, socket, sameUser);
  const outcomes = await Promise.all(clients.map((client) => client.setUp(CONFIG)));
  assert.deepEqual(tally(outcomes.map(({ answer }) => answer.error?.code)), { undefined: 1, 2203002: COUNT - 1 });
  assert.equal(outcomes.filter(({ fd }) => fd !== undefined).length, 1);
  assert.deepEqual(await tunnelsOf(app), ['vpn-tun0']);

  const loser = clients[outcomes.findIndex(({ answer }) => answer.error)];
  assert.deepEqual((await loser?.call('destroy'))?.result, {});
  closeTuns(outcomes);
  await stateBecomes(app, before);
});

test('64 users at once: each gets a VPN of its own with DNS, and all go again', { timeout: 600_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { app, socket, before } = await service(t);
  const clients = await connect(t, app, socket, USERS);

  for (const ending of ['destroy', 'the end of the connection'] as const) {
    await t.test(`by ${ending}`, async () => {
      const outcomes = await Promise.all(clients.map((client) => client.setUp(CONFIG)));
      assert.deepEqual(tally(outcomes.map(({ answer }) => answer.error?.message)), { undefined: COUNT });
      const links = outcomes.map(({ answer }) => String(answer.result?.link));
      assert.deepEqual((await tunnelsOf(app)).sort(), links.sort());
      assert.equal(new Set(links).size, COUNT);
      for (const family of ['-4', '-6']) assert.deepEqual(await usersInRules(app, family), USERS);
      assert.equal((await app.json<{ nftables: unknown[] }>('nft', ['-j', 'list', 'tables'])).nftables.length, 4);

      if (ending === 'destroy') {
        const ends = await Promise.all(clients.map((client) => client.call('destroy')));
        assert.deepEqual(tally(ends.map(({ error }) => error?.message)), { undefined: COUNT });
      } else {
        for (const client of clients) client.close();
      }
      closeTuns(outcomes);
      await stateBecomes(app, before);
    });
  }
});

test("64 users' calls, interleaved, do not disturb each other", { timeout: 600_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { app, socket, before } = await service(t);
  const clients = await connect(t, app, socket, USERS);
  const round = async (client: RawClient): Promise<unknown[]> => {
    const udp = udpSocketIn(app);
    const answers = await Promise.all([
      client.setUp(CONFIG).then(({ answer, fd }) => (fd === undefined ? answer : void libc.close(fd))),
      client.call('protect', {}, [udp]).then(({ error }) => error),
      client.setUp(CONFIG).then(({ answer }) => answer.error?.code),
      client.call('destroy').then(({ error }) => error),
    ]);
    const mark = socketMark(udp);
    libc.close(udp);
    return [...answers, mark];
  };
  for (let turn = 0; turn < 3; turn++) {
    const outcomes = await Promise.all(clients.map(round));
    for (const outcome of outcomes) assert.deepEqual(outcome, [undefined, undefined, 2203002, undefined, BYPASS]);
  }
  await stateBecomes(app, before);
});

test("a user's calls are worked in order of arrival", { timeout: 120_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { app, socket, before } = await service(t);
  const [client] = (await connect(t, app, socket, [2001])) as [RawClient];
  const [watcher] = (await connect(t, app, socket, [2001])) as [RawClient];
  await watcher.call('subscribe');
  const udp = udpSocketIn(app);
  t.after(() => libc.close(udp));
  const OK = 'ok';
  const setUp = async (): Promise<string | number> => {
    const { answer, fd } = await client.setUp(CONFIG);
    if (fd !== undefined) libc.close(fd);
    return answer.error?.code ?? OK;
  };
  const plain = async (method: string, fds: number[] = []) => (await client.call(method, {}, fds)).error?.code ?? OK;
  const destroy = () => plain('destroy');
  const protect = () => plain('protect', [udp]);
  const steps: [() => Promise<string | number>, string | number][] = [
    [setUp, OK],
    [destroy, OK],
    [setUp, OK],
    [protect, OK],
    [setUp, 2203002],
    [destroy, OK],
    [destroy, OK],
    [protect, OK],
    [setUp, OK],
    [setUp, 2203002],
    [destroy, OK],
  ];
  const all = Array.from({ length: 10 }, () => steps).flat();
  const outcomes = await Promise.all(all.map(([step]) => step()));
  assert.deepEqual(
    outcomes,
    all.map(([, outcome]) => outcome),
  );
  // Identifiers rise with the requests.
  const ids = client.answers.map(({ id }) => id);
  assert.deepEqual(
    ids,
    ids.map((_, index) => index + 1),
  );
  await eventually(
    () => watcher.events.length === 60,
    () => watcher.events.length,
  );
  assert.deepEqual(
    watcher.events.map(({ params }) => params.type),
    Array.from({ length: 30 }, () => ['up', 'down']).flat(),
  );
  await stateBecomes(app, before);
});

test('a thousand calls sent at once are all answered, as the contract says', { timeout: 600_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { app, socket, before } = await service(t);
  const [client] = (await connect(t, app, socket, [2001])) as [RawClient];
  const outcomes = await Promise.all(Array.from({ length: 1000 }, () => client.setUp(CONFIG)));
  closeTuns(outcomes);
  assert.deepEqual(tally(outcomes.map(({ answer }) => answer.error?.code)), { undefined: 1, 2203002: 999 });
  client.close();
  await stateBecomes(app, before);
});

async function service(t: TestContext): Promise<{ app: LabHost; socket: string; before: string }> {
  const lab = await Lab.create();
  t.after(() => lab.close());
  const app = await lab.host('app');
  const before = await canonicalState(app);
  const { socket } = await startVpnd(app, { policy: POLICY, args: ['--log-level', 'warning'] });
  return { app, socket, before };
}

/** A connection for each uid; those of the policy's group are in it by SO_PEERGROUPS. */
async function connect(t: TestContext, app: LabHost, socket: string, uids: readonly number[]): Promise<RawClient[]> {
  const groups = [Number(new RegExp(`^${GROUP}:[^:]*:(\\d+):`, 'm').exec(readFileSync('/etc/group', 'utf8'))?.[1])];
  const clients = uids.map((uid) => new RawClient(app, socket, { uid, gid: uid, groups }));
  t.after(() => {
    for (const client of clients) client.close();
  });
  await Promise.all(clients.map((client) => client.hello()));
  return clients;
}

async function usersInRules(host: LabHost, family: string): Promise<number[]> {
  const rules = await host.json<{ uid_start?: number; uid_end?: number }[]>('ip', ['-j', family, 'rule', 'show']);
  const users = rules.flatMap(({ uid_start: start, uid_end: end }) => (start === end && start ? [start] : []));
  return [...new Set(users)].sort((a, b) => a - b);
}

function closeTuns(outcomes: readonly { fd: number | undefined }[]): void {
  for (const { fd } of outcomes) if (fd !== undefined) libc.close(fd);
}

function tally(values: readonly unknown[] | undefined): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const value of values ?? []) counts[String(value)] = (counts[String(value)] ?? 0) + 1;
  return counts;
}

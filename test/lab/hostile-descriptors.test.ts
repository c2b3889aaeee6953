/**
 * Descriptors that nobody asked for, too many, too few, and of every wrong kind: refused, and closed in the service, whose
 * own are counted in /proc before and after.
 *
 *   app: vpnd ◄── raw connections of an allowed user (2001) and of a stranger (4001)
 */
import assert from 'node:assert/strict';
import { closeSync, constants, openSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { libc } from '../../src/kernel/ffi.js';
import { AF_UNIX, SOCK_DGRAM } from '../../src/kernel/socket-options.js';
import { openTun } from '../../src/kernel/tun.js';
import { sendWithFds, unixSocket } from '../../src/kernel/unix-socket.js';
import { requireRoot } from './lib/prerequisites.js';
import { inNamespaceOf, udpSocketIn } from './lib/raw-client.js';
import { tunnelsOf } from './lib/settled-state.js';
import { CALLER, CONFIG, STRANGER, target } from './lib/unharmed.js';

const INVALID_REQUEST = -32600;
/** Linux's SCM_MAX_FD. */
const MOST_IN_ONE_MESSAGE = 253;

test('descriptors of every wrong number', { timeout: 300_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { connect, unharmed } = await target(t);
  const file = openSync('/dev/null', constants.O_RDONLY);
  t.after(() => closeSync(file));
  const files = (count: number): number[] => Array.from({ length: count }, () => file);
  const request = (fds: unknown, method = 'status') =>
    `${JSON.stringify({ jsonrpc: '2.0', id: 7, method, fds, params: {} })}\n`;

  for (const [name, count] of [
    ['one', 1],
    ['as many as a line may claim', 8],
    ['as many as one message may carry', MOST_IN_ONE_MESSAGE],
  ] as const) {
    await t.test(`${name} without a line that claims them`, async () => {
      for (const identity of [CALLER, STRANGER]) {
        for (const line of [request(0), request(undefined), `${request(0)}${request(0)}`]) {
          const client = connect(identity);
          await client.hello();
          await client.send(line, files(count));
          await client.ended;
          assert.equal(client.answers.at(-1)?.error?.code, identity === STRANGER ? 202 : INVALID_REQUEST);
        }
      }
      await unharmed();
    });
  }

  await t.test('one that a line claims whose method takes none', async () => {
    const client = connect(CALLER);
    await client.hello();
    for (const method of ['status', 'destroy', 'hello', 'subscribe', 'nope']) {
      const answer = await client.call(method, {}, [file]);
      assert.equal(answer.error?.code, method === 'nope' ? -32601 : INVALID_REQUEST, method);
    }
    for (const method of ['setUp', 'protect']) {
      for (const count of [0, 2, 8]) {
        const answer = await client.call(method, {}, files(count));
        assert.equal(answer.error?.code, INVALID_REQUEST, `${method} with ${count}`);
      }
    }
    await unharmed();
  });

  await t.test('a claim that is no number of what came', async () => {
    for (const claim of [2, 9, 254, -1, 0.5, 1e9, '1', true, {}, [1]]) {
      const client = connect(CALLER);
      await client.hello();
      await client.send(request(claim, 'protect'), files(1));
      await client.ended;
      assert.equal(client.answers.at(-1)?.error?.code, INVALID_REQUEST, JSON.stringify(claim));
    }
    await unharmed();
  });

  await t.test('with the parts of a line, until there are more than any line may claim', async () => {
    const client = connect(CALLER);
    await client.hello();
    for (const part of request(8, 'protect').slice(0, 12)) {
      if (!(await client.send(part, files(1)))) break;
    }
    await client.ended;
    assert.equal(client.answers.at(-1)?.error?.code, INVALID_REQUEST);
    await unharmed();
  });

  await t.test('with half a line, and then nothing more', async () => {
    for (const end of ['close', 'halfClose'] as const) {
      const client = connect(CALLER);
      await client.hello();
      await client.send('{"jsonrpc":"2.0","id":1,"method":"protect","fds":8', files(8));
      client[end]();
    }
    await unharmed();
  });

  await t.test('many in flight when their sender goes', async () => {
    for (let turn = 0; turn < 50; turn++) {
      const client = connect(CALLER);
      const line = '{"jsonrpc":"2.0","id":1,"method":"hello","params":{}}\n';
      for (let message = 0; message < 4; message++) await client.send(line, files(MOST_IN_ONE_MESSAGE));
      client.close();
    }
    await unharmed();
  });
});

test('descriptors of every wrong kind', { timeout: 300_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { app, connect, unharmed } = await target(t);
  const opened: number[] = [];
  const keep = (fd: number): number => {
    opened.push(fd);
    return fd;
  };
  t.after(() => {
    for (const fd of opened) libc.close(fd);
  });
  const pair = (maker = connect(CALLER)): [number, number] => {
    const both = maker.mailbox();
    opened.push(...both);
    return both;
  };
  const datagrams = keep(libc.socket(AF_UNIX, SOCK_DGRAM, 0));
  const tun = keep(inNamespaceOf(app, () => openTun('wrong0')).fd);
  const notSockets = {
    file: keep(openSync('/dev/null', 'r')),
    folder: keep(openSync('/', 'r')),
    'TUN device': tun,
    eventfd: keep(libc.eventfd(0, 0)),
    epoll: keep(libc.epoll_create1(0)),
  };

  await t.test('protect takes nothing but an IP socket of its own network namespace', async () => {
    const client = connect(CALLER);
    await client.hello();
    const others = { 'unix stream': pair()[0], 'unix datagram': datagrams, netlink: keep(libc.socket(16, 3, 0)) };
    for (const [kind, fd] of Object.entries({ ...notSockets, ...others })) {
      assert.equal((await client.call('protect', {}, [fd])).error?.code, 2203004, kind);
    }
    const elsewhere = keep(libc.socket(2, 2, 0));
    assert.equal((await client.call('protect', {}, [elsewhere])).error?.code, 2200003);
  });

  await t.test(
    'setUp takes nothing but a mailbox that the caller made, and undoes what it cannot hand over',
    async () => {
      const client = connect(CALLER);
      await client.hello();
      const [full] = pair();
      while (sendWithFds(full, Buffer.alloc(4096), []) !== 'wait');
      const [lonely, gone] = client.mailbox();
      libc.close(gone);
      const listening = keep(unixSocket());
      const address = Buffer.concat([Buffer.from([1, 0]), Buffer.from(join(app.directory, 'listening.sock\0'))]);
      assert.equal(libc.bind(listening, address, address.length), 0);
      libc.listen(listening, 1);
      // Root listens there: with SO_PASSCRED it would take the service's byte for root's word.
      const toDaemon = keep(unixSocket());
      assert.equal(libc.connect(toDaemon, address, address.length), 0);
      const unconnected = keep(unixSocket());
      const others = { 'connection to a daemon': toDaemon, unconnected, listening };
      const wrong = { ...notSockets, ...others, 'unix datagram': datagrams, UDP: keep(udpSocketIn(app)) };
      for (const [kind, fd] of Object.entries(wrong)) {
        const { error } = await client.call('setUp', { config: CONFIG }, [fd]);
        assert.deepEqual([error?.code, error?.data?.field], [401, 'fds[0]'], kind);
      }
      const useless = { full, 'with nobody behind': keep(lonely) };
      for (const [kind, fd] of Object.entries(useless)) {
        assert.equal((await client.call('setUp', { config: CONFIG }, [fd])).error?.code, 2200003, kind);
        assert.deepEqual(await tunnelsOf(app), ['wrong0'], kind);
      }
      // And the user is free to have one afterwards.
      const { answer, fd } = await client.setUp(CONFIG);
      assert.deepEqual(answer.result, { link: 'vpn-tun0' });
      libc.close(fd ?? -1);
      assert.deepEqual((await client.call('destroy')).result, {});
    },
  );

  await t.test('a TUN that nobody takes out of the mailbox goes with its VPN', async () => {
    const client = connect(CALLER);
    await client.hello();
    const [, theirs] = pair();
    assert.ok((await client.call('setUp', { config: CONFIG }, [theirs])).result);
    assert.deepEqual((await tunnelsOf(app)).sort(), ['vpn-tun0', 'wrong0']);
    assert.ok((await client.call('destroy')).result);
    assert.deepEqual(await tunnelsOf(app), ['wrong0']);
  });

  await t.test('nothing of it stays in the service', async () => {
    opened.splice(opened.indexOf(tun), 1);
    libc.close(tun);
    await unharmed();
  });
});

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { ask, type ControlBackend, startControlServer } from '../../../src/cli/control.js';
import type { TunnelStatus } from '../../../src/cli/tunnel-status.js';

const STATUS = { name: 'office', link: 'vpn-tun0' } as TunnelStatus;

async function serve(t: TestContext, backend: Partial<ControlBackend> = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'control-'));
  const server = await startControlServer('vpn-tun0', folder, {
    status: async () => STATUS,
    begin: async () => ({}),
    down: async () => ({}),
    ...backend,
  });
  t.after(() => {
    // Not awaited: a client that is never answered keeps its place for long.
    void server.close();
    rmSync(folder, { recursive: true, force: true });
  });
  return server;
}

test('ask() gets the answer to its question', async (t) => {
  const { path } = await serve(t, { down: async () => ({ problem: 'the VPN: no' }) });
  assert.equal(path.split('/').at(-1), 'vpn-tun0.control');
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.deepEqual(await ask(path, 'status', 5000), STATUS);
  assert.deepEqual(await ask(path, 'down', 5000), { problem: 'the VPN: no' });
});

test('ask() gives up on a process that says nothing, fails, or is not there', async (t) => {
  const { path } = await serve(t, {
    status: () => new Promise((_, reject) => void setTimeout(reject, 200)),
    down: async () => {
      throw new Error('no');
    },
  });
  await assert.rejects(ask(path, 'status', 50), /no answer within 0\.05 s/);
  await assert.rejects(ask(path, 'down', 5000), /ended without an answer/);
  await assert.rejects(ask(`${path}x`, 'status', 5000), { code: 'ENOENT' });
});

test('a question is one of two lines; anything else ends the connection', async (t) => {
  let asked = 0;
  const { path } = await serve(t, {
    status: async () => {
      asked++;
      return STATUS;
    },
  });
  for (const words of ['{"ask":"keys"}\n', '{"ask": "status"}\n', 'status\n', '\n', `${'x'.repeat(300)}`]) {
    const client = connect(path).resume();
    const closed = once(client, 'close');
    client.on('error', () => {}).write(words);
    await closed;
    assert.equal(client.bytesRead, 0, words);
  }
  assert.equal(asked, 0);
});

test('who has asked for the end is answered after the socket is gone', async (t) => {
  const end = { tell: () => {} };
  const told = new Promise<void>((resolve) => {
    end.tell = resolve;
  });
  const server = await serve(t, { down: () => told.then(() => ({})) });
  const answer = ask(server.path, 'down', 5000);
  await ask(server.path, 'status', 5000);
  const closed = server.close();
  assert.equal(existsSync(server.path), false);
  end.tell();
  assert.deepEqual(await answer, {});
  await closed;
});

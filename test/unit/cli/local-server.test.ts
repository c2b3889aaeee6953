import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { isListening, listenLocal } from '../../../src/cli/local-server.js';

/** As listenLocal(), and closed with the test, however it ends. */
async function listen(t: TestContext, at: string, patienceMs: number, serve: (client: Socket) => void) {
  const server = await listenLocal(at, patienceMs, serve);
  t.after(() => void server.close());
  return server;
}

function path(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'local-server-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, 'x.sock');
}

const PATIENCE_MS = 60_000;
const nobody = (client: Socket) => void client.end();

test('listenLocal() makes a socket that only its user may use, and removes it', async (t) => {
  const at = path(t);
  const server = await listen(t, at, PATIENCE_MS, (client) => void client.end('hello'));
  assert.equal(statSync(at).mode & 0o777, 0o600);
  const client = connect(at);
  assert.equal(String((await once(client, 'data'))[0]), 'hello');
  await server.close();
  assert.equal(existsSync(at), false);
});

test('listenLocal() replaces the file of a process that died, and no other', async (t) => {
  const at = path(t);
  const script = `require('node:net').createServer().listen(${JSON.stringify(at)}, () => console.log('ready'))`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  await assert.rejects(listen(t, at, PATIENCE_MS, nobody), { code: 'EADDRINUSE' });
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.ok(existsSync(at));
  assert.equal(await isListening(at), false);
  const server = await listen(t, at, PATIENCE_MS, nobody);
  assert.equal(await isListening(at), true);
  await server.close();

  writeFileSync(at, 'precious');
  await assert.rejects(listen(t, at, PATIENCE_MS, nobody), { code: 'EADDRINUSE' });
  assert.equal(statSync(at).size, 8);
});

test('a client has so long, and no more than eight are served at once', async (t) => {
  const at = path(t);
  const served: Socket[] = [];
  const server = await listen(t, at, 200, (client) => void served.push(client));
  const clients = Array.from({ length: 12 }, () => connect(at));
  for (const client of clients) client.on('error', () => {});
  const started = performance.now();
  await Promise.all(clients.map((client) => once(client.resume(), 'close')));
  assert.ok(performance.now() - started >= 150);
  assert.equal(served.length, 8);
  await server.close();
});

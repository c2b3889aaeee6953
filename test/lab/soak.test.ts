/**
 * Many operations leave nothing: neither descriptors, nor host state, nor memory, in the service or in its clients.
 *
 *   app: vpnd ◄── four processes of users 2001..2003 and root, each a quarter of the operations: one in ten setUp and destroy
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { canonicalState, diffState } from './lib/canonical-state.js';
import type { LabHost } from './lib/host.js';
import { Lab } from './lib/lab.js';
import { requireRoot } from './lib/prerequisites.js';
import type { LabProcess } from './lib/process.js';
import { eventually } from './lib/settled-state.js';
import { descriptorKinds } from './lib/unharmed.js';
import { startVpnd, type Vpnd } from './lib/vpnd.js';

const WARM_UP = 2_000;
const OPERATIONS = Number(process.env.VPN_SOAK_OPERATIONS ?? 10_000);
const UIDS = [0, 2001, 2002, 2003];
const GROWTH_BYTES = 500_000;
const PATIENCE_MS = 600_000;

test('ten thousand operations leave nothing', { timeout: 1_500_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const lab = await Lab.create({ lifetimeSeconds: 1800 });
  t.after(() => lab.close());
  const app = await lab.host('app');
  const before = await canonicalState(app);
  const memoryFile = join(app.directory, 'memory.json');
  const preload = app.path('dist/test/lab/soak/memory.js');
  const vpnd = await startVpnd(app, {
    args: ['--log-level', 'warning'],
    env: { NODE_OPTIONS: `--expose-gc --import=${preload}`, SOAK_MEMORY_FILE: memoryFile },
  });
  const apps = UIDS.map((uid) =>
    app.spawn('/run/node', ['--expose-gc', app.path('dist/test/lab/soak/app.js')], {
      uid,
      env: { VPND_SOCKET: vpnd.socket },
    }),
  );

  await run(apps, WARM_UP);
  const first = await look(app, vpnd, apps, memoryFile);
  assert.deepEqual(diffState(before, first.state), []);
  await run(apps, OPERATIONS);
  const last = await look(app, vpnd, apps, memoryFile);

  assert.deepEqual(diffState(first.state, last.state), []);
  assert.deepEqual(last.descriptors, first.descriptors);
  assert.equal(last.memory.length, apps.length + 1);
  last.memory.forEach((after, index) => {
    const start = first.memory[index] as NodeJS.MemoryUsage;
    const name = index === 0 ? 'vpnd' : `app of uid ${UIDS[index - 1]}`;
    const growth = after.heapUsed + after.external - start.heapUsed - start.external;
    t.diagnostic(`${name}: heapUsed + external ${kilobytes(growth)}, RSS ${kilobytes(after.rss - start.rss)} more`);
    t.diagnostic(`${name}: heapUsed ${kilobytes(after.heapUsed)}, RSS ${kilobytes(after.rss)}`);
    assert.ok(growth < GROWTH_BYTES, `${name} grew by ${growth} bytes`);
  });
  // Every refusal was one that the operations provoke.
  assert.equal(vpnd.log(), '');
});

/** So many operations in all. */
async function run(apps: readonly LabProcess[], operations: number): Promise<void> {
  const marks = apps.map((app) => count(app.stdout, 'done'));
  for (const app of apps) app.write(`operations ${Math.ceil(operations / apps.length)}\n`);
  await eventually(
    () => apps.every((app, index) => !app.running || count(app.stdout, 'done') > (marks[index] ?? 0)),
    () => apps.map((app) => app.stdout + app.stderr),
    PATIENCE_MS,
  );
  for (const app of apps) assert.ok(app.running, app.stderr);
}

async function look(app: LabHost, vpnd: Vpnd, apps: readonly LabProcess[], memoryFile: string) {
  const pids = [vpnd.pid, ...apps.map((each) => each.pid)];
  const memory = [await memoryOfService(vpnd, memoryFile), ...(await Promise.all(apps.map(memoryOfApp)))];
  return { memory, descriptors: pids.map(descriptorKinds), state: await canonicalState(app) };
}

async function memoryOfService(vpnd: Vpnd, file: string): Promise<NodeJS.MemoryUsage> {
  await rm(file, { force: true });
  process.kill(vpnd.pid, 'SIGUSR2');
  let text = '';
  await eventually(
    () => {
      text = readIfThere(file);
      return text !== '';
    },
    () => vpnd.log(),
  );
  return JSON.parse(text) as NodeJS.MemoryUsage;
}

async function memoryOfApp(app: LabProcess): Promise<NodeJS.MemoryUsage> {
  const mark = count(app.stdout, 'memory');
  app.write('memory\n');
  await eventually(
    () => count(app.stdout, 'memory') > mark && app.stdout.endsWith('\n'),
    () => app.stderr,
  );
  return JSON.parse(app.stdout.trim().split('\nmemory ').at(-1) ?? '') as NodeJS.MemoryUsage;
}

function readIfThere(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

function count(text: string, word: string): number {
  return text.split('\n').filter((line) => line.split(' ')[0] === word).length;
}

function kilobytes(bytes: number): string {
  return `${Math.round(bytes / 1024)} KiB`;
}

/** Which cgroups of the machine's tree show an application: real cgroups, their numbers read with stat(1). */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { cgroupsOf, runningAppIds } from '../../src/host/app-scan.js';
import { cgroup2Root, walkCgroups } from '../../src/kernel/cgroup.js';
import { whyNoCgroup } from './lib/cgroup.js';

const SCAN = new URL('../../src/host/app-scan.js', import.meta.url).href;

interface Tree {
  path: string;
  directory: string;
}

/** A cgroup of this test with these below it, parents before children; what is left of it goes with the test. */
function tree(t: TestContext, names: readonly string[]): Tree | undefined {
  const why = whyNoCgroup();
  if (why !== undefined) return void t.skip(why);
  const path = `/vpnd-scan-${process.pid}-${names.length}`;
  const top = { path, directory: `${cgroup2Root()}${path}` };
  mkdirSync(top.directory);
  t.after(() => {
    remove(top, names);
    rmdirSync(top.directory);
  });
  for (const name of names) mkdirSync(join(top.directory, name));
  return top;
}

function remove({ directory }: Tree, names: readonly string[]): void {
  for (const name of [...names].reverse()) if (existsSync(join(directory, name))) rmdirSync(join(directory, name));
}

const NAMES = [
  'app.slice',
  'app.slice/app-gnome-org.example.Scan-1.scope',
  'app.slice/app-gnome-org.example.Scan-2.scope',
  'app.slice/app-gnome-org.example.Scan-2.scope/app-org.example.Scan-3.scope',
  'app.slice/app-gnome-org.example.Scan-2.scope/app-org.example.Inner-4.scope',
  'app.slice/app-at\\x2dscan@autostart.service',
  'org.example.Scan',
  'snap.scan-test.app-1b4e28ba-2fa1-11d2-883f-0016d3cca427.scope',
  'systemd-scan.service',
  'systemd-scan.service/plain',
];

test('cgroupsOf() finds every instance, in any depth, with the number that the kernel knows it by', async (t) => {
  const top = tree(t, NAMES);
  if (!top) return;
  const ids = ['org.example.Scan', 'org.example.Inner', 'at\\x2dscan', 'scan-test', 'systemd-scan', 'org.example.None'];
  const inTree = async () => (await cgroupsOf(ids)).filter(({ path }) => path.startsWith(`${top.path}/`));
  const mine = await inTree();
  // Not the third: it is inside the second, which shows the same id.
  const expected: [id: string, name: string][] = [
    ['org.example.Scan', NAMES[1] ?? ''],
    ['org.example.Scan', NAMES[2] ?? ''],
    ['org.example.Inner', NAMES[4] ?? ''],
    ['at\\x2dscan', NAMES[5] ?? ''],
    ['scan-test', NAMES[7] ?? ''],
    ['systemd-scan', NAMES[8] ?? ''],
  ];
  const inode = (path: string) => execFileSync('stat', ['-c', '%i', path], { encoding: 'utf8' }).trim();
  assert.deepEqual(
    new Set(mine.map(({ id, path, cgroupId }) => `${id} ${path} ${cgroupId}`)),
    new Set(expected.map(([id, name]) => `${id} ${top.path}/${name} ${inode(join(top.directory, name))}`)),
  );
  assert.equal(mine.length, expected.length);
  const running = await runningAppIds();
  for (const id of ids) assert.equal(running.has(id), id !== 'org.example.None', id);
  remove(top, NAMES);
  assert.deepEqual(await inTree(), []);
});

test('walkCgroups() meets parents before children, and leaves out who goes away meanwhile', async (t) => {
  const names = ['a', 'a/b', 'a/b/c', 'd', 'd/e'];
  const top = tree(t, names);
  if (!top) return;
  const met: string[] = [];
  for await (const { path, uid } of walkCgroups()) {
    if (!path.startsWith(`${top.path}/`)) continue;
    met.push(path.slice(top.path.length + 1));
    assert.equal(uid, 0);
    // Both are listed by now, whichever comes first.
    if (met.length === 1) remove(top, met[0] === 'a' ? ['d', 'd/e'] : ['a', 'a/b', 'a/b/c']);
  }
  assert.deepEqual(met, met[0] === 'a' ? ['a', 'a/b', 'a/b/c'] : ['d', 'd/e']);
});

test('without cgroup v2 nothing runs, and what needs it says so', (t) => {
  const why = whyNoCgroup();
  if (why !== undefined) return t.skip(why);
  const script = `
    const { cgroupsOf, runningAppIds } = await import(${JSON.stringify(SCAN)});
    const ids = await runningAppIds();
    await cgroupsOf(['a']).catch(({ code, message }) => console.log(ids.size, code, message));`;
  const command = ['sh', '-c', 'umount "$1" && exec "$2" --input-type=module -e "$3"', 'sh'];
  const words = ['--mount', ...command, cgroup2Root() ?? '', process.execPath, script];
  const printed = execFileSync('unshare', words, { encoding: 'utf8' });
  assert.match(printed, /^0 2200003 .*applications need cgroup v2, which is not mounted/);
});

/** vpnd, started by root from files of its own, and from files that somebody else could change. */
import assert from 'node:assert/strict';
import { chmodSync, chownSync, cpSync, lstatSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { requireRoot } from './lib/prerequisites.js';
import { standardLab } from './lib/standard-lab.js';

/** This file is dist/test/lab/program-files.test.js. */
const REPOSITORY = fileURLToPath(new URL('../../..', import.meta.url));
const DEPENDENCIES = ['koffi', '@koromix', '@jellybrick', '@noble', 'jsonc-parser'];
const PROGRAM = 'dist/src/service/vpnd.js';

/** A package as npm installs it. Returns its folder, in a folder of its own, in one that is everybody's but sticky. */
function installed(): string {
  const folder = join(mkdtempSync('/tmp/vpnd-program-'), 'lib', 'package');
  mkdirSync(folder, { recursive: true });
  chmodSync(dirname(dirname(folder)), 0o755);
  for (const file of ['package.json', 'dist/src'])
    cpSync(join(REPOSITORY, file), join(folder, file), { recursive: true });
  for (const name of DEPENDENCIES) {
    const path = join('node_modules', name);
    cpSync(join(REPOSITORY, path), join(folder, path), { recursive: true, dereference: true });
  }
  return folder;
}

function groupWritable(path: string): void {
  chownSync(path, 0, 2001);
  chmodSync(path, 0o664);
}

test('root is told when others could change what vpnd runs: the package, a dependency, a folder on the way', {
  timeout: 300_000,
}, async (t) => {
  if (!requireRoot(t)) return;
  const folder = installed();
  const above = dirname(folder);
  t.after(() => rmSync(dirname(above), { recursive: true }));
  const { lab, app } = await standardLab();
  t.after(() => lab.close());
  /** What vpnd says before it finds that there is no such policy. */
  const warning = async (program = join(folder, PROGRAM)) => {
    const { status, stderr } = await app.node(program, ['--policy', '/no/such/policy'], { check: false });
    assert.equal(status, 78, stderr);
    return stderr
      .split('\n')
      .find((line) => line.includes(' warning program-'))
      ?.replace(/^\S+ warning /, '');
  };

  assert.equal(await warning(), undefined, 'as npm -g installs it');

  const changes: [path: string, change: (path: string) => void, by: RegExp][] = [
    [PROGRAM, (path) => chownSync(path, 2001, 2001), /by="uid 2001, its owner"/],
    ['dist/src/kernel/ffi.js', (path) => chmodSync(path, 0o666), /by=everybody/],
    ['dist/src/host', (path) => chmodSync(path, 0o777), /by=everybody/],
    ['package.json', groupWritable, /by="group 2001"/],
    ['node_modules/koffi/index.js', (path) => chmodSync(path, 0o646), /by=everybody/],
    ['node_modules/@koromix', (path) => chownSync(path, 2001, 2001), /by="uid 2001, its owner"/],
    ['node_modules', (path) => chmodSync(path, 0o777), /by=everybody/],
    ['.', (path) => chownSync(path, 2001, 2001), /by="uid 2001, its owner"/],
    ['..', (path) => chownSync(path, 2001, 2001), /by="uid 2001, its owner"/],
  ];
  for (const [name, change, by] of changes) {
    const path = join(folder, name);
    const { mode } = lstatSync(path);
    change(path);
    const said = await warning();
    assert.match(said ?? 'nothing', /^program-changeable path=\S+ by=.* advice=".*npm pack && sudo npm i -g /, name);
    assert.match(said ?? '', by, name);
    assert.equal(/path=(\S+)/.exec(said ?? '')?.[1], path);
    chownSync(path, 0, 0);
    chmodSync(path, mode & 0o7777);
  }
  assert.equal(await warning(), undefined, 'as it was');

  await t.test('by a link in a folder of somebody else', async () => {
    const own = join(dirname(above), 'own');
    mkdirSync(own);
    chownSync(own, 2001, 2001);
    symlinkSync(join(folder, PROGRAM), join(own, 'vpnd'));
    assert.match((await warning(join(own, 'vpnd'))) ?? '', new RegExp(`path=${own} by="uid 2001`));
  });

  await t.test('who may not be root is not told', async () => {
    const { stderr } = await app.node(join(folder, PROGRAM), ['--policy', '/no/such/policy'], {
      uid: 2001,
      check: false,
    });
    assert.doesNotMatch(stderr, /program-/);
  });
});

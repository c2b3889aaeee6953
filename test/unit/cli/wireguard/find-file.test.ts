/** FILE|NAME: which file is meant, and what its VPN is called. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { findFile, folders, type Surroundings } from '../../../../src/cli/wireguard/find-file.js';
import { problemOf } from './lib/samples.js';

function machine(there: readonly string[], forbidden: readonly string[] = []): Surroundings {
  const look = (path: string) => (there.includes(path) ? 'there' : forbidden.includes(path) ? 'forbidden' : 'missing');
  return { env: {}, home: '/home/eve', look };
}

const OWN = '/home/eve/.config/vpn-manager/office.conf';
const [SITE, TOOLS] = ['/etc/vpn-manager/office.conf', '/etc/wireguard/office.conf'];

test("a name is looked up in the own folder, then the administrator's, then that of wireguard-tools", () => {
  assert.deepEqual(findFile('office', machine([OWN, SITE, TOOLS])), { path: OWN, name: 'office' });
  assert.deepEqual(findFile('office', machine([SITE, TOOLS], [OWN])), { path: SITE, name: 'office' });
  assert.deepEqual(findFile('office', machine([TOOLS])), { path: TOOLS, name: 'office' });
});

test('XDG_CONFIG_HOME counts when it is absolute', () => {
  const first = (value: string | undefined) => folders({ env: { XDG_CONFIG_HOME: value }, home: '/home/eve' })[0];
  assert.equal(first('/conf'), '/conf/vpn-manager');
  for (const ignored of [undefined, '', 'conf', './conf'])
    assert.equal(first(ignored), '/home/eve/.config/vpn-manager');
});

test('what has a "/" or ends in .conf is a path, there or not, and its VPN is called by its file', () => {
  const table: Record<string, string> = {
    'office.conf': 'office',
    './office': 'office',
    '/x y/a+b=c_d.e-f.conf': 'a+b=c_d.e-f',
    '../longer-than-a-link-may-be.conf': 'longer-than-a-link-may-be',
    'my vpn.conf': 'my vpn',
    '/home/eve/Büro Zürich (Gäste-WLAN).conf': 'Büro Zürich (Gäste-WLAN)',
    './-x.conf': '-x',
    [`./${'n'.repeat(64)}.conf`]: 'n'.repeat(64),
  };
  for (const [path, name] of Object.entries(table)) assert.deepEqual(findFile(path, machine([])), { path, name });
});

test("a path whose name cannot be a VPN's is 78", () => {
  const rule =
    'the VPN is called by its file, whose name must be 1 to 64 characters before .conf, and no control characters; rename it';
  for (const path of ['.conf', './.conf', '/', `./${'n'.repeat(65)}.conf`, '..//', './..conf/..']) {
    assert.deepEqual(
      problemOf(() => findFile(path, machine([path]))),
      { code: 78, said: `${path}: ${rule}` },
      path,
    );
  }
  const hostile = problemOf(() => findFile('./a\nb.conf', machine([])));
  assert.deepEqual(hostile, { code: 78, said: `"./a\\nb.conf": ${rule}` });
});

test('a name may have blanks, any letters, and be longer than an interface’s', () => {
  for (const name of ['Büro Zürich', 'sixteen-letters-', 'a%i', '$(id)', '-x']) {
    const path = `/etc/wireguard/${name}.conf`;
    assert.deepEqual(findFile(name, machine([path])), { path, name });
  }
});

test('a name that is none is 66, and never becomes part of a path', () => {
  for (const name of ['', '..', '.', 'a\0b', 'a\nb', 'n'.repeat(65)]) {
    const problem = problemOf(() => findFile(name, machine([])));
    assert.equal(problem?.code, 66, name);
    assert.match(problem?.said ?? '', /: is no name of a VPN; give one, or the path of a file$/);
  }
});

test('- is standard input', () => {
  assert.deepEqual(findFile('-', machine([])), { path: '-', name: 'stdin' });
});

test('when there is none, every folder is named, and which could not be searched', () => {
  assert.deepEqual(
    problemOf(() => findFile('office', machine([], [TOOLS]))),
    {
      code: 66,
      said: 'office: there is no office.conf in /home/eve/.config/vpn-manager, /etc/vpn-manager, /etc/wireguard (which you may not search)',
    },
  );
});

test('on the machine itself a file is found, and a folder in its place is found as well, to be refused when read', (t) => {
  const home = mkdtempSync(join(tmpdir(), 'find-file-'));
  const before = process.env.XDG_CONFIG_HOME;
  process.env.XDG_CONFIG_HOME = home;
  t.after(() => {
    if (before === undefined) delete process.env.XDG_CONFIG_HOME;
    else process.env.XDG_CONFIG_HOME = before;
    rmSync(home, { recursive: true });
  });
  mkdirSync(join(home, 'vpn-manager', 'folder-1.conf'), { recursive: true });
  writeFileSync(join(home, 'vpn-manager', 'file-1.conf'), '');
  for (const name of ['folder-1', 'file-1'])
    assert.equal(findFile(name).path, join(home, 'vpn-manager', `${name}.conf`));
  assert.equal(problemOf(() => findFile('nothing-1'))?.code, 66);
});

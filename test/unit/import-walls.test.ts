/**
 * The folder rule of ARCHITECTURE.md as the linter sees it: biome runs, with the repository's biome.json, over a scratch tree
 * that holds one file for every edge between two folders of src. What it lets through must be exactly the edges drawn.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../..', import.meta.url));

const allowed: Record<string, readonly string[]> = {
  model: [],
  kernel: ['model'],
  host: ['model', 'kernel'],
  ipc: ['model', 'kernel'],
  tunnel: ['model', 'kernel'],
  service: ['model', 'kernel', 'host', 'ipc'],
  vpn: ['model', 'kernel', 'ipc'],
  cli: ['model', 'ipc', 'vpn', 'tunnel'],
};
const folders = Object.keys(allowed);

const files = new Map<string, string>();
const refused = new Set<string>();

function lint(directory: string): void {
  const biome = join(root, 'node_modules/@biomejs/biome/bin/biome');
  const options = ['lint', '--only=style/noRestrictedImports', '--max-diagnostics=none', '--reporter=github', '.'];
  const { stdout, stderr } = spawnSync(process.execPath, [biome, ...options], { cwd: directory, encoding: 'utf8' });
  assert.match(stdout, /^::error /m, `biome refused nothing at all: ${stderr}`);
  for (const [, path] of stdout.matchAll(/^::error title=lint\/style\/noRestrictedImports,file=([^,]+),/gm)) {
    for (const file of files.keys()) if (path?.endsWith(`/${file}`) || path === file) refused.add(file);
  }
}

before(() => {
  for (const from of folders) {
    for (const to of folders) {
      files.set(`src/${from}/${to}-import.ts`, `import { x } from '../${to}/x.js';\nconsole.log(x);\n`);
      files.set(`src/${from}/${to}-type.ts`, `import type { X } from '../${to}/x.js';\nexport const x: X = 1;\n`);
      files.set(`src/${from}/${to}-export.ts`, `export { x } from '../${to}/x.js';\n`);
      files.set(`src/${from}/${to}-dynamic.ts`, `await import('../${to}/x.js');\n`);
      files.set(`src/${from}/deep/${to}.ts`, `import '../../${to}/deep/x.js';\n`);
    }
    files.set(`src/${from}/near.ts`, `import './x.js';\nimport './deep/x.js';\nimport 'node:net';\n`);
    files.set(`src/${from}/koffi.ts`, `import koffi from 'koffi';\nconsole.log(koffi);\n`);
    files.set(`src/${from}/self.ts`, `import 'vpn-manager/kit';\n`);
    files.set(`src/${from}/test.ts`, `import '../../test/lab/x.js';\n`);
  }
  files.set('src/kernel/ffi.ts', `import koffi from 'koffi';\nimport '../model/x.js';\nconsole.log(koffi);\n`);
  files.set('test/unit/koffi.test.ts', `import koffi from 'koffi';\nconsole.log(koffi);\n`);
  files.set('test/unit/any.test.ts', `import '../../src/host/x.js';\nimport 'vpn-manager';\n`);

  const directory = mkdtempSync(join(tmpdir(), 'import-walls-'));
  try {
    for (const [file, text] of files) {
      mkdirSync(join(directory, dirname(file)), { recursive: true });
      writeFileSync(join(directory, file), text);
    }
    for (const name of ['biome.json', '.gitignore']) copyFileSync(join(root, name), join(directory, name));
    lint(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

after(() => {
  files.clear();
  refused.clear();
});

const forms = (from: string, to: string): string[] => [
  ...['import', 'type', 'export', 'dynamic'].map((form) => `src/${from}/${to}-${form}.ts`),
  `src/${from}/deep/${to}.ts`,
];

for (const from of folders) {
  const open = [from, ...(allowed[from] ?? [])];
  const closed = folders.filter((to) => !open.includes(to));
  test(`src/${from} may import ${open.join(', ')}`, () => {
    for (const to of open) for (const file of forms(from, to)) assert.ok(!refused.has(file), file);
    assert.ok(!refused.has(`src/${from}/near.ts`));
  });
  test(`src/${from} may not import ${[...closed, 'koffi', 'tests', 'its own package'].join(', ')}`, () => {
    for (const to of closed) for (const file of forms(from, to)) assert.ok(refused.has(file), file);
    for (const file of ['koffi', 'test', 'self']) assert.ok(refused.has(`src/${from}/${file}.ts`), file);
  });
}

test('only src/kernel/ffi.ts may import koffi', () => {
  assert.ok(!refused.has('src/kernel/ffi.ts'));
  assert.ok(refused.has('test/unit/koffi.test.ts'));
});

test('tests may import every folder and the package', () => {
  assert.ok(!refused.has('test/unit/any.test.ts'));
});

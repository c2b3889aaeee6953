/** README and the other pages: their programs are whole and right in type, and what they name is there. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { test } from 'node:test';
import { codeBlocks, PAGES, programs, REPOSITORY } from './lib/pages.js';

test('every program of a page begins with its name, and compiles as it stands', () => {
  const folder = mkdtempSync(join(tmpdir(), 'vpn-documents-'));
  try {
    mkdirSync(join(folder, 'node_modules'));
    symlinkSync(REPOSITORY, join(folder, 'node_modules/vpn-manager'));
    symlinkSync(join(REPOSITORY, 'node_modules/@types'), join(folder, 'node_modules/@types'));
    const found = PAGES.flatMap((page) => programs(page));
    assert.ok(found.length >= 6, `${found.length} programs`);
    for (const { name, text } of found) writeFileSync(join(folder, name), text);
    const options =
      '--noEmit --allowJs --checkJs --strict --skipLibCheck --target es2022 --module nodenext --types node';
    const compiler = join(REPOSITORY, 'node_modules/typescript/bin/tsc');
    const words = [compiler, ...options.split(' '), ...found.map(({ name }) => name)];
    const { status, stdout } = spawnSync(process.execPath, words, { cwd: folder, encoding: 'utf8' });
    assert.equal(status, 0, stdout);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('what a page tells to run is there: npm scripts, files, words for scripts/test', () => {
  const { scripts } = JSON.parse(readFileSync(join(REPOSITORY, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
  };
  for (const page of PAGES) {
    for (const line of codeBlocks(page, 'sh').flatMap((block) => block.split('\n'))) {
      const script = /^npm run ([\w:]+)|^npm (test)\b/.exec(line);
      if (script) assert.ok(scripts[script[1] ?? script[2] ?? ''], `${page}: ${line}`);
      const file = /^(?:bash )?((?:scripts|\.ci)\/\S+)( [^\s#]\S*)?/.exec(line);
      if (file) assert.ok(existsSync(join(REPOSITORY, file[1] ?? '')), `${page}: ${line}`);
      if (file?.[1] === 'scripts/test' && file[2]) {
        const { status } = spawnSync('sh', ['-c', `find dist/test -path '*${file[2].trim()}*.test.js' | grep -q .`], {
          cwd: REPOSITORY,
        });
        assert.equal(status, 0, `${page}: no test file for ${line}`);
      }
    }
  }
});

test('no link of a page leads nowhere', () => {
  for (const page of PAGES) {
    const text = readFileSync(join(REPOSITORY, page), 'utf8');
    for (const [, target = ''] of text.matchAll(/\]\((?!https?:)([^)#\s]+)/g)) {
      assert.ok(existsSync(resolve(REPOSITORY, dirname(page), target)), `${page}: ${target}`);
    }
  }
});

test('no page installs from a registry what is not there, or runs the service from a checkout', () => {
  for (const page of PAGES) {
    const text = readFileSync(join(REPOSITORY, page), 'utf8');
    assert.doesNotMatch(text, /npm (install|i) (-g )?vpn-manager\b|npx vpnctl|sudo node |sudo \S*node_modules/, page);
  }
});

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { sampleText } from './wireguard/lib/samples.js';

/** Behind node: where the compiled saveConfig() and parseQuickFile() are, and the file to save anew. */
const SAVE = `
const [, save, parse, path] = process.argv;
const { saveConfig } = await import(save);
const { parseQuickFile } = await import(parse);
const { readFileSync } = await import('node:fs');
saveConfig(path, parseQuickFile(readFileSync(path, 'utf8'), path, { allowHooks: true }));
`;

test('saveConfig() that can write a part of the file only leaves the one that was', (t) => {
  const inside = mkdtempSync(join(tmpdir(), 'save-'));
  t.after(() => rmSync(inside, { recursive: true, force: true }));
  const path = join(inside, 'office.conf');
  const own = ['Address = 10.0.0.2/32', ...Array.from({ length: 100 }, (_, each) => `PostUp = echo ${each} of many`)];
  const text = sampleText({ own });
  writeFileSync(path, text);
  const modules = ['save-config.js', 'wireguard/quick-parse.js'].map((name) =>
    import.meta.resolve(`../../../src/cli/${name}`),
  );
  // A unit is 512 or 1024 bytes; the kernel then writes what still fits, as on a disk that becomes full.
  const words = [
    '-c',
    'ulimit -f 1; exec "$0" "$@"',
    process.execPath,
    '--input-type=module',
    '-e',
    SAVE,
    ...modules,
    path,
  ];
  const { status, stderr } = spawnSync('sh', words, { encoding: 'utf8' });
  assert.notEqual(status, 0);
  assert.match(stderr, /EFBIG/);
  assert.equal(readFileSync(path, 'utf8'), text);
  assert.deepEqual(readdirSync(inside), ['office.conf']);
});

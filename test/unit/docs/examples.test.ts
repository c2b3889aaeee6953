/** What the programs of examples/ say to somebody who starts them wrongly, or without a service: lines, and no stack. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { REPOSITORY } from './lib/pages.js';

const KEY = Buffer.alloc(32, 7).toString('base64');

/** Right words for each; `key` is a file. */
const WORDS: Record<string, (key: string) => string[]> = {
  'up.ts': () => [],
  'protect.ts': () => ['127.0.0.1', '9'],
  'tunnel-app.ts': () => ['127.0.0.1', '9', '10.0.0.5/24'],
  'wireguard-client.ts': (key) => [key, KEY, '127.0.0.1', '9', '10.0.0.5/24'],
  'wireguard-server.ts': (key) => [key, '0', '10.0.0.5/24', `${KEY},10.0.0.6/32`],
  'own-protocol-end.ts': (key) => [key, '0', '10.0.0.5/24', '10.0.0.6/32'],
};

function run(example: string, words: string[]) {
  const program = join(REPOSITORY, 'dist/examples', example.replace(/ts$/, 'js'));
  return spawnSync(process.execPath, [program, ...words], {
    env: { ...process.env, VPND_SOCKET: '/no/such/socket' },
    encoding: 'utf8',
    timeout: 30_000,
  });
}

test('every example is tried here', () => {
  const examples = readdirSync(join(REPOSITORY, 'examples'));
  // A module of own-protocol-end.ts.
  assert.deepEqual(examples.filter((name) => name !== 'own-protocol.ts').sort(), Object.keys(WORDS).sort());
});

for (const [example, words] of Object.entries(WORDS)) {
  test(`examples/${example}: without its arguments usage and 64, without a service one line and 1`, () => {
    const folder = mkdtempSync(join(tmpdir(), 'vpn-examples-'));
    try {
      const key = join(folder, 'key');
      writeFileSync(key, `${KEY}\n`, { mode: 0o600 });
      const right = words(key);
      // None, and all but the last.
      for (const given of new Set([0, right.length - 1].filter((each) => each >= 0 && each < right.length))) {
        const { status, stdout, stderr } = run(example, right.slice(0, given));
        assert.deepEqual([status, stdout], [64, ''], stderr);
        assert.match(stderr, /^usage: node dist\/examples\/[\w-]+\.js [^\n]+\n$/);
      }
      const alone = run(example, right);
      assert.equal(alone.status, 1, alone.stderr);
      assert.match(alone.stderr, /^[^\n]*Cannot connect to service[^\n]*\n$/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}

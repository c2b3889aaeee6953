/**
 * A reader that goes away, a disk that is full, an output that is closed: commands that need no service. With one:
 * test/lab/reader-gone.test.ts.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { defect } from '../../../../src/cli/terminal/output.js';

/** This file is dist/test/unit/cli/terminal/output.test.js. */
const DIST = fileURLToPath(new URL('../../../..', import.meta.url));
const VPNCTL = 'src/cli/vpnctl.js';
const VPND = 'src/service/vpnd.js';

/** With standard output to a pipe that nobody reads, to a device that is full, or closed. */
async function run(output: 'unread' | '/dev/full' | 'closed', program: string, words: readonly string[]) {
  const full = openSync('/dev/full', 'w');
  const command = [process.execPath, `${DIST}/${program}`, ...words];
  const [file = '', ...args] = output === 'closed' ? ['sh', '-c', 'exec "$@" >&-', 'sh', ...command] : command;
  const child = spawn(file, args, { stdio: ['ignore', output === '/dev/full' ? full : 'pipe', 'pipe'] });
  closeSync(full);
  // Long before node has started in the child.
  if (output === 'unread') child.stdout?.destroy();
  let stderr = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const status = await new Promise((resolve) => child.on('close', (code, signal) => resolve(code ?? signal)));
  return { status, stderr };
}

for (const [program, words] of [
  [VPNCTL, ['help']],
  [VPNCTL, ['--version']],
  [VPNCTL, ['wg', 'genkey']],
  [VPND, ['--help']],
  [VPND, ['--version']],
] as const) {
  const name = program === VPND ? 'vpnd' : 'vpnctl';
  test(`${name} ${words.join(' ')}: quiet without a reader, one line on a full disk`, async () => {
    assert.deepEqual(await run('unread', program, words), { status: 0, stderr: '' });
    assert.deepEqual(await run('closed', program, words), { status: 0, stderr: '' });
    const stderr = `${name}: standard output cannot be written: ENOSPC\n`;
    assert.deepEqual(await run('/dev/full', program, words), { status: 74, stderr });
  });
}

test('a defect is one line with its place', () => {
  assert.match(
    defect(new TypeError('x is not y\nat all')),
    /^a defect of vpnctl: TypeError: x is not y, at .*output\.test\.js:\d+:\d+\)?; please report this line$/,
  );
  assert.equal(defect('odd'), 'a defect of vpnctl: odd; please report this line');
});

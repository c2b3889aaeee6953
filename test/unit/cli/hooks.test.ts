import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { runHook } from '../../../src/cli/hooks.js';

function output(t: TestContext): { file: string; read(): string } {
  const folder = mkdtempSync(join(tmpdir(), 'hooks-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, 'out');
  return { file, read: () => readFileSync(file, 'utf8') };
}

test('runHook() runs a command in a shell, with the interface for every %i', async (t) => {
  const { file, read } = output(t);
  await runHook(`for each in %i a%ib; do echo "$each '%i' $$"; done > ${file}`, 'vpn-tun0');
  assert.match(read(), /^vpn-tun0 'vpn-tun0' \d+\navpn-tun0b 'vpn-tun0' \d+\n$/);
  // An interface's name is no pattern of a replacement.
  await runHook(`echo '%i' > ${file}`, '$&$`');
  assert.equal(read(), '$&$`\n');
});

test('runHook() gives a command nothing to read, and does not show it to ps', async (t) => {
  const { file, read } = output(t);
  await runHook(`{ cat; cat /proc/$$/cmdline /proc/$$/environ; ls /proc/$$/fd; } > ${file} # secret`, 'vpn-tun0');
  assert.doesNotMatch(read(), /secret/);
  assert.doesNotMatch(read(), /^3$/m, 'the pipe is closed');
});

test('runHook() rejects with how the command ended', async () => {
  await assert.rejects(runHook('exit 3 # secret', 'vpn-tun0'), { message: 'ended with 3' });
  await assert.rejects(runHook('kill -TERM $$', 'vpn-tun0'), { message: 'ended with 143' });
  await assert.rejects(runHook('if then # secret', 'vpn-tun0'), { message: /^ended with \d+$/ });
});

test('runHook() ends a command that is given up', async () => {
  const abort = new AbortController();
  const running = runHook('exec sleep 1000', 'vpn-tun0', abort.signal);
  setTimeout(() => abort.abort(), 50);
  await assert.rejects(running, { name: 'AbortError' });
});

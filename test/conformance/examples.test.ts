/**
 * The seven examples of the API document, cut out of it by this test and run with not one character changed, each as a file
 * of its own under `node --import vpn-manager/register`.
 *
 *   app (vpnd, the examples) ── router ── server, which is also 192.168.1.11 with a listener on 8888
 */
import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { chmod } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { canonicalState } from '../lab/lib/canonical-state.js';
import { REPOSITORY_IN_HOST } from '../lab/lib/host.js';
import { startPeer } from '../lab/lib/peers.js';
import { stateBecomes } from '../lab/lib/settled-state.js';
import { readDocument, readExamples } from './lib/document.js';
import { scene, USERS, until } from './lib/scene.js';

/** In the document's order: the example's own method and what it must print. The number of a descriptor is any but 0..2. */
const EXPECTED = [
  { method: 'functiontest', stdout: /^vpn createVpnConnection: \{\}\n$/, stderr: '' },
  { method: 'SetUp', stdout: /^tunfd: ([3-9]|\d\d+)\n$/, stderr: 'undefined\n' },
  { method: 'SetUp', stdout: /^setUp success, tunfd: ([3-9]|\d\d+)\n$/, stderr: '' },
  { method: 'Protect', stdout: /^tunenlfd: ([3-9]|\d\d+)\n$/, stderr: 'undefined\n' },
  { method: 'Protect', stdout: /^tunenlfd: ([3-9]|\d\d+)\nprotect success\.\n$/, stderr: '' },
  { method: 'Destroy', stdout: /^$/, stderr: 'undefined\n' },
  { method: 'Destroy', stdout: /^destroy success\.\n$/, stderr: '' },
];

test('the documented examples run unchanged', { timeout: 600_000 }, async (t) => {
  const stage = await scene(t, { internet: ['192.168.1.11'] });
  if (!stage) return;
  await startPeer(stage.lab.server, { kind: 'whoami', name: 'server', port: 8888 });
  const directory = mkdtempSync(join(stage.host.directory, 'examples-'));
  await chmod(directory, 0o755);
  const register = `file://${REPOSITORY_IN_HOST}/dist/src/vpn/register.js`;
  const examples = readExamples(readDocument());
  assert.equal(examples.length, EXPECTED.length);

  for (const [index, { method, stdout, stderr }] of EXPECTED.entries()) {
    const { heading, source } = examples[index] ?? assert.fail();
    const number = examples.slice(0, index + 1).filter((each) => each.heading === heading).length;
    const file = join(directory, `${index}.ets`);
    writeFileSync(file, source);
    const run = async (...methods: string[]) => {
      const options = { uid: USERS.system, env: { VPND_SOCKET: stage.vpnd.socket }, check: false };
      const result = await stage.host.node('--import', [register, file, ...methods], { ...options, timeoutMs: 60_000 });
      assert.match(result.stdout, stdout, JSON.stringify(result));
      assert.equal(result.stderr, stderr);
      assert.equal(result.status, 0);
    };
    await t.test(`example ${heading} ${number} prints what it should, and leaves nothing`, async () => {
      assert.match(source, new RegExp(`^  ${method}\\(\\)`, 'm'));
      const before = await canonicalState(stage.host);
      // All methods but build, and the one method named.
      for (const methods of [[], [method]]) {
        await run(...methods);
        // The VPN of a process that has ended goes by itself, a moment later.
        await stateBecomes(stage.host, before);
        await until('the service has no VPN', async () => (await stage.status()).length === 0);
      }
    });
  }
});

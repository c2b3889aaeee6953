/** The folders belong to the user who runs the tests or, when that is root, to a uid that nobody has. */
import assert from 'node:assert/strict';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { makeRuntimeFolder, runtimeFolders } from '../../../src/cli/runtime-folder.js';

const own = process.geteuid?.() ?? 0;
const UID = own === 0 ? 3_999_999_999 : own;
const FALLBACK = `/tmp/vpn-manager-${UID}`;

function give(path: string, mode: number): string {
  mkdirSync(path, { recursive: true });
  chmodSync(path, mode);
  if (own === 0) chownSync(path, UID, UID);
  return path;
}

/** What XDG_RUNTIME_DIR is to say. */
function session(t: TestContext, mode = 0o700): string {
  const folder = mkdtempSync(join(tmpdir(), 'runtime-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return give(folder, mode);
}

const looked = (folder: string) => runtimeFolders(UID, { XDG_RUNTIME_DIR: folder });

test('a folder in XDG_RUNTIME_DIR that is the user’s own, and closed to others, is used and found', (t) => {
  const folder = session(t);
  const inside = give(join(folder, 'vpn-manager'), 0o700);
  assert.deepEqual(looked(folder)[0], inside);
  assert.equal(makeRuntimeFolder(UID, { XDG_RUNTIME_DIR: folder }), inside);
});

test('a folder that others may enter, or that is somebody else’s, or a link, is not used', (t) => {
  for (const mode of [0o701, 0o710, 0o755, 0o777]) {
    const folder = session(t);
    give(join(folder, 'vpn-manager'), mode);
    assert.ok(!looked(folder).includes(join(folder, 'vpn-manager')), mode.toString(8));
  }
  const open = session(t, 0o777);
  give(join(open, 'vpn-manager'), 0o700);
  assert.ok(!looked(open).includes(join(open, 'vpn-manager')), 'XDG_RUNTIME_DIR itself is open');

  const folder = session(t);
  symlinkSync(give(join(folder, 'elsewhere'), 0o700), join(folder, 'vpn-manager'));
  assert.ok(!looked(folder).includes(join(folder, 'vpn-manager')), 'a symbolic link');

  // Of the user 1 more than this one.
  const others = session(t);
  give(join(others, 'vpn-manager'), 0o700);
  assert.deepEqual(runtimeFolders(UID + 1, { XDG_RUNTIME_DIR: others }), []);
});

test('a relative XDG_RUNTIME_DIR and one that is too long for a socket count as none', (t) => {
  assert.deepEqual(looked('run'), []);
  const long = give(join(session(t), 'x'.repeat(70)), 0o700);
  give(join(long, 'vpn-manager'), 0o700);
  assert.deepEqual(looked(long), []);
});

test('without any folder the error names those that were tried', (t) => {
  rmSync(FALLBACK, { recursive: true, force: true });
  t.after(() => rmSync(FALLBACK, { recursive: true, force: true }));
  mkdirSync(FALLBACK);
  chmodSync(FALLBACK, 0o755);
  assert.throws(() => makeRuntimeFolder(UID, {}), { message: new RegExp(`${FALLBACK}: not uid ${UID}'s own`) });
});

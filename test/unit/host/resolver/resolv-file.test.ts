/** The original of resolv.conf: kept, never lost, back byte for byte, in both ways in which the file is changed. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { MountedResolvFile } from '../../../../src/host/resolver/mounted-resolv-file.js';
import { fileText } from '../../../../src/host/resolver/resolv-conf.js';
import { type KeptFile, ResolvFile } from '../../../../src/host/resolver/resolv-file.js';
import { REQUEST } from './lib/requests.js';

const CRASHING = fileURLToPath(new URL('./lib/crashing.js', import.meta.url));
const TEXT = fileText(REQUEST, '');
const OTHER_TEXT = fileText({ ...REQUEST, servers: ['10.9.0.99'] }, '');
const ORIGINALS = {
  usual: 'nameserver 192.0.2.53\nsearch lan.example\n',
  empty: '',
  'shorter than our first line': '#\n',
  'longer than a page': `${'# \xfc\xff\x00 filling\n'.repeat(800)}nameserver 192.0.2.53\n`,
};
const KINDS = ['file', 'mounted'] as const;
type Kind = (typeof KINDS)[number];

interface Place {
  path: string;
  stateDir: string;
  open(): KeptFile;
  /** Of the file as bytes, one character each. */
  read(): string;
  /** Everything beside resolv.conf. */
  others(): string[];
}

function place(t: TestContext, kind: Kind, original?: string): Place {
  const folder = mkdtempSync(join(tmpdir(), 'resolv-file-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const stateDir = join(folder, 'state');
  const etc = join(folder, 'etc');
  for (const each of [stateDir, etc]) mkdirSync(each);
  const path = join(etc, 'resolv.conf');
  if (original !== undefined) writeFileSync(path, original, 'latin1');
  return {
    path,
    stateDir,
    open: () => (kind === 'file' ? new ResolvFile(path) : new MountedResolvFile(path, stateDir)),
    read: () => readFileSync(path, 'latin1'),
    others: () => [...readdirSync(etc).filter((name) => name !== 'resolv.conf'), ...readdirSync(stateDir)],
  };
}

/** One process for all places, as starting one costs more than all it does. Returns whether it died in any of them. */
function crash(kind: Kind, action: 'write' | 'put-back', places: readonly Place[], step: number): boolean {
  const paths = places.flatMap(({ path, stateDir }) => [path, stateDir]);
  const { status, signal, stdout } = spawnSync(process.execPath, [CRASHING, kind, action, String(step), ...paths], {
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
  });
  assert.ok(signal === 'SIGKILL' || status === 0, `${status} ${signal}`);
  assert.equal(signal === 'SIGKILL', Number(stdout) > 0, stdout);
  if (step === 0) assert.equal(Number(stdout), places.length);
  return signal === 'SIGKILL';
}

/** A file that is renamed is never looked into. */
const CRASHED = { file: [ORIGINALS.usual], mounted: Object.values(ORIGINALS) };

for (const kind of KINDS) {
  test(`${kind}: written, written again, put back as the same inode with the same bytes, and nothing left beside it`, async (t) => {
    for (const original of Object.values(ORIGINALS)) {
      const { open, path, read, others } = place(t, kind, original);
      chmodSync(path, 0o640);
      const { ino, mode, mtimeMs } = statSync(path);
      assert.equal(await open().write(TEXT), true);
      assert.equal(read(), TEXT);
      assert.equal(statSync(path).mode, mode);
      assert.equal(await open().write(TEXT), false);
      assert.equal(await open().write(OTHER_TEXT), true);
      assert.equal(read(), OTHER_TEXT);
      assert.equal(readFileSync(await open().originalPath(), 'latin1'), original);
      assert.equal(await open().putBack(), true);
      assert.equal(read(), original);
      assert.deepEqual([statSync(path).ino, statSync(path).mode], [ino, mode]);
      if (kind === 'file') assert.equal(statSync(path).mtimeMs, mtimeMs);
      assert.deepEqual(others(), []);
      assert.equal(await open().putBack(), false);
      assert.equal(read(), original);
    }
  });

  test(`${kind}: what somebody else wrote meanwhile stays, and is what comes back after another write`, async (t) => {
    const { open, path, read, others } = place(t, kind, ORIGINALS.usual);
    await open().write(TEXT);
    writeFileSync(path, 'nameserver 192.0.2.77\n');
    assert.equal(await open().originalPath(), path);
    assert.equal(await open().putBack(), true);
    assert.equal(read(), 'nameserver 192.0.2.77\n');
    assert.deepEqual(others(), []);

    await open().write(TEXT);
    writeFileSync(path, 'nameserver 192.0.2.78\n');
    await open().write(TEXT);
    assert.equal(read(), TEXT);
    await open().putBack();
    assert.equal(read(), 'nameserver 192.0.2.78\n');
  });

  test(`${kind}: killed at any step of writing, the original comes back, with and without another write before`, {
    timeout: 120_000,
  }, async (t) => {
    for (let step = 0, died = true; died; step++) {
      const pairs = CRASHED[kind].map((original) => ({
        original,
        first: place(t, kind, original),
        second: place(t, kind, original),
      }));
      const places = pairs.flatMap(({ first, second }) => [first, second]);
      died = crash(kind, 'write', places, step);
      for (const { original, first, second } of pairs) {
        const at = `${original.length} bytes, step ${step}`;
        await first.open().putBack();
        assert.equal(first.read(), original, at);
        assert.deepEqual(first.others(), [], at);
        await second.open().write(OTHER_TEXT);
        assert.equal(second.read(), OTHER_TEXT, at);
        await second.open().putBack();
        assert.equal(second.read(), original, at);
        assert.deepEqual(second.others(), [], at);
      }
    }
  });

  test(`${kind}: killed at any step of putting back, the original comes back`, { timeout: 120_000 }, async (t) => {
    for (let step = 0, died = true; died; step++) {
      const places = CRASHED[kind].map((original) => place(t, kind, original));
      for (const each of places) await each.open().write(TEXT);
      died = crash(kind, 'put-back', places, step);
      for (const [index, { open, read, others }] of places.entries()) {
        const original = CRASHED[kind][index] ?? '';
        const at = `${original.length} bytes, step ${step}`;
        await open().putBack();
        assert.equal(read(), original, at);
        assert.deepEqual(others(), [], at);
      }
    }
  });
}

test('file: at every step there is a whole file, the original or ours', { timeout: 60_000 }, async (t) => {
  for (let step = 0, died = true; died; step++) {
    const here = place(t, 'file', ORIGINALS.usual);
    died = crash('file', 'write', [here], step);
    assert.ok([ORIGINALS.usual, TEXT].includes(here.read()), here.read());
  }
});

test('file: a symbolic link comes back as that link, and what it leads to is not touched', async (t) => {
  const { open, path, read, others } = place(t, 'file');
  const target = join(path, '..', 'managed.conf');
  writeFileSync(target, ORIGINALS.usual, { mode: 0o600 });
  symlinkSync('managed.conf', path);
  await open().write(TEXT);
  assert.ok(lstatSync(path).isFile());
  assert.equal(statSync(path).mode & 0o777, 0o644);
  assert.equal(readFileSync(target, 'latin1'), ORIGINALS.usual);
  assert.equal(readlinkSync(await open().originalPath()), 'managed.conf');
  await open().putBack();
  assert.equal(readlinkSync(path), 'managed.conf');
  assert.equal(read(), ORIGINALS.usual);
  assert.deepEqual(others(), ['managed.conf']);
});

test('file: a dangling link comes back as well', async (t) => {
  const { open, path } = place(t, 'file');
  symlinkSync('../nowhere/stub-resolv.conf', path);
  await open().write(TEXT);
  await open().putBack();
  assert.equal(readlinkSync(path), '../nowhere/stub-resolv.conf');
});

test('file: where there was none there is none afterwards', async (t) => {
  const { open, path, read, others } = place(t, 'file');
  await open().write(TEXT);
  assert.equal(read(), TEXT);
  await open().putBack();
  assert.ok(!existsSync(path));
  assert.deepEqual(others(), []);
});

test('file: the original comes back when somebody removed ours; one who replaces it by rename keeps his', async (t) => {
  const { open, path, read, others } = place(t, 'file', ORIGINALS.usual);
  await open().write(TEXT);
  rmSync(path);
  await open().putBack();
  assert.equal(read(), ORIGINALS.usual);

  await open().write(TEXT);
  writeFileSync(`${path}.theirs`, 'nameserver 192.0.2.79\n');
  renameSync(`${path}.theirs`, path);
  await open().putBack();
  assert.equal(read(), 'nameserver 192.0.2.79\n');
  assert.deepEqual(others(), []);
});

test('mounted: the bytes are kept beside the file, or in the state directory where its folder takes none', async (t) => {
  const { open, path, stateDir, read } = place(t, 'mounted', ORIGINALS.usual);
  const kept = `resolv.conf.before-vpnd-${statSync(path).ino}`;
  await open().write(TEXT);
  assert.equal(readFileSync(join(path, '..', kept), 'latin1'), ORIGINALS.usual);
  await open().putBack();

  // A user without rights; root has them everywhere, so there the folder is made a read-only mount by the lab test.
  if (process.getuid?.() !== 0) {
    chmodSync(join(path, '..'), 0o555);
    t.after(() => chmodSync(join(path, '..'), 0o755));
    await open().write(TEXT);
    assert.equal(readFileSync(join(stateDir, kept), 'latin1'), ORIGINALS.usual);
    await open().putBack();
  }
  assert.equal(read(), ORIGINALS.usual);
});

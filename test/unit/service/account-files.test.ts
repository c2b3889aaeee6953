/** What is read of /etc/passwd for sentences, and when a file counts as another one. */
import assert from 'node:assert/strict';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { FileStamp, LocalUsers } from '../../../src/service/account-files.js';

test('names are those of the file as it is, and only such as a shell takes as they are', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'accounts-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'passwd');
  const users = new LocalUsers(path);
  assert.equal(users.nameOf(1000), undefined, 'no file');
  writeFileSync(
    path,
    'root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:\nalso:x:1000:1000::/:\nb;rm -rf:x:1001:1::/:\n+::::::\n',
  );
  assert.equal(users.nameOf(0), 'root');
  assert.equal(users.nameOf(1000), 'ann');
  assert.equal(users.nameOf(1001), undefined);
  writeFileSync(`${path}+`, 'eve:x:1001:1001::/:/bin/sh\n');
  renameSync(`${path}+`, path);
  assert.deepEqual([users.nameOf(1000), users.nameOf(1001)], [undefined, 'eve']);
});

test('a file has changed at the first look, when it is written or replaced, and when it comes or goes', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'accounts-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'group');
  const stamp = new FileStamp(path);
  const changes: (() => void)[] = [
    () => {},
    () => writeFileSync(path, 'vpn:x:500:\n'),
    () => writeFileSync(path, 'vpn:x:501:ann\n'),
    () => {
      writeFileSync(`${path}+`, 'vpn:x:501:ann\n');
      renameSync(`${path}+`, path);
    },
    () => rmSync(path),
    () => stamp.forget(),
  ];
  for (const [index, change] of changes.entries()) {
    change();
    assert.equal(stamp.hasChanged(), true, String(index));
    assert.equal(stamp.hasChanged(), false, String(index));
  }
});

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import {
  cgroup2MountPoints,
  cgroupOf,
  isCgroupPath,
  resolveCgroup,
  systemdSystemUnits,
  v2PathIn,
} from '../../../src/kernel/cgroup.js';

const line = (root: string, point: string, type: string) =>
  `36 35 0:31 ${root} ${point} rw,relatime shared:9 - ${type} x rw\n`;

test('cgroup2MountPoints() finds cgroup2 mounts of the whole tree, with and without optional fields', () => {
  const mountinfo =
    line('/', '/sys/fs/cgroup', 'tmpfs') +
    line('/', '/sys/fs/cgroup/cpu', 'cgroup') +
    line('/', '/sys/fs/cgroup/unified', 'cgroup2') +
    line('/docker/a', '/part', 'cgroup2') +
    '40 35 0:31 / /a\\040b rw - cgroup2 cgroup2 rw\n';
  assert.deepEqual(cgroup2MountPoints(mountinfo), ['/sys/fs/cgroup/unified', '/a b']);
});

test('v2PathIn() takes the 0:: line only', () => {
  assert.equal(v2PathIn('9:name=systemd:/x\n1:cpu:/0::/fake\n0::/system.slice/a.service\n'), '/system.slice/a.service');
  assert.equal(v2PathIn('1:cpu:/\n'), undefined);
});

test('cgroupOf() is undefined for a process that does not exist', () => {
  assert.equal(cgroupOf(0x7fffffff), undefined);
});

const units: [path: string, expected: string[]][] = [
  ['/system.slice/vpn-agent.service', ['system.slice', 'vpn-agent.service']],
  ['/system.slice/system-getty.slice/getty@tty1.service', ['system.slice', 'system-getty.slice', 'getty@tty1.service']],
  ['/init.scope', ['init.scope']],
  ['/user.slice/user-1000.slice/session-3.scope', ['user.slice', 'user-1000.slice', 'session-3.scope']],
  ['/system.slice/_memory.service', ['system.slice', 'memory.service']],
  // A delegated subtree: its content has whatever names its owner likes.
  ['/system.slice/podman.service/system.slice/vpn.service', ['system.slice', 'podman.service']],
  ['/user.slice/user-1.slice/session-3.scope/vpn.service', ['user.slice', 'user-1.slice', 'session-3.scope']],
  [
    '/user.slice/user-1000.slice/user@1000.service/system.slice/vpn.service',
    ['user.slice', 'user-1000.slice', 'user@1000.service'],
  ],
  // Not made by PID 1.
  ['/docker/abc/system.slice/vpn.service', []],
  ['/../system.slice/vpn.service', []],
  ['/system.slice/../vpn.service', []],
  ['/system.slice/vpn.service (deleted)', ['system.slice']],
  ['/a.slice/b.slice/vpn.service', ['a.slice']],
  ['/a-b.slice/vpn.service', []],
  ['/a.slice/a-.slice/vpn.service', ['a.slice']],
  ['/system.slice/.service', ['system.slice']],
  ['/', []],
  ['', []],
  ['system.slice/vpn.service', []],
];
for (const [path, expected] of units) {
  test(`systemdSystemUnits() of ${JSON.stringify(path)} is [${expected.join(', ')}]`, () => {
    assert.deepEqual(systemdSystemUnits(path), expected);
  });
}

test('isCgroupPath() accepts absolute normalised paths only', () => {
  for (const path of ['/', '/a', '/a b/ü.slice', '/..a']) assert.equal(isCgroupPath(path), true, path);
  for (const path of ['', 'a', './a', '//', '/a/', '/a//b', '/.', '/a/..', '/a/../b', '/a\nb', '/a\0', '/\x7f']) {
    assert.equal(isCgroupPath(path), false, JSON.stringify(path));
  }
  assert.equal(isCgroupPath(`/${'a'.repeat(4096)}`), false);
});

test('resolveCgroup() refuses what is no path, does not exist or is no cgroup, and says which', (t) => {
  const root = mkdtempSync(join(tmpdir(), 'cgroup-'));
  t.after(() => rmSync(root, { recursive: true }));
  mkdirSync(join(root, 'plain'));
  assert.throws(() => resolveCgroup('/../etc', root), { name: 'KernelError', errnoName: 'EINVAL' });
  assert.throws(() => resolveCgroup('/none', root), { name: 'KernelError', errnoName: 'ENOENT' });
  assert.throws(() => resolveCgroup('/plain', root), { name: 'KernelError', errnoName: 'EXDEV' });
  assert.throws(() => resolveCgroup('/a', undefined as unknown as string), { name: 'KernelError' });
});

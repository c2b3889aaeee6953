/** Errors that mean "not there", and those that do not: by their names, and in a process that has no descriptor left. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { attempt, isAbsent, isShortage, unlessAbsent } from '../../../src/kernel/absence.js';
import { isWithoutBpf } from '../../../src/kernel/bpf-problem.js';
import { KernelError } from '../../../src/model/errors.js';

const ofNode = (code: string) => Object.assign(new Error(`${code}: open '/x/ENOENT'`), { code });
const ofKernel = (name: string, call = 'open') => new KernelError(call, '/x/ENOENT', name);

test('only ENOENT, ENODEV and ENOTDIR mean that nothing is there, and what the caller adds', () => {
  for (const error of [ofNode, ofKernel]) {
    for (const name of ['ENOENT', 'ENODEV', 'ENOTDIR']) assert.equal(isAbsent(error(name)), true, name);
    for (const name of ['EMFILE', 'ENFILE', 'ENOMEM', 'EACCES', 'EPERM', 'EIO', 'ELOOP', 'ESRCH', 'is not mounted']) {
      assert.equal(isAbsent(error(name)), false, name);
      assert.equal(isAbsent(error(name), [name]), true, name);
    }
  }
  for (const other of [new Error('ENOENT'), 'ENOENT', undefined, null]) assert.equal(isAbsent(other), false);
});

test('what is short passes, what is refused stays', () => {
  for (const name of ['EMFILE', 'ENFILE', 'ENOMEM', 'EINTR', 'EIO']) assert.equal(isShortage(ofNode(name)), true, name);
  for (const name of ['EPERM', 'EINVAL', 'ENOENT']) assert.equal(isShortage(ofKernel(name)), false, name);
  assert.equal(isShortage(undefined), false);
});

test('unlessAbsent() returns what is found, undefined for what is not there, and throws the rest as KernelError', () => {
  const failing = (error: unknown) => () => {
    throw error;
  };
  assert.equal(
    unlessAbsent('open', '/x', () => 7),
    7,
  );
  assert.equal(unlessAbsent('open', '/x', failing(ofNode('ENOENT'))), undefined);
  assert.equal(unlessAbsent('open', '/x', failing(ofNode('ESRCH')), ['ESRCH']), undefined);
  const expected = { name: 'KernelError', call: 'open', errnoName: 'EMFILE', message: 'open /x: EMFILE' };
  assert.throws(() => unlessAbsent('open', '/x', failing(ofNode('EMFILE'))), expected);
  assert.throws(() => attempt('open', '/x', failing(ofNode('ENOENT'))), { name: 'KernelError', errnoName: 'ENOENT' });
  const own = ofKernel('EXDEV');
  assert.throws(() => attempt('open', '/x', failing(own)), own);
});

test('without the right to use BPF, or BPF on cgroups, none of ours is attached; a name in the text says nothing', () => {
  for (const name of ['EPERM', 'EACCES', 'ENOSYS', 'EINVAL']) {
    assert.equal(isWithoutBpf(ofKernel(name, 'BPF_PROG_QUERY')), true, name);
  }
  assert.equal(isWithoutBpf(ofKernel('ENOSYS', 'bpf')), true);
  assert.equal(isWithoutBpf(ofKernel('EINVAL', 'BPF_PROG_DETACH')), false);
  assert.equal(isWithoutBpf(ofKernel('ENOMEM', 'BPF_PROG_QUERY')), false);
  assert.equal(isWithoutBpf(ofKernel('EACCES', 'open')), false);
  assert.equal(isWithoutBpf(new KernelError('BPF_PROG_QUERY', '/sys/fs/cgroup/EPERM.service', 'ENOMEM')), false);
  assert.equal(isWithoutBpf(new Error('EPERM')), false);
});

/** What the expression, or the promise that it is, comes to in a process without a descriptor left. */
function withoutDescriptors(expression: string): string {
  const module = (path: string) => JSON.stringify(new URL(`../../../src/${path}.js`, import.meta.url).href);
  const code = `
    import { openSync } from 'node:fs';
    const [{ cgroup2Root, cgroupExists, cgroupOf, walkCgroups }, { nss }, { ifindexOf }, { openPidfd }, { Sysctls }, { SysctlRecord }] =
      await Promise.all([${['kernel/cgroup', 'kernel/ffi', 'kernel/ifindex', 'kernel/peer', 'host/sysctl', 'host/sysctl-record'].map((path) => `import(${module(path)})`).join()}]);
    const paths = async (root) => { const all = []; for await (const { path } of walkCgroups(root)) all.push(path); return all; };
    const sysctls = (conf) => new Sysctls(new SysctlRecord(conf, 1n, 'boot'), () => {}, conf).update([{ ifindex: 2, name: 'eth0' }], true);
    const look = async () => ${expression};
    console.log('before: ' + JSON.stringify(await look()) );
    const open = [];
    try { for (;;) open.push(openSync('/dev/null')); } catch {}
    console.log(await look().then(JSON.stringify, (error) => error.name + ' ' + error.errnoName));`;
  const command = ['-c', 'ulimit -n 64 && exec "$0" --input-type=module --eval "$1"', process.execPath, code];
  const { stdout, stderr } = spawnSync('sh', command, { encoding: 'utf8' });
  const [before, after] = stdout.trimEnd().split('\n');
  assert.match(before ?? '', /^before: /, stderr);
  return after ?? stderr;
}

test('without a descriptor nothing is taken for absent: not the mount, a process, cgroups, users, links or sysctls', (t) => {
  const root = mkdtempSync(join(tmpdir(), 'absence-'));
  t.after(() => rmSync(root, { recursive: true }));
  for (const link of ['all', 'eth0']) {
    mkdirSync(join(root, link));
    writeFileSync(join(root, link, 'rp_filter'), '0\n');
    writeFileSync(join(root, link, 'src_valid_mark'), '0\n');
  }
  const directory = JSON.stringify(root);
  for (const expression of [
    'cgroup2Root()',
    'cgroupOf(process.pid)',
    `cgroupExists('/none')`,
    `paths(${directory})`,
    `nss.userByName('root')?.pw_uid`,
    `nss.userByName('no-such-user')`,
    `nss.groupByName('no-such-group')`,
    `ifindexOf('lo')`,
    'openPidfd(process.pid, process.getuid())',
    `sysctls(${directory})`,
    `new SysctlRecord(${directory}, 1n, 'boot').read()`,
  ]) {
    assert.equal(withoutDescriptors(expression), 'KernelError EMFILE', expression);
  }
});

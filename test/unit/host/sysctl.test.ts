/** Sysctls in a folder that looks like /proc/sys/net/ipv4/conf. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { assignment, Sysctls } from '../../../src/host/sysctl.js';
import { SysctlRecord } from '../../../src/host/sysctl-record.js';

const ETH0 = { ifindex: 2, name: 'eth0' };
const ETH1 = { ifindex: 3, name: 'eth1' };

function rig(t: TestContext, initial: Record<string, [rpFilter: string, srcValidMark: string]>) {
  const directory = mkdtempSync(join(tmpdir(), 'sysctl-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const conf = join(directory, 'conf');
  const path = (link: string) => join(conf, link, 'src_valid_mark');
  for (const [link, [rpFilter, srcValidMark]] of Object.entries({ all: ['0', '0'], ...initial })) {
    mkdirSync(join(conf, link), { recursive: true });
    writeFileSync(join(conf, link, 'rp_filter'), `${rpFilter}\n`);
    writeFileSync(path(link), `${srcValidMark}\n`);
  }
  const changed: string[] = [];
  const start = (boot = 'boot'): Sysctls => {
    const sysctls = new Sysctls(new SysctlRecord(directory, 1n, boot), (what) => changed.push(what), conf);
    t.after(() => sysctls.close());
    return sysctls;
  };
  const file = join(directory, 'sysctls-netns1.json');
  return {
    conf,
    file,
    changed,
    start,
    value: (link: string) => readFileSync(path(link), 'utf8').trim(),
    write: (link: string, value: string) => writeFileSync(path(link), `${value}\n`),
  };
}

test('only links whose reverse path filter is on are raised, and all are given back', (t) => {
  const { start, value, file } = rig(t, { eth0: ['1', '0'], eth1: ['0', '0'], eth2: ['2', '0'], eth3: ['1', '1'] });
  const links = [ETH0, ETH1, { ifindex: 4, name: 'eth2' }, { ifindex: 5, name: 'eth3' }];
  const sysctls = start();
  assert.equal(sysctls.update(links, false), false);
  assert.equal(existsSync(file), false);
  assert.equal(sysctls.update(links, true), true);
  assert.deepEqual(['eth0', 'eth1', 'eth2', 'eth3'].map(value), ['1', '0', '1', '1']);
  assert.equal(sysctls.update(links, true), false, 'nothing is left to raise');
  sysctls.update(links, false);
  assert.deepEqual(['eth0', 'eth1', 'eth2', 'eth3'].map(value), ['0', '0', '0', '1'], 'what was on stays on');
  assert.equal(existsSync(file), false);
});

test("with the filter of 'all' every link is raised, and with its src_valid_mark none", (t) => {
  const { start, value, write } = rig(t, { all: ['1', '0'], eth0: ['0', '0'], eth1: ['0', '0'] });
  const sysctls = start();
  sysctls.update([ETH0, ETH1], true);
  assert.deepEqual(['eth0', 'eth1', 'all'].map(value), ['1', '1', '0']);
  write('all', '1');
  sysctls.update([ETH0, ETH1], true);
  assert.deepEqual(['eth0', 'eth1', 'all'].map(value), ['0', '0', '1']);
});

test('it follows the filter and the links: what is no longer needed is given back, what is renamed stays raised', (t) => {
  const { start, value, conf, write } = rig(t, { eth0: ['1', '0'], eth1: ['1', '0'] });
  const sysctls = start();
  sysctls.update([ETH0, ETH1], true);
  writeFileSync(join(conf, 'eth1', 'rp_filter'), '0\n');
  sysctls.update([ETH0, ETH1], true);
  assert.deepEqual(['eth0', 'eth1'].map(value), ['1', '0']);
  // A rename moves the values.
  mkdirSync(join(conf, 'lan0'));
  writeFileSync(join(conf, 'lan0', 'rp_filter'), '1\n');
  write('lan0', '1');
  rmSync(join(conf, 'eth0'), { recursive: true });
  sysctls.update([{ ifindex: 2, name: 'lan0' }, ETH1], true);
  assert.equal(value('lan0'), '1');
  sysctls.update([{ ifindex: 2, name: 'lan0' }, ETH1], false);
  assert.equal(value('lan0'), '0');
  sysctls.update([], true);
});

test('a value that somebody else wrote is not given back, one that was lowered is told and raised again', async (t) => {
  const { start, value, write, changed } = rig(t, { eth0: ['1', '0'], eth1: ['1', '0'] });
  const sysctls = start();
  sysctls.update([ETH0, ETH1], true);
  write('eth0', '0');
  for (let tries = 0; tries < 500 && changed.length === 0; tries++) await new Promise((r) => setTimeout(r, 10));
  assert.match(changed[0] ?? '', /src_valid_mark of link "eth0"/);
  assert.equal(sysctls.update([ETH0, ETH1], true), true);
  assert.equal(value('eth0'), '1');
  write('eth1', '2');
  sysctls.update([ETH0, ETH1], false);
  assert.deepEqual(['eth0', 'eth1'].map(value), ['0', '2']);
});

test('a successor gives back what a dead service raised, and only that', (t) => {
  const { start, value, file } = rig(t, { eth0: ['1', '0'], eth1: ['1', '1'], eth2: ['1', '0'] });
  const eth2 = { ifindex: 4, name: 'eth2' };
  start().update([ETH0, ETH1, eth2], true);
  assert.equal(start().sweep([ETH0, ETH1]), 1);
  assert.deepEqual(['eth0', 'eth1', 'eth2'].map(value), ['0', '1', '1'], 'eth2 is not listed: its index is gone');
  assert.equal(existsSync(file), false);
  assert.equal(start().sweep([ETH0, ETH1, eth2]), 0);
});

test('the note stands before anything is raised', (t) => {
  const { start, value, file } = rig(t, { eth0: ['1', '0'] });
  mkdirSync(join(file, 'in the way'), { recursive: true });
  assert.throws(() => start().update([ETH0], true));
  assert.equal(value('eth0'), '0');
});

test('after another boot, or with content that the service did not write, nothing is given back', (t) => {
  const { start, value, write, file } = rig(t, { eth0: ['1', '0'], all: ['0', '1'] });
  const links = [ETH0, { ifindex: 9, name: 'all' }];
  write('all', '0');
  start().update([ETH0], true);
  assert.equal(start('another').sweep(links), 0);
  assert.equal(value('eth0'), '1');
  write('all', '1');
  const hostile = [
    '',
    '{',
    'null',
    '[]',
    '"boot"',
    '{"boot":"boot"}',
    '{"boot":"boot","srcValidMark":2}',
    '{"boot":"boot","srcValidMark":["2"]}',
    '{"boot":"boot","srcValidMark":[2,"../../../../kernel/panic"]}',
    '{"boot":"boot","srcValidMark":[2,-1]}',
    '{"boot":"boot","srcValidMark":[2,1.5]}',
    '{"boot":"boot","srcValidMark":[2,99999999999]}',
    '{"boot":["boot"],"srcValidMark":[2]}',
    `{"boot":"boot","srcValidMark":[2${',2'.repeat(200_000)}]}`,
  ];
  for (const content of hostile) {
    rmSync(file, { force: true });
    writeFileSync(file, content);
    assert.equal(start().sweep(links), 0, content.slice(0, 80));
    assert.equal(value('eth0'), '1', content.slice(0, 80));
  }
  writeFileSync(file, '{"boot":"boot","srcValidMark":[9]}');
  assert.equal(start().sweep(links), 0, 'a link may be called "all"');
  assert.equal(value('all'), '1');
});

test('a name that is no single component of a path is passed over', (t) => {
  const { start, value, conf } = rig(t, { eth0: ['1', '0'], default: ['1', '0'] });
  symlinkSync(join(conf, 'eth0'), join(conf, 'x'));
  const names = ['..', '.', 'all', 'default', '../conf/eth0', 'eth0/../x', '', 'a\0b', 'longer-than-names-are'];
  assert.equal(
    start().update(
      names.map((name, index) => ({ ifindex: index + 1, name })),
      true,
    ),
    false,
  );
  assert.deepEqual(['eth0', 'default'].map(value), ['0', '0']);
});

test('a sysctl is named as sysctl(8) takes it, of a VLAN too', () => {
  assert.equal(assignment({ name: 'eth0' }), 'net.ipv4.conf.eth0.src_valid_mark=1');
  assert.equal(assignment({ name: 'eth0.10' }), 'net.ipv4.conf.eth0/10.src_valid_mark=1');
});

/**
 * What cannot be looked at is not taken for what is not there. While cgroups, users and links are looked up, the kernel has no
 * descriptor left for the service (RLIMIT_NOFILE of the running process), or refuses one directory of the cgroup tree (strace
 * makes its openat(2) fail). A setUp then fails with 2200003 and leaves the host as it was, or has really ended what the listed
 * application had open before.
 *
 *   cgroup2 root ── vpnd-lab-PID ── app-org.lab.Errors-17.scope ── inner ── "inside", of uid 2001
 */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { appMatchingProblem } from '../../src/host/app-marks.js';
import { removeCgroup } from '../../src/kernel/cgroup.js';
import type { VpnConfig } from '../../src/model/vpn-types.js';
import { canonicalState } from './lib/canonical-state.js';
import { makeCgroup, whyNoCgroup } from './lib/cgroup.js';
import { execute, start } from './lib/process.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { AppError, type VpnApp, vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf, settledState, type VpnLab, vpnLab } from './lib/vpn-lab.js';

const skip = whyNoCgroup() ?? appMatchingProblem() ?? false;
const STRACE = ['/usr/bin/strace', '/bin/strace'].find((path) => existsSync(path));
const ID = 'org.lab.Errors';
const USER = 'vpn-lab-user';
const SCOPE = `app-${ID}-17.scope`;
/** Any number of descriptors that a setUp never has open at once. */
const PLENTY = 12;

interface Scene extends VpnLab {
  /** What is above the application, as a path and as a directory. */
  path: string;
  directory: string;
  /** Its process is in a cgroup below the application's. */
  inside: VpnApp;
  owner: VpnApp;
  config(lists: Pick<VpnConfig, 'trustedApplications'>): VpnConfig;
}

async function scene(t: TestContext): Promise<Scene | undefined> {
  const lab = await vpnLab(t);
  if (!lab) return undefined;
  const below: string[] = [];
  // Between the lab's hook, which ends the processes, and that of the cgroup above. Each leaves its cgroup a moment later.
  t.after(async () => {
    for (const each of below.reverse()) await eventually(each, async () => removeCgroup(each) || undefined);
  });
  const { path, directory } = makeCgroup(t);
  for (const each of [`${directory}/${SCOPE}`, `${directory}/${SCOPE}/inner`]) {
    mkdirSync(each);
    below.push(each);
  }
  await lab.app.run('sh', ['-c', `echo "${USER}:x:2001:2001::/:/bin/false" >> /etc/passwd`]);
  // Root: for others it is looked first whether the address is the host's, which takes a descriptor as well.
  const [inside, owner] = await Promise.all([lab.process(2001), lab.process(0)]);
  writeFileSync(`${directory}/${SCOPE}/inner/cgroup.procs`, String(inside.pid));
  const { vnic } = exitOf(lab, 1);
  return { ...lab, path, directory, inside, owner, config: (lists) => vpnConfig(vnic, lists) };
}

/** Whether the kernel lists a connected UDP socket of this host that leads to the internet. */
async function isConnected({ app }: Scene): Promise<boolean> {
  const { stdout } = await app.run('ss', ['-Huna', 'state', 'established', 'dst', ADDRESSES.internet.ipv4]);
  return stdout.trim() !== '';
}

/**
 * Tries a setUp while something fails. Returns 'failed' or 'ok'; anything but a clean failure or a VPN that has ended the
 * application's old socket fails the test.
 */
async function attempt(lab: Scene, config: VpnConfig, what: string, failing: () => Promise<() => Promise<void>>) {
  const before = await canonicalState(lab.app);
  const socket: number = await lab.inside.call('open', 1, 'udp');
  await lab.inside.call('connect', socket, ADDRESSES.internet.ipv4, 7);
  assert.equal(await isConnected(lab), true, `${what}: the old socket, before`);
  const stopFailing = await failing();
  const outcome = await lab.owner.call('setUp', config).catch((error: unknown) => error);
  await stopFailing();
  if (outcome instanceof Error) {
    assert.ok(outcome instanceof AppError, String(outcome));
    assert.equal(outcome.code, 2200003, `${what}: ${outcome.message}`);
    await settledState(lab.app, before);
    assert.equal(await isConnected(lab), true, `${what}: the old socket of who is in no VPN`);
  } else {
    assert.equal(await isConnected(lab), false, `${what}: setUp said OK, and the application's old socket goes on`);
    await lab.owner.call('close', outcome as number);
    await lab.owner.call('destroy');
    await settledState(lab.app, before);
  }
  await lab.inside.call('close', socket);
  return outcome instanceof Error ? 'failed' : 'ok';
}

/** Leaves the process so many numbers for new descriptors. Returns what gives back all. */
async function leaveDescriptors(pid: number, free: number): Promise<() => Promise<void>> {
  const taken = new Set(readdirSync(`/proc/${pid}/fd`).map(Number));
  let limit = 0;
  for (let left = free; left > 0 || taken.has(limit); limit++) if (!taken.has(limit)) left--;
  const set = (soft: string) => execute('prlimit', ['--pid', String(pid), `--nofile=${soft}:`]);
  const { stdout } = await execute('prlimit', [
    '--pid',
    String(pid),
    '--nofile',
    '--noheadings',
    '--raw',
    '-o',
    'SOFT',
  ]);
  await set(String(limit));
  return async () => void (await set(stdout.trim()));
}

test('with few descriptors left a setUp for some applications fails as a whole, or does all it says', {
  timeout: 600_000,
  skip,
}, async (t) => {
  const lab = await scene(t);
  if (!lab) return;
  const lists = [`cgroup:${lab.path}`, ID, `user:${USER}`].map((name) => ({ trustedApplications: [name] }));
  // What is opened once and stays so.
  for (const list of lists) {
    await lab.owner.call('close', await lab.owner.call('setUp', lab.config(list)));
    await lab.owner.call('destroy');
  }
  for (const list of lists) {
    const outcomes: string[] = [];
    // One is for the end of the socketpair that comes with the request.
    for (let free = 1; free <= PLENTY; free++) {
      const what = `${list.trustedApplications.join()} with ${free} descriptors`;
      outcomes.push(await attempt(lab, lab.config(list), what, () => leaveDescriptors(lab.vpnd.pid, free)));
    }
    assert.equal(outcomes[0], 'failed', 'with none left it cannot be done');
    assert.equal(outcomes.at(-1), 'ok', 'with plenty it can');
  }
  assert.doesNotMatch(lab.vpnd.log(), /undo failed/);
});

for (const [what, which] of [
  ['of the cgroup above the application', ''],
  ["of the application's own cgroup", `/${SCOPE}`],
] as const) {
  test(`a setUp for an application fails when the listing ${what} does`, {
    timeout: 240_000,
    skip: skip || (STRACE === undefined && 'needs strace'),
  }, async (t) => {
    const lab = await scene(t);
    if (!lab) return;
    const failing = async () => {
      const strace = start(STRACE ?? '', [
        ...['-f', '-o', '/dev/null', '-P', `${lab.directory}${which}`],
        ...['-e', 'inject=openat:error=EMFILE', '-p', String(lab.vpnd.pid)],
      ]);
      await strace.waitFor(/attached/);
      return async () => void (await strace.kill());
    };
    const config = lab.config({ trustedApplications: [ID] });
    assert.equal(await attempt(lab, config, what, failing), 'failed');
    assert.equal(await attempt(lab, config, 'afterwards', async () => async () => undefined), 'ok');
  });
}

/**
 * How a tunnel of `vpnctl up` begins and ends otherwise than by `vpnctl down`: interrupted, in the foreground, by others, with
 * commands of its file, without its folder. The lab is vpnctl-lab.ts.
 */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { canonicalState } from './lib/canonical-state.js';
import { EVERYWHERE, pathOf } from './lib/exits.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { eventually, settledState } from './lib/vpn-lab.js';
import { INSIDE, officeConf, type User, userOf, VPNCTL, vpnctlLab } from './lib/vpnctl-lab.js';
import { startVpnd } from './lib/vpnd.js';

const TIMEOUT = { timeout: 180_000 };
const UID = 2001;
const TUNNELLED = pathOf('server', INSIDE.client);

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}

async function isGone(pid: number): Promise<void> {
  await eventually(`process ${pid} has ended`, async () => !isRunning(pid) || undefined);
}

async function upAndPid(user: User, file: string, ...options: string[]): Promise<number> {
  const { status, stderr } = await user.vpnctl('up', ...options, file);
  assert.equal(status, 0, stderr);
  return (await user.status())?.pid ?? assert.fail('no tunnel');
}

test('in the foreground: up until a signal, with its lines on standard error', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const user = userOf(lab, UID);
  const before = await canonicalState(lab.app);
  const file = user.write('office.conf', officeConf(lab));
  const app = await lab.process(UID);
  for (const [signal, word] of [
    ['SIGTERM', 'SIGTERM'],
    ['SIGINT', 'SIGINT'],
    ['SIGHUP', 'SIGHUP'],
    [undefined, 'vpnctl down'],
  ] as const) {
    const process = user.spawnVpnctl('up', '--foreground', file);
    await process.waitFor(/^office \(vpn-tun0\): up$/m);
    assert.deepEqual(await app.call('ask', ...EVERYWHERE), TUNNELLED);
    if (signal) globalThis.process.kill(process.pid, signal);
    else assert.equal((await user.vpnctl('down', 'vpn-tun0')).status, 0);
    const { status, stderr } = await process.exited;
    assert.equal(status, 0, stderr);
    assert.match(stderr, new RegExp(`^\\S+Z vpn-tun0: down, ${word}\n$`));
    await settledState(lab.app, before);
    assert.deepEqual(readdirSync(join(user.runtime, 'vpn-manager')), []);
  }
});

test(
  'ended by others, by destroy or a new vpnd: the process goes, and says why; without vpnd it goes, too',
  TIMEOUT,
  async (t) => {
    const lab = await vpnctlLab(t);
    if (!lab) return;
    const user = userOf(lab, UID);
    const before = await canonicalState(lab.app);
    const file = user.write('office.conf', officeConf(lab));
    const log = join(user.runtime, 'vpn-manager/office.log');
    let pid = await upAndPid(user, file);
    await (await lab.process(UID)).call('destroy');
    await isGone(pid);
    assert.match(readFileSync(log, 'utf8'), /vpn-tun0: the VPN was ended by others/);
    assert.deepEqual(readdirSync(dirname(log)), ['office.log']);
    await settledState(lab.app, before);

    pid = await upAndPid(user, file);
    await lab.vpnd.kill9();
    assert.ok(isRunning(pid), 'the death of vpnd alone changes nothing');
    const app = await lab.process(UID);
    assert.deepEqual(await app.call('ask', ...EVERYWHERE), TUNNELLED);
    const { status, stdout } = await user.vpnctl('down');
    assert.equal(status, 1, stdout);
    assert.match(stdout, /^office \(vpn-tun0\): down, but: the VPN: Operation failed. Cannot connect to service\./);
    await isGone(pid);
    const successor = await startVpnd(lab.app, { directory: dirname(lab.vpnd.socket) });
    await settledState(lab.app, before);

    pid = await upAndPid(user, file);
    await successor.kill9();
    await startVpnd(lab.app, { directory: dirname(lab.vpnd.socket) });
    await isGone(pid);
    assert.match(readFileSync(log, 'utf8'), /vpn-tun0: the VPN was ended by others[^\n]*\n$/);
    await settledState(lab.app, before);
  },
);

test('vpnctl up that is interrupted leaves nothing', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const user = userOf(lab, UID);
  const before = await canonicalState(lab.app);
  for (const key of ['PreUp', 'PostUp']) {
    const file = user.write(
      'slow.conf',
      officeConf(lab, { interface: [`${key} = echo $$ > ${user.home}/shell; exec sleep 1000`] }),
    );
    const starting = user.spawnVpnctl('up', '--allow-hooks', file);
    const shell = await eventually('the command runs', async () => {
      const text = readdirSync(user.home).includes('shell') ? readFileSync(join(user.home, 'shell'), 'utf8') : '';
      return Number(text) || undefined;
    });
    assert.notEqual(await canonicalState(lab.app), before);
    await starting.kill('SIGINT');
    await settledState(lab.app, before);
    await isGone(shell);
    rmSync(join(user.home, 'shell'));
    await eventually('no sockets', async () => {
      const left = readdirSync(join(user.runtime, 'vpn-manager'));
      return left.every((name) => name === 'slow.log') || undefined;
    });
  }
});

test('commands of the file run as the user, in order, and none is shown to ps', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const user = userOf(lab, UID);
  const before = await canonicalState(lab.app);
  const trace = join(user.home, 'trace');
  const keys = ['PreUp', 'PostUp', 'PostUp', 'PreDown', 'PostDown'];
  const hooks = keys.map((key, index) => `${key} = echo ${index} %i $(id -u) >> ${trace}`);
  const secret = 'c2VjcmV0LXNlY3JldA';
  const lines = [
    ...hooks,
    `PostUp = true ${secret}; cat /proc/$PPID/cmdline /proc/$$/cmdline /proc/$$/environ > ${user.home}/shown`,
  ];
  const file = user.write('office.conf', officeConf(lab, { interface: lines }));
  await upAndPid(user, file, '--allow-hooks');
  assert.equal((await user.vpnctl('down')).status, 0);
  assert.equal(readFileSync(trace, 'utf8'), keys.map((_, index) => `${index} vpn-tun0 ${UID}\n`).join(''));
  assert.ok(!readFileSync(join(user.home, 'shown'), 'latin1').includes(secret));

  // A command that fails on the way up is the end of it; on the way down the rest is done all the same.
  for (const name of ['PreUp', 'PostUp']) {
    const failing = user.write('fails.conf', officeConf(lab, { interface: [`${name} = exit 3`] }));
    const { status, stderr } = await user.vpnctl('up', '--allow-hooks', failing);
    assert.deepEqual([status, stderr], [78, `vpnctl: ${failing}:5: ${name} ended with 3\n`]);
    await settledState(lab.app, before);
  }
  const late = user.write(
    'late.conf',
    officeConf(lab, { interface: ['PreDown = exit 4', `PostDown = : > ${trace}2`] }),
  );
  await upAndPid(user, late, '--allow-hooks');
  const { status, stdout } = await user.vpnctl('down');
  assert.deepEqual([status, stdout], [1, `late (vpn-tun0): down, but: ${late}:5: PreDown ended with 4\n`]);
  assert.ok(statSync(`${trace}2`).isFile());
  await settledState(lab.app, before);
});

test('SaveConfig writes the file with what has changed', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const user = userOf(lab, UID);
  const text = officeConf(lab, { interface: ['SaveConfig = true'], peer: ['PersistentKeepalive = 25'] });
  const file = user.write('office.conf', text);
  await upAndPid(user, file, '--allow-hooks');
  const port = (await user.status())?.listenPort;
  assert.equal((await user.vpnctl('down')).status, 0);
  const saved = readFileSync(file, 'utf8');
  for (const line of [
    `PrivateKey = ${lab.keys.privateKey}`,
    `ListenPort = ${port}`,
    'SaveConfig = true',
    `PresharedKey = ${lab.presharedKey}`,
    `Endpoint = ${ADDRESSES.server.ipv4}:51820`,
    'PersistentKeepalive = 25',
  ]) {
    assert.ok(saved.split('\n').includes(line), line);
  }
  const { mode, uid } = statSync(file);
  assert.deepEqual([mode & 0o777, uid], [0o600, UID]);
  assert.deepEqual(readdirSync(user.home), ['office.conf']);
  await upAndPid(user, file, '--allow-hooks');
  assert.equal((await user.vpnctl('down')).status, 0);
});

test('a second one is refused, and the first goes on', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const user = userOf(lab, UID);
  const file = user.write('office.conf', officeConf(lab));
  const pid = await upAndPid(user, file);
  const second = await user.vpnctl('up', file);
  assert.equal(second.status, 1);
  assert.match(second.stderr, /^vpnctl: VPN already exists\. [^\n]*\n$/);
  assert.ok(isRunning(pid));
  const app = await lab.process(UID);
  assert.deepEqual(await app.call('ask', ...EVERYWHERE), TUNNELLED);
  assert.match(readFileSync(join(user.runtime, 'vpn-manager/office.log'), 'utf8'), /^\S+Z vpn-tun0: up, office\n/);
  assert.equal((await user.vpnctl('down')).status, 0);
});

test('a folder for sockets that is gone, or that somebody else has made', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const user = userOf(lab, UID);
  const before = await canonicalState(lab.app);
  const file = user.write('office.conf', officeConf(lab));
  const pid = await upAndPid(user, file);
  // As a login manager does when the user's last session ends.
  rmSync(join(user.runtime, 'vpn-manager'), { recursive: true });
  assert.deepEqual(await user.vpnctl('down'), { status: 0, stdout: 'office (vpn-tun0): down\n', stderr: '' });
  await isGone(pid);
  await settledState(lab.app, before);

  const squatted = `/tmp/vpn-manager-${UID}`;
  rmSync(squatted, { recursive: true, force: true });
  t.after(() => rmSync(squatted, { recursive: true, force: true }));
  mkdirSync(squatted);
  chmodSync(squatted, 0o777);
  const options = { uid: UID, env: { VPND_SOCKET: lab.vpnd.socket, XDG_RUNTIME_DIR: '' }, check: false };
  const refused = await lab.app.node(VPNCTL, ['up', file], options);
  assert.deepEqual([refused.status, refused.stdout], [73, ''], refused.stderr);
  assert.match(refused.stderr, new RegExp(`^vpnctl: no folder for sockets: ${squatted}: not uid ${UID}'s own`));
  assert.deepEqual(readdirSync(squatted), []);
  rmSync(squatted, { recursive: true });
  const used = await lab.app.node(VPNCTL, ['up', file], options);
  assert.equal(used.status, 0, used.stderr);
  assert.equal(statSync(squatted).mode & 0o777, 0o700);
  assert.equal((await lab.app.node(VPNCTL, ['down'], options)).status, 0);
  await settledState(lab.app, before);
});

test("another program's VPN is not vpnctl's to end", TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const user = userOf(lab, UID);
  const app = await lab.process(UID);
  await app.call('setUp', { addresses: [{ address: { address: '10.0.0.5' }, prefixLength: 24 }] });
  const { status, stdout } = await user.vpnctl('down');
  assert.equal(status, 1);
  assert.match(stdout, /^vpn-tun0 is the VPN of node \(\d+\), which has to end it\n$/);
  assert.match((await user.vpnctl('status')).stdout, /^vpn-tun0 {2}uid 2001/);
});

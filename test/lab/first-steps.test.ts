/**
 * What the service says to somebody who meets it for the first time can be done as it is written: who is refused is told what helps, who
 * finds no service how to start it, and a policy is read again by a command.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { canonicalState, diffState } from './lib/canonical-state.js';
import { type LabHost, REPOSITORY_IN_HOST } from './lib/host.js';
import { Lab } from './lib/lab.js';
import { requireRoot } from './lib/prerequisites.js';
import type { LabProcess } from './lib/process.js';
import { vpnConfig } from './lib/vpn-app.js';
import { vpnLab } from './lib/vpn-lab.js';

const VPNCTL = 'dist/src/cli/vpnctl.js';
const VPND = 'dist/src/service/vpnd.js';
const APP = `${REPOSITORY_IN_HOST}/dist/test/lab/lib/app/app.js`;
const SOCKET = '/run/vpnd/vpnd.sock';
const MANAGE_VPN = 'ohos.permission.MANAGE_VPN';
const GROUP = { match: { group: 'vpn' }, system: true, permissions: [MANAGE_VPN] };
const TIMEOUT = { timeout: 180_000 };

async function bareHost(t: TestContext): Promise<LabHost | undefined> {
  if (!requireRoot(t)) return undefined;
  const lab = await Lab.create();
  t.after(() => lab.close());
  return lab.host('app');
}

/** A process of this login, as after logging in. */
async function logIn(host: LabHost, name: string): Promise<LabProcess> {
  const user = [`--reuid=${name}`, `--regid=${name}`, '--init-groups', '--', '/run/node', APP];
  const process = host.spawn('setpriv', user, { env: { VPND_SOCKET: SOCKET } });
  await process.waitFor(/^ready$/m);
  return process;
}

let calls = 0;
/** `"result":…` or `"error":{…}`. */
async function call(process: LabProcess, operation: string, ...args: unknown[]): Promise<string> {
  const id = ++calls;
  process.write(`${JSON.stringify({ id, operation, args })}\n`);
  return (await process.waitFor(new RegExp(`^\\{"id":${id},(.*)\\}$`, 'm'), 40_000))[1] ?? '';
}

for (const [policy, text] of [
  ['no policy file', undefined],
  ['a policy with the group vpn', JSON.stringify({ callers: [GROUP] })],
] as const) {
  test(`${policy}: what 202 says can be typed, and helps without a new start of the service`, TIMEOUT, async (t) => {
    const host = await bareHost(t);
    if (!host) return;
    const sh = (script: string) => host.run('sh', ['-ec', script]);
    if ((await host.run('sh', ['-c', 'command -v usermod && test -w /etc'], { check: false })).status !== 0) {
      return t.skip('there is no usermod, or /etc is not our own');
    }
    await sh(
      'sed -i "/^vpn:/d" /etc/group; echo ann:x:2005: >> /etc/group; echo ann:x:2005:2005::/:/bin/sh >> /etc/passwd',
    );
    if (text !== undefined) {
      // The group must be there to be named in a file.
      await sh(`groupadd -f vpn; mkdir -p /etc/vpnd; umask 022; echo '${text}' > /etc/vpnd/policy.json`);
    }
    const vpnd = host.spawnNode(VPND, ['--state-dir', join(host.directory, 'state')]);
    await vpnd.waitFor(/ ready /, 30_000);
    const config = vpnConfig(['10.77.0.2/24', 'fd77::2/64']);
    const stranger = await logIn(host, 'ann');
    const sentence = /to allow it: sudo groupadd -f vpn && sudo usermod -aG vpn ann, then log in again/;
    for (const operation of ['setUp', 'destroy'] as const) {
      const answer = await call(stranger, operation, ...(operation === 'setUp' ? [config] : []));
      assert.match(answer, /^"error":\{"code":202,/);
      assert.match(answer, sentence);
    }
    const env = { VPND_SOCKET: SOCKET };
    const run = await host.node(VPNCTL, ['run', '--app', 'x', '--', 'true'], { uid: 2005, env, check: false });
    assert.match(run.stderr, sentence);
    const CREATE = `import(process.argv[1]).then(({ vpn }) => vpn.createVpnConnection({})).catch((e) => console.log(e.code, e.message))`;
    const created = await host.node('--eval', [CREATE, `${REPOSITORY_IN_HOST}/dist/src/vpn/index.js`], {
      uid: 2005,
      env,
    });
    assert.match(created.stdout, /^202 /);
    assert.match(created.stdout, sentence);

    await sh(/sudo (.*), then/.exec(created.stdout)?.[1]?.replace('sudo ', '') ?? 'false');
    const member = await logIn(host, 'ann');
    assert.match(await call(member, 'setUp', config), /^"result":/);
    assert.match(await call(member, 'destroy'), /^"result"/);
    assert.match(await call(stranger, 'setUp', config), /^"error":\{"code":202,/, 'who has not logged in again');
    await vpnd.kill();
  });
}

test('no policy locks root out, but for one that disables VPNs', TIMEOUT, async (t) => {
  const lab = await vpnLab(t, { networks: [], vpnd: { policy: { callers: [], guests: { users: [0] } } } });
  if (!lab) return;
  const root = await lab.process(0);
  await root.call('setUp', vpnConfig(['10.77.0.2/24', 'fd77::2/64']));
  await root.call('destroy');
  await assert.rejects((await lab.process(2001)).call('setUp', vpnConfig(['10.77.0.2/24'])), {
    code: 202,
    message: /add \{"match":\{"uid":2001\}.*\} to "callers" in .*policy\.json, then: sudo vpnctl reload/,
  });
  lab.vpnd.reload({ disabled: true });
  await lab.vpnd.process.waitFor(/ policy-loaded /);
  await assert.rejects(root.call('setUp', vpnConfig(['10.77.0.2/24'])), { code: 201, message: /"disabled" in/ });
});

test(
  'vpnctl reload: the new policy binds; a bad one is said with its line and changes nothing; for root only',
  TIMEOUT,
  async (t) => {
    const lab = await vpnLab(t, { networks: [], vpnd: { policy: { callers: [] } } });
    if (!lab) return;
    const env = { VPND_SOCKET: lab.vpnd.socket };
    const reload = (uid: number) => lab.app.node(VPNCTL, ['reload'], { uid, env, check: false });
    const user = await lab.process(2001);
    const setUp = () => user.call('setUp', vpnConfig(['10.77.0.2/24']));
    const write = (text: string) => writeFileSync(lab.vpnd.policyFile, text);
    await assert.rejects(setUp(), { code: 202 });

    const allowed = { match: { uid: 2001 }, system: true, permissions: [MANAGE_VPN] };
    write(JSON.stringify({ callers: [allowed] }));
    const refused = await reload(2001);
    assert.deepEqual([refused.status, refused.stdout], [1, '']);
    assert.match(refused.stderr, /^vpnctl: Permission denied\. .*root only: sudo vpnctl reload\n$/);
    await assert.rejects(setUp(), { code: 202 });
    assert.deepEqual(await reload(0), {
      status: 0,
      stdout: `the policy is that of ${lab.vpnd.policyFile} now\n`,
      stderr: '',
    });
    await setUp();
    const up = await canonicalState(lab.app);

    write('{\n  "callers": [],\n  "disabled": maybe\n}\n');
    const bad = await reload(0);
    assert.deepEqual([bad.status, bad.stdout], [78, '']);
    assert.match(bad.stderr, /^vpnctl: .*policy\.json:3: .*the policy of before stays\n$/);
    assert.deepEqual(diffState(up, await canonicalState(lab.app)), []);
    await user.call('destroy');

    // VPNs that are disabled can be allowed again.
    write(JSON.stringify({ callers: [allowed], disabled: true }));
    assert.equal((await reload(0)).status, 0);
    await assert.rejects(setUp(), { code: 201 });
    write(JSON.stringify({ callers: [allowed] }));
    assert.equal((await reload(0)).status, 0);
    await setUp();
  },
);

test('the service is found by its name', TIMEOUT, async (t) => {
  const lab = await vpnLab(t, { networks: [] });
  if (!lab) return;
  const [pid, commands] = [String(lab.vpnd.pid), ['pidof vpnd', 'ps -o pid= -C vpnd', 'pgrep -x vpnd']];
  for (const command of commands) {
    const found = await lab.app.run('sh', ['-c', command], { check: false });
    if (found.status === 127) continue;
    assert.ok(found.stdout.trim().split(/\s+/).includes(pid), `${command}: ${found.stdout}${found.stderr}`);
  }
});

for (const socket of [SOCKET, '/run/elsewhere/it is.sock']) {
  test(`where nobody listens on ${socket}, the command that is named starts the service`, TIMEOUT, async (t) => {
    const host = await bareHost(t);
    if (!host) return;
    const env = { VPND_SOCKET: socket };
    const status = () => host.node(VPNCTL, ['status'], { env, check: false });
    const none = await status();
    assert.equal(none.status, 69);
    const [, command] = /; start it with: (.*)\n$/.exec(none.stderr) ?? [];
    assert.ok(command, none.stderr);
    // A login knows nothing of our environment.
    const service = host.spawn('sh', ['-c', `unset VPND_SOCKET; exec ${command} --state-dir ${host.directory}/state`], {
      env,
    });
    await service.waitFor(/ ready /, 30_000);
    assert.deepEqual(await status(), { status: 0, stdout: 'no VPN is up\n', stderr: '' });
    await service.kill();
  });
}

test('a service that hangs is said to hang, with its process, and not that nobody is there', TIMEOUT, async (t) => {
  const lab = await vpnLab(t, { networks: [] });
  if (!lab) return;
  process.kill(lab.vpnd.pid, 'SIGSTOP');
  const { status, stderr } = await lab.app.node(VPNCTL, ['status'], {
    env: { VPND_SOCKET: lab.vpnd.socket },
    check: false,
    timeoutMs: 60_000,
  });
  assert.equal(status, 69);
  assert.match(stderr, new RegExp(`the service, process ${lab.vpnd.pid}, runs and hangs.*kill -9 ${lab.vpnd.pid}`));
  assert.equal(stderr.trim().split('\n').length, 1, stderr);
  await lab.vpnd.kill9();
});

/**
 * Readers that go away and disks that are full, with a service: every command of vpnctl, a tunnel in the foreground and one in the
 * background, vpnd's own log, and the examples. The lab is vpnctl-lab.ts.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { EVERYWHERE, pathOf } from './lib/exits.js';
import type { LabProcess } from './lib/process.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { eventually, vpnLab } from './lib/vpn-lab.js';
import { INSIDE, officeConf, type User, userOf, VPNCTL, type VpnctlLab, vpnctlLab, WG_PORT } from './lib/vpnctl-lab.js';

const TIMEOUT = { timeout: 400_000 };
const UID = 2001;
const TUNNELLED = pathOf('server', INSIDE.client);

/** Runs the words behind `script` ("$@") in a shell, as this user. */
function shell({ app, vpnd }: Pick<VpnctlLab, 'app' | 'vpnd'>, user: User) {
  const env = { VPND_SOCKET: vpnd.socket, XDG_RUNTIME_DIR: user.runtime, HOME: user.home };
  return (script: string, program: string, ...words: string[]) =>
    app.run('bash', ['--norc', '-c', script, 'bash', '/run/node', app.path(program), ...words], {
      uid: user.uid,
      env,
      check: false,
      timeoutMs: 60_000,
    });
}

/** The exit code and all that came on standard error, as the last line and those before it. */
const UNREAD = 'set -o pipefail; { "$@" 2>&3; echo "exit $?" >&3; } 3>&2 | true';
const HEAD = 'set -o pipefail; { "$@" 2>&3; echo "exit $?" >&3; } 3>&2 | head -c1 >/dev/null';
const CLOSED = '"$@" >&-; echo "exit $?" >&2';
const FULL = '"$@" >/dev/full; echo "exit $?" >&2';
const LOST = 'vpnctl: standard output cannot be written: ENOSPC\n';

test('every command: quiet without a reader, one line on a full disk, and what it did is done', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const user = userOf(lab, UID);
  const run = shell(lab, user);
  const app = await lab.process(UID);
  const file = user.write('office.conf', officeConf(lab));
  for (const [script, stderr] of [
    [UNREAD, 'exit 0\n'],
    [CLOSED, 'exit 0\n'],
    [FULL, `${LOST}exit 74\n`],
  ] as const) {
    assert.equal((await run(script, VPNCTL, 'up', file)).stderr, stderr, 'up');
    assert.deepEqual(await app.call('ask', ...EVERYWHERE), TUNNELLED, 'it is up');
    for (const words of [['status'], ['status', '--json'], ['leaks'], ['leaks', '--json']]) {
      assert.equal((await run(script, VPNCTL, ...words)).stderr, stderr, words.join(' '));
    }
    assert.equal((await run(HEAD, VPNCTL, 'leaks', '--json')).stderr, 'exit 0\n');
    assert.equal((await run(script, VPNCTL, 'down')).stderr, stderr, 'down');
    assert.deepEqual((await user.vpnctl('status')).stdout, 'no VPN is up\n');
  }
});

test('events ends when its reader has gone', TIMEOUT, async (t) => {
  const lab = await vpnLab(t);
  if (!lab) return;
  const app = await lab.process(UID);
  for (const [script, code] of [
    ['"$@" 2>&1 > >(head -n1 >/dev/null); echo "exit $?"', 0],
    ['"$@" 2>&1 >/dev/full; echo "exit $?"', 74],
  ] as const) {
    const env = { VPND_SOCKET: lab.vpnd.socket };
    const words = ['--norc', '-c', script, 'bash', '/run/node', lab.app.path(VPNCTL), 'events'];
    const events: LabProcess = lab.app.spawn('bash', words, { uid: UID, env });
    await eventually('it has ended', async () => {
      if (!events.running) return true;
      await app.call('setUp', { addresses: [{ address: { address: '10.0.0.5' }, prefixLength: 24 }] });
      await app.call('destroy');
      return undefined;
    });
    const { stdout } = await events.exited;
    assert.equal(stdout, `${code === 74 ? LOST : ''}exit ${code}\n`);
  }
});

test('a tunnel does not end because nobody reads what it says', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const user = userOf(lab, UID);
  const app = await lab.process(UID);
  const file = user.write('office.conf', officeConf(lab));
  const env = { VPND_SOCKET: lab.vpnd.socket, XDG_RUNTIME_DIR: user.runtime, HOME: user.home };
  // Both outputs, and the output of its commands, go to a reader that has gone.
  for (const outputs of ['> >(true) 2>&1', '>/dev/full 2>&1', '>&- 2>&-']) {
    const script = `trap '' PIPE; "$@" ${outputs}; echo "exit $?" >"$HOME/code"`;
    const words = ['--norc', '-c', script, 'bash', '/run/node', lab.app.path(VPNCTL), 'up', '--foreground', file];
    lab.app.spawn('bash', words, { uid: UID, env });
    await eventually('it is up', async () => ((await user.status()) ? true : undefined));
    // What it has to say about a search for its peer, it says into nothing.
    assert.deepEqual(await app.call('ask', ...EVERYWHERE), TUNNELLED);
    assert.equal((await user.vpnctl('down')).status, 0);
    const code = join(user.home, 'code');
    await eventually('it has ended', async () => (existsSync(code) && readFileSync(code, 'utf8') !== '') || undefined);
    assert.match(readFileSync(code, 'utf8'), outputs.includes('full') ? /^exit 74\n$/ : /^exit 0\n$/);
    await lab.app.run('rm', [code]);
  }
});

test('vpnd goes on when nobody reads its log', TIMEOUT, async (t) => {
  const lab = await vpnLab(t);
  if (!lab) return;
  const { app } = lab;
  await lab.vpnd.stop();
  const paths = [
    '--socket',
    lab.vpnd.socket,
    '--state-dir',
    join(lab.lab.directory, 'state'),
    '--policy',
    lab.vpnd.policyFile,
  ];
  for (const output of ['2> >(true)', '2>/dev/full', '2>&-']) {
    const script = `exec "$@" ${output}`;
    const words = ['--norc', '-c', script, 'bash', '/run/node', app.path('dist/src/service/vpnd.js'), ...paths];
    const vpnd = app.spawn('bash', [...words, '--log-level', 'debug']);
    const vpnctl = () => app.node(VPNCTL, ['status'], { env: { VPND_SOCKET: lab.vpnd.socket }, check: false });
    await eventually('it answers', async () => (await vpnctl()).status === 0 || undefined);
    const client = await lab.process(UID);
    for (let time = 0; time < 3; time++) {
      // Each has lines in the log.
      process.kill(vpnd.pid, 'SIGHUP');
      await client.call('setUp', { addresses: [{ address: { address: '10.0.0.5' }, prefixLength: 24 }] });
      assert.match((await vpnctl()).stdout, /^vpn-tun0 /, output);
      await client.call('destroy');
    }
    assert.equal((await vpnd.kill('SIGTERM')).status, 0, output);
  }
});

test('examples/up.ts ends quietly with its reader, and a tunnel of an example goes on', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const user = userOf(lab, UID);
  const env = { VPND_SOCKET: lab.vpnd.socket };
  const start = (script: string, program: string, ...words: string[]) =>
    lab.app.spawn('bash', ['--norc', '-c', script, 'bash', '/run/node', lab.app.path(program), ...words], {
      uid: UID,
      env,
    });
  const shown = start('exec "$@" > >(head -n1)', 'dist/examples/up.js');
  await eventually('up.js has ended', async () => {
    if (!shown.running) return true;
    await lab.app.run('ping', ['-c1', '-W1', ADDRESSES.server.ipv4], { uid: UID, check: false });
    return undefined;
  });
  assert.equal((await shown.exited).stderr, '');

  const key = user.write('client.key', `${lab.keys.privateKey}\n`);
  await lab.wireguard.set('peer', lab.keys.publicKey, 'preshared-key', '/dev/null');
  const words = [key, lab.wireguard.publicKey, ADDRESSES.server.ipv4, String(WG_PORT), `${INSIDE.client.ipv4}/24`];
  const client = start('exec "$@" > >(true)', 'dist/examples/wireguard-client.js', ...words);
  // Its lines are lost by then, and its packets are not.
  await eventually('it is up', async () => {
    const { status } = await lab.app.run('ping', ['-c1', '-W1', INSIDE.server.ipv4], { uid: UID, check: false });
    return status === 0 || undefined;
  });
  const { status, stderr } = await client.kill('SIGTERM');
  assert.deepEqual([status, stderr], [0, '']);
});

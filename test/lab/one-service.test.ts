/**
 * One service for each network namespace, and callers of that one only:
 *
 *   app     vpnd with VPNs of a user and of root; a second one beside it, however it is started, ends and touches nothing
 *   router  another network namespace: callers there have the same uids, and no say about app's network
 */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { canonicalState, diffState } from './lib/canonical-state.js';
import type { Result } from './lib/process.js';
import { pythonFor } from './lib/python.js';
import { startApp, vpnConfig } from './lib/vpn-app.js';
import { eventually, type VpnLab, vpnLab } from './lib/vpn-lab.js';
import { startVpnd } from './lib/vpnd.js';

const VPND = 'dist/src/service/vpnd.js';
/** Files of the service elsewhere, on mounts that nobody else sees. */
const ELSEWHERE = `
mount -t tmpfs tmpfs /var
mkdir -p /run/alone && mount -t tmpfs tmpfs /run/alone
exec "$@"
`;
/** As a program that embeds the service does. */
const EMBEDDED = `
import(process.argv[1])
  .then(({ startService }) => startService({ socket: process.argv[2], stateDir: process.argv[3] }))
  .then(() => process.exit(0), (error) => { console.error(error.message); process.exit(1); });
`;
/** Whoever has no right tries to be the one service: every lock that a file or a name could be. */
const SQUATTER = `
import fcntl, os, socket, struct, sys, time
def bind(command):
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    message = struct.pack('=BBH', 0, 0, socket.htons(0x7670)) + struct.pack('=HHBBH', 8, 1, command, 0, 0)
    netlink.send(struct.pack('=IHHII', 16 + len(message), 0x302, 5, 1, 0) + message)
    answer = struct.unpack_from('=i', netlink.recv(4096), 16)[0]
    return netlink, os.strerror(-answer)
kept = [bind(1), *(os.open(path, os.O_RDONLY) for path in ('/proc/self/ns/net', sys.argv[1]))]
fcntl.flock(kept[1], fcntl.LOCK_EX | fcntl.LOCK_NB)
fcntl.flock(kept[2], fcntl.LOCK_EX | fcntl.LOCK_NB)
print('squats:', kept[0][1], flush=True)
time.sleep(600)
`;

const paths = (lab: VpnLab, name: string) => [
  '--socket',
  join(lab.lab.directory, `${name}.sock`),
  '--state-dir',
  join(lab.lab.directory, name),
];

async function withVpns(lab: VpnLab) {
  const [user, root] = await Promise.all([lab.process(2001), lab.process(0)]);
  await user.call('setUp', vpnConfig(['10.77.0.2/24', 'fd77::2/64'], { dnsAddresses: ['10.77.0.1'] }));
  await root.call('setUp', vpnConfig(['10.78.0.2/24', 'fd78::2/64'], { dnsAddresses: ['10.78.0.1'] }));
  return { user, root, up: await canonicalState(lab.app) };
}

test('a second service is refused before it touches anything, wherever its files are, and says who is there', {
  timeout: 180_000,
}, async (t) => {
  const lab = await vpnLab(t, { networks: [] });
  if (!lab) return;
  const { up } = await withVpns(lab);
  const [vpnd, index] = [lab.app.path(VPND), lab.app.path('dist/src/service/index.js')];
  const embedded = ['--eval', EMBEDDED, index];
  const own = ['--socket', '/run/alone/vpnd.sock', '--state-dir', '/var/vpnd'];
  const seconds: Record<string, [string, string[]]> = {
    'another state directory': ['/run/node', [vpnd, ...paths(lab, 'second')]],
    'the same state directory': [
      '/run/node',
      [vpnd, ...paths(lab, 'third').slice(0, 2), '--state-dir', join(dirname(lab.vpnd.socket), 'state')],
    ],
    'other mounts': ['unshare', ['--mount', 'sh', '-c', ELSEWHERE, 'sh', '/run/node', vpnd, ...own]],
    'startService()': ['/run/node', [...embedded, join(lab.lab.directory, 'e.sock'), join(lab.lab.directory, 'e')]],
  };
  for (const [how, [command, args]] of Object.entries(seconds)) {
    const { status, stdout, stderr } = await lab.app.run(command, args, { check: false });
    assert.equal(status, how === 'startService()' ? 1 : 73, `${how}: ${stdout}${stderr}`);
    assert.match(
      stderr,
      new RegExp(`another service serves this network namespace \\(process ${lab.vpnd.pid}\\)`),
      how,
    );
    assert.equal(stderr.trim().split('\n').length, 1, `${how}: ${stderr}`);
    assert.deepEqual(diffState(up, await canonicalState(lab.app)), [], how);
  }
});

test('nobody without the right to it keeps a service from starting; after SIGKILL the next starts at once', {
  timeout: 180_000,
}, async (t) => {
  const lab = await vpnLab(t, { networks: [] });
  if (!lab) return;
  const before = await canonicalState(lab.app);
  await withVpns(lab);
  const state = join(dirname(lab.vpnd.socket), 'state');
  chmodSync(state, 0o755);
  const python = await pythonFor(lab.app, 2003);
  assert.ok(python);
  const squatter = lab.app.spawn(python, ['-c', SQUATTER, state], { uid: 2003 });
  await lab.vpnd.kill9();
  await squatter.waitFor(/^squats: Operation not permitted$/m);
  const successor = await startVpnd(lab.app, { directory: dirname(lab.vpnd.socket) });
  await successor.process.waitFor(/ swept /);
  assert.deepEqual(diffState(before, await canonicalState(lab.app)), []);
  assert.equal((await successor.stop()).status, 0);
  assert.equal((await (await startVpnd(lab.app)).stop()).status, 0, 'elsewhere, when it has ended in order');
  await squatter.kill('SIGKILL');
});

test('each network namespace may have a service, also one that a user namespace owns; that one has one only', {
  timeout: 180_000,
}, async (t) => {
  const lab = await vpnLab(t, { networks: [] });
  if (!lab) return;
  const { up } = await withVpns(lab);
  const beside = await startVpnd(lab.server);
  const vpnd = lab.app.path(VPND);
  for (const name of ['owned', 'late']) mkdirSync(join(lab.lab.directory, name));
  const owned = lab.app.spawn('unshare', [
    ...['--user', '--map-root-user', '--net', '--', '/run/node', vpnd],
    ...paths(lab, 'owned'),
  ]);
  await owned.waitFor(/ ready /, 60_000);
  const inside = ['--target', String(owned.pid), '--user', '--net', '--preserve-credentials', '--'];
  const late: Result = await lab.app.run('nsenter', [...inside, '/run/node', vpnd, ...paths(lab, 'late')], {
    check: false,
  });
  assert.equal(late.status, 73, late.stderr);
  assert.match(late.stderr, /another service/);
  assert.equal((await owned.kill('SIGTERM')).status, 0);
  assert.equal((await beside.stop()).status, 0);
  assert.deepEqual(diffState(up, await canonicalState(lab.app)), []);
});

test('whoever calls from another network namespace gets no VPN of this one, and ends none; a user namespace is no other network', {
  timeout: 180_000,
}, async (t) => {
  const lab = await vpnLab(t, { networks: [] });
  if (!lab) return;
  for (const uid of [0, 2001]) {
    const before = await canonicalState(lab.app);
    const stranger = await startApp(lab.router, uid, lab.vpnd);
    const config = vpnConfig([`10.77.${uid % 100}.2/24`, 'fd77::2/64'], { dnsAddresses: ['10.77.0.1'] });
    const refused = { code: 2200003, message: /another network namespace/ };
    await assert.rejects(stranger.call('setUp', config), refused, `setUp of uid ${uid}`);
    assert.deepEqual(diffState(before, await canonicalState(lab.app)), []);

    const owner = await lab.process(uid);
    await owner.call('setUp', config);
    const up = await canonicalState(lab.app);
    await assert.rejects(stranger.call('destroy'), refused, `destroy of uid ${uid}`);
    await stranger.kill9();
    assert.deepEqual(diffState(up, await canonicalState(lab.app)), []);
    await owner.call('destroy');
    await eventually(
      'it is down',
      async () => diffState(before, await canonicalState(lab.app)).length === 0 || undefined,
    );
  }
  // As a sandbox or a rootless container with the network of the host is.
  const sandboxed = lab.app.spawn(
    'setpriv',
    [
      ...['--reuid=2002', '--regid=2002', '--clear-groups', '--', 'unshare', '--user', '--map-root-user', '--'],
      ...['/run/node', lab.app.path('dist/test/lab/lib/app/app.js')],
    ],
    { env: { VPND_SOCKET: lab.vpnd.socket } },
  );
  await sandboxed.waitFor(/^ready$/m);
  sandboxed.write(`${JSON.stringify({ id: 1, operation: 'setUp', args: [vpnConfig(['10.79.0.2/24'])] })}\n`);
  const [, result] = await sandboxed.waitFor(/^\{"id":1,(.*)\}$/m, 40_000);
  assert.match(result ?? '', /^"result":\d+$/);
});

/**
 * What the service needs, where it listens, how it says that it is ready, and which policy binds a call. How it ends, and what
 * a bad policy does, is test/lab/service-process.test.ts.
 *
 *   app (vpnd, the apps) ── router, server (further services)
 */
import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { checked } from '../../src/kernel/errno.js';
import { libc } from '../../src/kernel/ffi.js';
import { AF_UNIX } from '../../src/kernel/socket-options.js';
import { unixAddress } from '../../src/kernel/unix-socket.js';
import { startVpnd } from '../lab/lib/vpnd.js';
import { assertRefused, FORMS } from './lib/rows.js';
import { POLICY, scene, USERS, until } from './lib/scene.js';

const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const CONFIG = { addresses: [{ address: { address: '10.0.0.5' }, prefixLength: 24 }] };

test('the service', { timeout: 600_000 }, async (t) => {
  const stage = await scene(t);
  if (!stage) return;
  const app = await stage.app(USERS.system);

  await t.test('a changed policy binds new calls at once and does not end a live VPN', async () => {
    await app.setUp(CONFIG);
    await stage.policy({ callers: [] });
    const link = await stage.link('vpn-tun0');
    assert.equal(link?.ifname, 'vpn-tun0');
    for (const form of FORMS) assertRefused(await app.attempt(form, 'destroy'), form, 202, /system application/);
    await stage.policy(POLICY);
    await app.destroy();
  });

  await t.test('a second service for the same network is exit 73', async () => {
    const state = stage.vpnd.socket.replace(/[^/]*$/, 'state');
    const other = stage.vpnd.socket.replace(/[^/]*$/, 'other.sock');
    const args = ['--socket', other, '--state-dir', state, '--policy', stage.vpnd.policyFile];
    const { status, stderr } = await stage.host.node('dist/src/service/vpnd.js', args, { check: false });
    assert.equal(status, 73);
    assert.match(stderr, /another service serves this network namespace/);
  });

  await t.test('without CAP_NET_ADMIN it is exit 77, and the message names the fix', async () => {
    const { status, stderr } = await stage.lab.router.node('dist/src/service/vpnd.js', [], { uid: 2001, check: false });
    assert.equal(status, 77);
    assert.match(stderr, /vpnd needs CAP_NET_ADMIN: run it as root/);
  });

  await t.test('without /dev/net/tun, or libnftables, it is exit 69, and the message names the fix', async () => {
    const without = (hide: string) => {
      const script = `${hide} && exec /run/node ${stage.host.path('dist/src/service/vpnd.js')}`;
      return stage.lab.router.run('unshare', ['--mount', 'sh', '-ec', script], { check: false });
    };
    const noTun = await without('mount -t tmpfs tmpfs /dev/net');
    assert.deepEqual(
      [noTun.status, noTun.stderr],
      [69, 'vpnd: there is no /dev/net/tun: load the module with `modprobe tun`\n'],
    );
    const noNft = await without(
      'for file in $(ldconfig -p | sed -n "s/.*libnftables.so.1 .*=> //p"); do mount --bind /dev/null $file; done',
    );
    assert.equal(noNft.status, 69);
    assert.match(noNft.stderr, /^vpnd: libnftables\.so\.1 is missing: install libnftables1 \(Debian\)/);
  });

  await t.test('the socket is /run/vpnd/vpnd.sock, and VPND_SOCKET overrides it on both sides', async () => {
    const { router } = stage.lab;
    const state = await mkdtemp(join(router.directory, 'state-'));
    const script = `import { vpn } from 'vpn-manager'; await vpn.createVpnConnection({}).destroy(); console.log('served');`;
    const file = join(state, 'app.mjs');
    writeFileSync(file, script.replace("'vpn-manager'", `'${router.path('dist/src/vpn/index.js')}'`));
    for (const env of [{}, { VPND_SOCKET: join(state, 'other.sock') }] as Record<string, string>[]) {
      const vpnd = router.spawnNode('dist/src/service/vpnd.js', ['--state-dir', state], { env });
      const [, socket] = await vpnd.waitFor(/ ready socket=(\S+)/, 60_000);
      assert.equal(socket, env.VPND_SOCKET ?? '/run/vpnd/vpnd.sock');
      assert.equal((await router.node(file, [], { env })).stdout, 'served\n');
      assert.equal((await vpnd.kill('SIGTERM')).status, 0);
    }
  });

  await t.test('READY=1 goes to NOTIFY_SOCKET, when the socket accepts and not before', async () => {
    const { server } = stage.lab;
    const directory = await mkdtemp(join(server.directory, 'notify-'));
    const notify = notifySocket(join(directory, 'notify.sock'));
    const socket = join(directory, 'vpnd.sock');
    const env = { NOTIFY_SOCKET: join(directory, 'notify.sock'), VPND_SOCKET: socket };
    const vpnd = server.spawnNode('dist/src/service/vpnd.js', ['--state-dir', directory], { env });
    const messages: string[] = [];
    await until('a message', () => {
      const message = notify.next();
      if (message !== '') messages.push(message);
      return message !== '';
    });
    assert.deepEqual(messages, ['READY=1']);
    assert.equal(existsSync(socket), true);
    assert.equal((await server.node('dist/src/cli/vpnctl.js', ['status'], { env })).stdout, 'no VPN is up\n');
    await vpnd.kill('SIGTERM');
    assert.equal(notify.next(), 'STOPPING=1');
    notify.close();
  });

  await t.test('a signal during the start does not kill the service half way', async () => {
    const { server } = stage.lab;
    for (const signal of ['SIGTERM', 'SIGHUP'] as const) {
      const vpnd = await startVpnd(server);
      // The socket has accepted: the earliest moment at which anybody could know of the service.
      process.kill(vpnd.pid, signal);
      if (signal === 'SIGHUP') await until('the policy is loaded', () => vpnd.log().includes('policy-loaded'));
      assert.equal((await vpnd.stop()).status, 0);
    }
  });

  await t.test('vpnctl status shows what is up: to its owner and to root, and to nobody else', async () => {
    await app.setUp(CONFIG);
    const status = async (uid: number) => {
      const env = { VPND_SOCKET: stage.vpnd.socket };
      return (await stage.host.node('dist/src/cli/vpnctl.js', ['status'], { uid, env })).stdout;
    };
    for (const uid of [USERS.system, USERS.root])
      assert.match(await status(uid), /^vpn-tun0 {2}uid 2001 .* 10\.0\.0\.5\/24 /);
    for (const uid of [USERS.other, USERS.ordinary]) assert.equal(await status(uid), 'no VPN is up\n');
    await app.destroy();
  });

  await t.test('startService() runs the whole service in a Worker and gives socket, reload and close', async () => {
    const { router } = stage.lab;
    const directory = await mkdtemp(join(router.directory, 'worker-'));
    const file = join(directory, 'embedded.mjs');
    const policy = join(directory, 'policy.json');
    writeFileSync(policy, '{}');
    writeFileSync(
      file,
      `import { writeFileSync } from 'node:fs';
      import { startService } from '${router.path('dist/src/service/index.js')}';
      import { vpn } from '${router.path('dist/src/vpn/index.js')}';
      const options = { socket: '${directory}/vpnd.sock', stateDir: '${directory}', policy: '${policy}' };
      const service = await startService(options);
      console.log(service.socket === options.socket);
      process.env.VPND_SOCKET = service.socket;
      const connection = vpn.createVpnConnection({});
      console.log(typeof await connection.setUp({ addresses: [{ address: { address: '10.0.0.5' }, prefixLength: 24 }] }));
      await connection.destroy();
      writeFileSync('${policy}', '{ "disabled": true }');
      service.reload();
      let code;
      while (code !== 201) code = await connection.destroy().then(() => 0, (error) => error.code);
      console.log(code);
      await service.close();
      code = await connection.destroy().then(() => 0, (error) => error.code);
      console.log(code);`,
    );
    assert.equal((await router.node(file)).stdout, 'true\nnumber\n201\n2200002\n');
  });
});

/** Datagrams of sd_notify(3), one a call; '' when there is none yet. */
function notifySocket(path: string): { next(): string; close(): void } {
  const fd = libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const address = unixAddress(path);
  checked(libc.bind(fd, address, address.length), 'bind', path);
  const buffer = Buffer.alloc(256);
  return {
    next: () => buffer.toString('latin1', 0, Math.max(0, libc.recv(fd, buffer, buffer.length, 0))),
    close: () => void libc.close(fd),
  };
}

/**
 * What somebody on the same machine may do without breaking the service's rules, and must gain nothing by: addresses that
 * are others', descriptors whose close(2) waits, files and tables that are taken away.
 *
 *   app: vpnd ◄── raw connections of users 2001, 2002 and root, and of a stranger (4001)
 */
import assert from 'node:assert/strict';
import { unlinkSync } from 'node:fs';
import { test } from 'node:test';
import { libc } from '../../src/kernel/ffi.js';
import { canonicalState } from './lib/canonical-state.js';
import { requireRoot } from './lib/prerequisites.js';
import { inNamespaceOf } from './lib/raw-client.js';
import { stateBecomes } from './lib/settled-state.js';
import { CALLER, CONFIG, STRANGER, target } from './lib/unharmed.js';

const OTHER = { uid: 2002, gid: 2002 };
const INTERNET = '192.0.2.1';
const AF_INET = 2;
const MSG_DONTWAIT = 0x40;
const SOL_SOCKET = 1;
const SO_RCVBUF = 8;
const SO_LINGER = 13;

const config = (address: string, more = {}) => ({ addresses: [{ address: { address }, prefixLength: 32 }], ...more });

test("a user's vNIC takes nothing that is sent from an address of the host or of root's VPN", {
  timeout: 120_000,
}, async (t) => {
  if (!requireRoot(t)) return;
  const { app, connect, unharmed } = await target(t);
  await app.run('ip', ['addr', 'add', '192.168.50.2/32', 'dev', 'lo']);
  await app.run('ip', ['addr', 'add', 'fd50::2/128', 'dev', 'lo']);
  const [user, root] = [connect(CALLER), connect()];
  for (const client of [user, root]) await client.hello();

  for (const address of ['192.168.50.2', 'fd50::2']) {
    const addresses = [...CONFIG.addresses, { address: { address }, prefixLength: address.includes(':') ? 128 : 32 }];
    const { answer } = await user.setUp({ addresses });
    assert.deepEqual([answer.error?.code, answer.error?.data?.field], [2200001, 'config.addresses[1].address.address']);
  }
  const fds: (number | undefined)[] = [];
  for (const client of [user, root]) {
    const { answer, fd } = await client.setUp(config('10.8.0.2'));
    assert.ok(answer.result, JSON.stringify(answer));
    fds.push(fd);
  }
  const [way] = await app.json('ip', ['-j', 'route', 'get', INTERNET, 'from', '10.8.0.2', 'uid', '0']);
  assert.equal(way?.dev, 'vpn-tun1');
  for (const fd of fds) libc.close(fd ?? -1);
  for (const client of [user, root]) assert.ok((await client.call('destroy')).result);
  await app.run('ip', ['addr', 'flush', 'dev', 'lo', 'to', '192.168.50.2']);
  await app.run('ip', ['-6', 'addr', 'flush', 'dev', 'lo', 'to', 'fd50::2']);
  await unharmed();
});

test('a socket whose close waits for its peer keeps nobody waiting', { timeout: 120_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { app, vpnd, connect, unharmed } = await target(t);
  const lingering = inNamespaceOf(app, lingeringSocket);
  t.after(() => libc.close(lingering.peer));
  const stranger = connect(STRANGER);
  await stranger.hello();
  process.kill(vpnd.pid, 'SIGSTOP');
  try {
    await stranger.send('{"jsonrpc":"2.0","id":1,"method":"protect","fds":1,"params":{}}\n', [lingering.fd]);
    // The service's shall be the last.
    libc.close(lingering.fd);
  } finally {
    process.kill(vpnd.pid, 'SIGCONT');
  }
  const client = connect(CALLER);
  const first = await Promise.race([client.hello(), new Promise((resolve) => setTimeout(resolve, 20_000).unref())]);
  assert.ok(first, 'the service did not answer');
  await unharmed();
});

test('a firewall that flushes the rule set costs no VPN its end, nor the next its beginning', {
  timeout: 120_000,
}, async (t) => {
  if (!requireRoot(t)) return;
  const { app, connect, unharmed } = await target(t);
  const [user, other] = [connect(CALLER), connect(OTHER)];
  for (const client of [user, other]) await client.hello();
  const dns = { dnsAddresses: ['10.8.0.1'] };
  const fds = [(await user.setUp(config('10.8.0.2', dns))).fd];
  await app.run('nft', ['flush', 'ruleset']);
  const { answer, fd } = await other.setUp(config('10.8.0.3', dns));
  assert.ok(answer.result, JSON.stringify(answer));
  fds.push(fd);
  const { stdout } = await app.run('nft', ['list', 'map', 'inet', 'vpnd', 'dns_user']);
  assert.match(stdout, /2001 : goto/);
  assert.match(stdout, /2002 : goto/);
  await app.run('nft', ['flush', 'ruleset']);
  for (const client of [user, other]) assert.deepEqual((await client.call('destroy')).result, {});
  for (const each of fds) libc.close(each ?? -1);
  await unharmed();
});

test('without its socket file the service still ends every VPN on SIGTERM', { timeout: 120_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { app, vpnd, connect } = await target(t);
  const before = await canonicalState(app);
  const client = connect(CALLER);
  await client.hello();
  const { fd } = await client.setUp(CONFIG);
  unlinkSync(vpnd.socket);
  assert.equal((await vpnd.stop()).status, 0);
  libc.close(fd ?? -1);
  await stateBecomes(app, before);
});

/** A TCP socket with more to send than its peer takes, and 30 s to wait for it at the end. */
function lingeringSocket(): { fd: number; peer: number } {
  const listener = libc.socket(AF_INET, 1, 0);
  const small = Buffer.from([0, 8, 0, 0]);
  libc.setsockopt(listener, SOL_SOCKET, SO_RCVBUF, small, 4);
  libc.listen(listener, 1);
  const address = Buffer.alloc(16);
  const length = Buffer.from([16, 0, 0, 0]);
  assert.equal(libc.getsockname(listener, address, length), 0);
  address.set([127, 0, 0, 1], 4);
  const fd = libc.socket(AF_INET, 1, 0);
  assert.equal(libc.connect(fd, address, 16), 0);
  const peer = libc.accept4(listener, null, null, 0);
  libc.close(listener);
  const data = Buffer.alloc(65536);
  while (libc.send(fd, data, data.length, MSG_DONTWAIT) > 0);
  const linger = Buffer.alloc(8);
  linger.writeInt32LE(1, 0);
  linger.writeInt32LE(30, 4);
  assert.equal(libc.setsockopt(fd, SOL_SOCKET, SO_LINGER, linger, 8), 0);
  return { fd, peer };
}

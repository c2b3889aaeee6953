/**
 * The programs of examples/, run as their users would, on the standard topology (standard-lab.ts). tunnel-app.ts is run by
 * the demo. The tunnels have vpnd on both sides:
 *
 *   app                                          server
 *   uid 2001: 10.7.0.2, uid 2002: 10.7.0.3 ═════ root: 10.7.0.1     wireguard-client.ts, wireguard-server.ts
 *   root: 10.8.0.2 ═════════════════════════════ root: 10.8.0.1     own-protocol-end.ts
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chownSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { canonicalState } from './lib/canonical-state.js';
import { captureDepartures, kinds } from './lib/departures.js';
import type { Lab } from './lib/lab.js';
import { startPeer } from './lib/peers.js';
import { requireRoot } from './lib/prerequisites.js';
import { ADDRESSES, standardLab } from './lib/standard-lab.js';
import { receiveTransfers, transfer } from './lib/transfer.js';
import { startApp } from './lib/vpn-app.js';
import { settledState } from './lib/vpn-lab.js';
import { startVpnd } from './lib/vpnd.js';
import { wireGuardKeys } from './lib/wireguard-go.js';

const UID = 2001;

/** Sends what no end with the key has sealed, and is long enough to be sealed. */
const STRAY = `
  const socket = require('node:dgram').createSocket('udp4');
  socket.send(Buffer.alloc(100), 4500, process.argv[1], () => socket.close());
`;

/** As `vpnctl wg genkey` leaves it, with umask 077. Returns its path, the same in every host. */
function keyFile({ directory }: Lab, name: string, key: string, uid = 0): string {
  const path = join(directory, name);
  writeFileSync(path, `${key}\n`, { mode: 0o600 });
  chownSync(path, uid, uid);
  return path;
}

test('examples/up.ts shows packets until Ctrl-C; examples/protect.ts gets past its VPN', {
  timeout: 180_000,
}, async (t) => {
  if (!requireRoot(t)) return;
  const { lab, app, server } = await standardLab();
  t.after(() => lab.close());
  await startPeer(server, { kind: 'whoami', name: 'server', port: 7 });
  const vpnd = await startVpnd(app);
  const options = { uid: UID, env: { VPND_SOCKET: vpnd.socket } };

  const up = app.spawnNode('dist/examples/up.js', [], options);
  await up.waitFor(/^up, fd \d+/m);
  await app.run('ping', ['-c1', '-W1', ADDRESSES.server.ipv4], { uid: UID, check: false });
  await up.waitFor(/^84 bytes, IP version 4, protocol 1$/m);

  const { stdout } = await app.node('dist/examples/protect.js', [ADDRESSES.server.ipv4, '7'], options);
  assert.match(stdout, new RegExp(`^server ${ADDRESSES.app.ipv4} \\d+$`, 'm'));

  const ended = await up.kill('SIGINT');
  assert.equal(ended.status, 0, ended.stderr);
  assert.match(ended.stdout, /^down$/m);
});

test('examples/wireguard-server.ts has two peers with examples/wireguard-client.ts, two users of one machine', {
  timeout: 180_000,
}, async (t) => {
  if (!requireRoot(t)) return;
  const { lab, app, server } = await standardLab();
  t.after(() => lab.close());
  const [near, far] = await Promise.all([startVpnd(app), startVpnd(server)]);
  const before = await Promise.all([app, server].map(canonicalState));
  const keys = wireGuardKeys();
  const users = [UID, 2002].map((uid, index) => ({ uid, address: `10.7.0.${index + 2}`, keys: wireGuardKeys() }));

  const peers = users.map((user) => `${user.keys.publicKey},${user.address}/32`);
  const words = [keyFile(lab, 'server.key', keys.privateKey), '51820', '10.7.0.1/24', ...peers];
  const options = { env: { VPND_SOCKET: far.socket } };
  const serving = server.spawnNode('dist/examples/wireguard-server.js', words, options);
  await serving.waitFor(/^up, UDP port 51820, 2 peers$/m);
  await startPeer(server, { kind: 'whoami', name: 'inside', port: 7, address: '10.7.0.1' });

  const departures = await captureDepartures(app);
  const clients = users.map(({ uid, address, keys: own }) => {
    const file = keyFile(lab, `${uid}.key`, own.privateKey, uid);
    const arguments_ = [file, keys.publicKey, ADDRESSES.server.ipv4, '51820', `${address}/24`];
    return app.spawnNode('dist/examples/wireguard-client.js', arguments_, { uid, env: { VPND_SOCKET: near.socket } });
  });
  await Promise.all(clients.map((client) => client.waitFor(/^up, UDP port \d+$/m)));
  for (const { uid, address } of users) {
    await app.run('ping', ['-c2', '-i0.2', '-W20', '-s', '3000', '10.7.0.1'], { uid });
    const process = await startApp(app, uid);
    assert.deepEqual(await process.call('ask', { transport: 'tcp', address: '10.7.0.1' }), [`inside ${address}`]);
    const nowhere = await app.run('ping', ['-c1', '-W1', ADDRESSES.internet.ipv4], { uid, check: false });
    assert.notEqual(nowhere.status, 0, 'the server leads no further');
  }
  const tunnelled = `udp ${ADDRESSES.app.ipv4} > ${ADDRESSES.server.ipv4}:51820`;
  assert.deepEqual(kinds(await departures.stop()), [tunnelled]);

  for (const client of clients) {
    const { status, stdout, stderr } = await client.kill('SIGTERM');
    assert.deepEqual([status, stderr], [0, '']);
    assert.match(stdout, /^carried [1-9]\d* packets out, [1-9]\d* in$/m);
  }
  const ended = await serving.kill('SIGTERM');
  assert.deepEqual([ended.status, ended.stderr], [0, '']);
  for (const { keys: own } of users) {
    const [line = ''] = ended.stdout.split('\n').filter((each) => each.startsWith(own.publicKey));
    assert.match(line, new RegExp(`^\\S+ ${ADDRESSES.app.ipv4} port \\d+: [1-9]\\d* bytes in, [1-9]\\d* out$`));
  }
  for (const [index, host] of [app, server].entries()) await settledState(host, before[index] ?? '');
});

test('examples/own-protocol.ts carries a tunnel between two of examples/own-protocol-end.ts', {
  timeout: 180_000,
}, async (t) => {
  if (!requireRoot(t)) return;
  const { lab, app, router, server } = await standardLab();
  t.after(() => lab.close());
  const key = keyFile(lab, 'shared.key', randomBytes(32).toString('base64'));
  const start = async (host: typeof app, ...words: string[]) => {
    const options = { env: { VPND_SOCKET: (await startVpnd(host)).socket } };
    const end = host.spawnNode('dist/examples/own-protocol-end.js', [key, ...words], options);
    await end.waitFor(/^up, UDP port \d+$/m);
    return end;
  };
  const waiting = await start(server, '4500', '10.8.0.1/32', '10.8.0.2/32');
  const calling = await start(app, '0', '10.8.0.2/32', '10.8.0.1/32', ADDRESSES.server.ipv4, '4500');

  const departures = await captureDepartures(app);
  await router.node('-e', [STRAY, ADDRESSES.server.ipv4]);
  await app.run('ping', ['-c2', '-i0.2', '-W20', '-s', '3000', '10.8.0.1']);
  await receiveTransfers(server, '10.8.0.1');
  await transfer(app, '10.8.0.1', 5_000_000);
  const tunnelled = `udp ${ADDRESSES.app.ipv4} > ${ADDRESSES.server.ipv4}:4500`;
  assert.deepEqual(kinds(await departures.stop()), [tunnelled]);

  const [called, waited] = [await calling.kill('SIGTERM'), await waiting.kill('SIGTERM')];
  assert.deepEqual([called.status, called.stderr, waited.status, waited.stderr], [0, '', 0, '']);
  assert.match(called.stdout, /, 0 rejected$/m);
  assert.match(waited.stdout, /, 1 rejected$/m);
  assert.match(called.stdout, /^segments: of TCP true/m);
  const [, packets, reads] = /^(\d+) packets out by (\d+) reads/m.exec(called.stdout) ?? [];
  // One by one they would be as many; the slower the way, the fewer TCP puts together.
  assert.ok(Number(packets) > 1.5 * Number(reads), called.stdout);
});

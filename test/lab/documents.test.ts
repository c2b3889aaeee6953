/**
 * The programs of README and docs, run word for word by an ordinary user, in a folder with the package in its node_modules.
 * documents.test.ts of the unit tests holds that there is no program without its name and its types.
 *
 *   app                                     server
 *   uid 2001: client.mjs 10.0.0.5 ════════ 203.0.113.7:8888, 10.0.0.1
 *   uid 2001: wireguard.mjs 10.7.0.2 ═════ wireguard-go 10.7.0.1
 *   root: plain-end.mjs 10.8.0.2 ═════════ root: plain-end.mjs 10.8.0.1
 */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { PAGES, programs } from '../unit/docs/lib/pages.js';
import { canonicalState } from './lib/canonical-state.js';
import { REPOSITORY_IN_HOST } from './lib/host.js';
import { startTunnelPeer } from './lib/peers.js';
import { requireRoot } from './lib/prerequisites.js';
import { ADDRESSES, type StandardLab, standardLab } from './lib/standard-lab.js';
import { requirePeers } from './lib/unpacked-peers.js';
import { eventually, settledState } from './lib/vpn-lab.js';
import { startVpnd } from './lib/vpnd.js';
import { startWireGuardGo } from './lib/wireguard-go.js';

const UID = 2001;
const TIMEOUT = { timeout: 180_000 };

interface DocumentsLab extends StandardLab {
  /** The path of a page's program. */
  program(name: string): string;
  options: { uid: number; env: { VPND_SOCKET: string } };
}

async function documentsLab(t: TestContext): Promise<DocumentsLab> {
  const standard = await standardLab({ internet: ['203.0.113.7'] });
  t.after(() => standard.lab.close());
  const folder = join(standard.lab.directory, 'programs');
  mkdirSync(join(folder, 'node_modules'), { recursive: true });
  chmodSync(folder, 0o755);
  symlinkSync(REPOSITORY_IN_HOST, join(folder, 'node_modules/vpn-manager'));
  for (const { name, text } of PAGES.flatMap(programs)) writeFileSync(join(folder, name), text, { mode: 0o644 });
  const { socket } = await startVpnd(standard.app);
  return { ...standard, program: (name) => join(folder, name), options: { uid: UID, env: { VPND_SOCKET: socket } } };
}

test("README's client.mjs: packets to 203.0.113.7:8888 and back", TIMEOUT, async (t) => {
  if (!requireRoot(t)) return;
  const { app, server, program, options } = await documentsLab(t);
  await startTunnelPeer(server, { port: 8888, device: 'tun0', addresses: ['10.0.0.1/24'] });
  const client = app.spawnNode(program('client.mjs'), [], options);
  // The program says nothing when it is up.
  await eventually('an answer through the tunnel', async () => {
    const { status } = await app.run('ping', ['-c1', '-W1', '10.0.0.1'], { uid: UID, check: false });
    return status === 0 || undefined;
  });
  const { stderr } = await client.kill('SIGTERM');
  assert.equal(stderr, '');
});

test('docs/tunnel.md: pong.mjs answers ping, until Ctrl-C', TIMEOUT, async (t) => {
  if (!requireRoot(t)) return;
  const { app, program, options } = await documentsLab(t);
  const before = await canonicalState(app);
  const pong = app.spawnNode(program('pong.mjs'), [], options);
  await pong.waitFor(/^up/m);
  for (const size of ['0', '56', '1001']) {
    await app.run('ping', ['-c1', '-W1', '-w20', '-s', size, '198.18.7.9'], { uid: UID });
  }
  const { status, stderr } = await pong.kill('SIGINT');
  assert.deepEqual([status, stderr], [0, '']);
  await settledState(app, before);
});

test('docs/tunnel.md: wireguard.mjs is a peer of wireguard-go', TIMEOUT, async (t) => {
  if (!requirePeers(t)) return;
  const { app, server, program, options } = await documentsLab(t);
  const before = await canonicalState(app);
  const far = await startWireGuardGo(server, 'wg0', { listenPort: 51820, addresses: ['10.7.0.1/24'] });
  const words = [far.publicKey, ADDRESSES.server.ipv4, '51820'];
  const own = app.spawnNode(program('wireguard.mjs'), words, options);
  const [, publicKey = ''] = await own.waitFor(/^the peer needs our key: (\S+)$/m);
  await own.waitFor(/^up, UDP port \d+$/m);
  await far.addPeers({ publicKey, allowedIps: ['10.7.0.2/32'] });
  await app.run('ping', ['-c1', '-W1', '-w20', '-i0.2', '10.7.0.1'], { uid: UID });
  const { status, stderr } = await own.kill('SIGINT');
  assert.deepEqual([status, stderr], [0, '']);
  await settledState(app, before);
});

test('docs/tunnel.md: plain-end.mjs on both sides', TIMEOUT, async (t) => {
  if (!requireRoot(t)) return;
  const { app, server, program, options } = await documentsLab(t);
  const far = await startVpnd(server);
  const ends = [
    app.spawnNode(program('plain-end.mjs'), ['10.8.0.2', ADDRESSES.server.ipv4, '4500'], { env: options.env }),
    server.spawnNode(program('plain-end.mjs'), ['10.8.0.1', ADDRESSES.app.ipv4, '4500'], {
      env: { VPND_SOCKET: far.socket },
    }),
  ];
  await Promise.all(ends.map((end) => end.waitFor(/^up/m)));
  await app.run('ping', ['-c1', '-W1', '-w20', '-i0.2', '-s', '3000', '10.8.0.1']);
  for (const end of ends) {
    const { status, stderr } = await end.kill('SIGINT');
    assert.deepEqual([status, stderr], [0, '']);
  }
});

test('docs/service.md: embedded.mjs is a service until SIGTERM', TIMEOUT, async (t) => {
  if (!requireRoot(t)) return;
  const { server, program } = await documentsLab(t);
  const service = server.spawnNode(program('embedded.mjs'));
  const [, socket = ''] = await service.waitFor(/^listening at (\S+)$/m);
  const { stdout } = await server.node('dist/src/cli/vpnctl.js', ['status'], { env: { VPND_SOCKET: socket } });
  assert.equal(stdout, 'no VPN is up\n');
  process.kill(service.pid, 'SIGHUP');
  const { status, stderr } = await service.kill('SIGTERM');
  assert.deepEqual([status, stderr], [0, '']);
});

/**
 * The programs of examples/, run as their users would, on the standard topology (standard-lab.ts). tunnel-app.ts is run by
 * the demo.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startPeer } from './lib/peers.js';
import { requireRoot } from './lib/prerequisites.js';
import { ADDRESSES, standardLab } from './lib/standard-lab.js';
import { startVpnd } from './lib/vpnd.js';

const UID = 2001;

test('examples/up.ts shows packets until Ctrl-C; examples/protect.ts gets past its VPN', {
  timeout: 60_000,
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

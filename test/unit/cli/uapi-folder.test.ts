import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { startUapiServer } from '../../../src/cli/uapi-server.js';

const backend = {
  fwmark: 0,
  get: async () => ({ privateKey: undefined, listenPort: 1, fwmark: 0, peers: [] }),
  set: async () => {},
};

for (const [mode, isUsed, why] of [
  [0o700, true, 'its own'],
  [0o755, true, 'that others may look into'],
  [0o1770, true, 'of a group whose members cannot replace each other’s files'],
  [0o770, false, 'of a group whose members can put their socket in the place of its own'],
  [0o777, false, 'of everybody'],
  [0o1777, false, 'of everybody, with the sticky bit'],
] as const) {
  test(`startUapiServer() ${isUsed ? 'uses' : 'does not use'} a shared folder ${why}`, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'uapi-'));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const [own, shared] = [join(folder, 'own'), join(folder, 'shared')];
    for (const each of [own, shared]) mkdirSync(each, { mode: 0o700 });
    chmodSync(shared, mode);
    const server = await startUapiServer('vpn-tun0', own, backend, shared);
    server.close();
    assert.equal(dirname(server.path), isUsed ? shared : own);
  });
}

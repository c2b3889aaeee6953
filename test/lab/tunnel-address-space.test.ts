/** A tunnel in a process that may have little address space (RLIMIT_AS, `LimitAS=` of systemd): one host, one TUN. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Lab } from './lib/lab.js';
import { requireRoot } from './lib/prerequisites.js';
import { encodeBytes, type TunnelEndRequest } from './lib/tunnel-end-protocol.js';
import { wireGuardKeys } from './lib/wireguard-go.js';

/** Node takes some 1.2 GiB; a WebAssembly.Memory of any size 8 GiB more. */
const LIMIT_KIB = 4 << 20;

test('a tunnel starts, and says how it is, where address space is limited', async (t) => {
  if (!requireRoot(t)) return;
  const lab = await Lab.create();
  t.after(() => lab.close());
  const host = await lab.host('host');
  const limited = `ulimit -v ${LIMIT_KIB} && exec /run/node ${host.path('dist/test/lab/lib/tunnel-end.js')}`;
  const end = host.spawn('sh', ['-c', limited]);
  let number = 0;
  const ask = async (request: TunnelEndRequest) => {
    end.write(`${encodeBytes({ number: ++number, ...request })}\n`);
    const [line] = await end.waitFor(new RegExp(`^\\{"number":${number}\\b.*$`, 'm'));
    return JSON.parse(line) as { value?: Record<string, unknown>; error?: string };
  };
  assert.equal((await ask({ command: 'open', name: 'wg0', port: 0, offload: true })).error, undefined);
  const privateKey = new Uint8Array(Buffer.from(wireGuardKeys().privateKey, 'base64'));
  assert.equal((await ask({ command: 'start', mtu: 1420, change: { privateKey } })).error, undefined);
  assert.equal((await ask({ command: 'status' })).value?.cipher, 'node');
  await ask({ command: 'close' });
});

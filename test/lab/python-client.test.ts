/**
 * The protocol as a stranger would implement it: python/client.py, written from docs/protocol.md, as user 2001.
 *
 *   app 192.0.2.2 ── router ── server 198.51.100.2, 203.0.113.10 (says who asked)
 *   app: vpnd ◄── client.py: hello, protect, setUp, status, a read from the TUN, destroy
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { canonicalState, diffState } from './lib/canonical-state.js';
import { startPeer } from './lib/peers.js';
import { requireRoot } from './lib/prerequisites.js';
import { pythonFor } from './lib/python.js';
import { tunnelsOf } from './lib/settled-state.js';
import { ADDRESSES, standardLab } from './lib/standard-lab.js';
import { startVpnd } from './lib/vpnd.js';

const UID = 2001;
const FAR = ADDRESSES.internet.ipv4;

interface Link {
  mtu: number;
  flags: string[];
  addr_info: { local: string; prefixlen: number }[];
}

test('a client in Python sets up, protects, reads and destroys', { timeout: 180_000 }, (t) => runClient(t, false));

test('a client in Python asks for a TUN with offload, and has it', { timeout: 180_000 }, (t) => runClient(t, true));

async function runClient(t: TestContext, offload: boolean): Promise<void> {
  if (!requireRoot(t)) return;
  const { lab, app, server } = await standardLab();
  t.after(() => lab.close());
  const python = await pythonFor(app, UID);
  if (python === undefined) return t.skip(`uid ${UID} can run no python3 (package python3)`);
  await startPeer(server, { kind: 'whoami', name: 'server', port: 7, address: FAR });
  const vpnd = await startVpnd(app);
  const before = await canonicalState(app);

  const script = app.path('test/lab/python/client.py');
  const client = app.spawn(python, [script, vpnd.socket, FAR, '7', ...(offload ? ['offload'] : [])], { uid: UID });
  await client.waitFor(/"status"/, 40_000);
  /** The line of its output that has the key. */
  const said = (key: string): Record<string, unknown> => {
    const lines = client.stdout.split('\n').filter((line) => line.endsWith('}'));
    const objects = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    return objects.find((object) => key in object) ?? {};
  };

  assert.deepEqual(await tunnelsOf(app), ['vpn-tun0']);
  const [link] = await app.json<Link[]>('ip', ['-j', 'address', 'show', 'dev', 'vpn-tun0']);
  assert.equal(link?.mtu, 1400);
  assert.ok(link?.flags.includes('UP'));
  assert.deepEqual(
    link?.addr_info.map(({ local, prefixlen }) => `${local}/${prefixlen}`),
    ['10.7.0.2/24'],
  );
  const rules = await app.json<{ uid_start?: number; uid_end?: number }[]>('ip', ['-j', 'rule', 'show']);
  assert.ok(rules.some(({ uid_start: start, uid_end: end }) => start === UID && end === UID));

  assert.deepEqual((said('hello').hello as { isSystem: boolean }).isSystem, true);
  assert.deepEqual(said('mark').mark, [0, 0x80000000]);
  assert.deepEqual(said('link'), { link: 'vpn-tun0', inheritable: false, blocking: true, offload });
  // Its protected socket leaves by the physical network although the user's VPN is up.
  assert.match(String(said('seen_as').seen_as), new RegExp(`^server ${ADDRESSES.app.ipv4.replaceAll('.', '\\.')} `));
  assert.equal(said('second').second, 2203002);
  const [status] = said('status').status as Record<string, unknown>[];
  assert.deepEqual(
    [status?.uid, status?.pid, status?.link, status?.addresses, status?.mtu, status?.offload],
    [UID, client.pid, 'vpn-tun0', ['10.7.0.2/24'], 1400, offload],
  );

  await app.run('ping', ['-c1', '-W1', '-s100', FAR], { uid: UID, check: false });
  await client.waitFor(/"packet"/, 40_000);
  // 20 bytes of IPv4 header, 8 of ICMP, 100 of data.
  assert.deepEqual(said('packet').packet, { source: '10.7.0.2', destination: FAR, length: 128 });

  client.write('\n');
  const { status: exit, stderr } = await client.exited;
  assert.equal(exit, 0, stderr);
  assert.deepEqual(said('vpns'), { vpns: [], events: ['up', 'down'] });
  assert.deepEqual(diffState(before, await canonicalState(app)), []);
}

/**
 * The MTU of routes as the kernel knows them, and what it says where there is none. Asked by an ordinary user, without a VPN.
 *
 *   app 192.0.2.1/24, 2001:db8::1/64 ── eth0, MTU 1400 ── far 192.0.2.2, 2001:db8::2
 *   routes of app through eth0: 198.51.100.0/24 (mtu 1300), 2001:db8:1::/64 (mtu 1290)
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Lab } from './lib/lab.js';
import { requireRoot } from './lib/prerequisites.js';

const PROGRAM = `
  import { BroadcastError, routeMtu } from '/run/repo/dist/src/tunnel/path-mtu.js';
  const scopeId = Number(process.argv[1]);
  const answers = {};
  for (const address of process.argv.slice(2)) {
    const question = address.startsWith('fe80') ? { scopeId } : {};
    const told = (error) => (error instanceof BroadcastError ? 'broadcast' : (error.errnoName ?? String(error)));
    answers[address] = await routeMtu(address, question).catch(told);
  }
  console.log(JSON.stringify(answers));
`;

test('routeMtu() knows the MTU of links and routes, and names what is wrong where there is no route', {
  timeout: 60_000,
}, async (t) => {
  if (!requireRoot(t)) return;
  const lab = await Lab.create();
  t.after(() => lab.close());
  const [app, far] = [await lab.host('app'), await lab.host('far')];
  await lab.link(app, 'eth0', ['192.0.2.1/24', '2001:db8::1/64'], far, 'eth0', ['192.0.2.2/24', '2001:db8::2/64']);
  await app.ip('link set eth0 mtu 1400');
  await app.ip('route add 198.51.100.0/24 via 192.0.2.2 mtu 1300');
  await app.ip('route add 2001:db8:1::/64 via 2001:db8::2 mtu 1290');
  await app.ip('route add unreachable 198.51.101.0/24');
  await app.ip('route add prohibit 198.51.102.0/24');
  await app.ip('route add blackhole 198.51.103.0/24');
  await app.ip('route add unreachable 2001:db8:2::/64');
  const [{ ifindex }] = (await app.json('ip', ['-j', 'link', 'show', 'eth0'])) as [{ ifindex: number }];

  const expected = {
    '192.0.2.2': 1400,
    '2001:db8::2': 1400,
    '198.51.100.7': 1300,
    '2001:db8:1::7': 1290,
    'fe80::1234': 1400,
    '203.0.113.1': 'ENETUNREACH',
    '2001:db8:ffff::1': 'ENETUNREACH',
    '198.51.101.1': 'EHOSTUNREACH',
    '198.51.102.1': 'EACCES',
    '192.0.2.255': 'broadcast',
    '198.51.103.1': 'EINVAL',
    '2001:db8:2::1': 'EHOSTUNREACH',
  };
  const user = [
    '--reuid=2001',
    '--regid=2001',
    '--clear-groups',
    '--',
    '/run/node',
    '--input-type=module',
    '-e',
    PROGRAM,
  ];
  const { stdout } = await app.run('setpriv', [...user, String(ifindex), ...Object.keys(expected)]);
  assert.deepEqual(JSON.parse(stdout), expected);
});

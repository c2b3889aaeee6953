/**
 * The service hears what others do to its state, and nothing else:
 *
 *   app: host-watcher (vpn-tun0, rules, tables, nft)         router
 *        `ip`, `nft`, `sysctl` as a stranger
 *   eth0 192.168.50.2/24 fd50::2/64 ──────────────────────── eth0 192.168.50.1/24 fd50::1/64
 *
 * That nothing was heard is known from a marker: a stranger's rule of ours that was made after it.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PRIORITY, TABLE } from './lib/host-watcher.js';
import { requireRoot } from './lib/prerequisites.js';
import { eventually } from './lib/vpn-lab.js';
import { type Watcher, watched } from './lib/watcher.js';

/** How often links were said to have changed, when no more of it comes: on a busy machine the kernel's own word is late. */
async function settledLinks(watcher: Watcher): Promise<number> {
  let [last, now] = [-1, await watcher.links()];
  while (now !== last) [last, now] = [now, await watcher.links()];
  return now;
}

for (const where of ['a process of its own', 'worker', 'pid-namespace']) {
  test(`own changes are no news, a stranger's are (${where})`, { timeout: 300_000 }, async (t) => {
    if (!requireRoot(t)) return;
    const { app, watcher } = await watched(t, where);
    const links = await settledLinks(watcher);
    await watcher.tell('raise');
    await watcher.tell('nft');
    assert.deepEqual(await watcher.foreign(), []);
    await watcher.tell('lower');
    assert.deepEqual(await watcher.foreign(), []);
    await watcher.tell('raise');
    assert.equal(await watcher.links(), links, 'a vNIC is no link that came or went');

    await app.run('nft', ['flush', 'ruleset']);
    assert.deepEqual(await watcher.foreign(), ['nft table vpnd']);
    await watcher.tell('nft');
    assert.deepEqual(await watcher.foreign(), []);
  });
}

test("a stranger's change to anything of ours is told by its name", { timeout: 300_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { app, watcher } = await watched(t);
  await watcher.tell('raise');
  assert.deepEqual(await watcher.foreign(), []);
  const tampered: [command: string, ...heard: string[]][] = [
    [`ip rule del pref ${PRIORITY}`, `rule ${PRIORITY}`],
    [`ip -6 rule del pref ${PRIORITY}`, `rule ${PRIORITY}`],
    [`ip rule add pref ${PRIORITY + 7} table main protocol kernel`, `rule ${PRIORITY + 7}`],
    [`ip route flush table ${TABLE}`, `routes of table ${TABLE}`],
    [`ip -6 route flush table ${TABLE}`, `routes of table ${TABLE}`],
    ['ip route flush table 65000', 'routes of table 65000'],
    ['ip -6 route flush table 65000', 'routes of table 65000'],
    ['nft add rule inet vpnd lock drop', 'nft table vpnd'],
    ['nft flush chain inet vpnd lock', 'nft table vpnd'],
    ['nft delete table inet vpnd', 'nft table vpnd'],
    ['nft add table netdev vpnd', 'nft table vpnd'],
    ['ip link set vpn-tun0 mtu 1400', 'link of vpn-tun0'],
    ['ip addr del 10.8.0.2/32 dev vpn-tun0', 'address of vpn-tun0'],
    ['ip -6 addr del fd08::2/128 dev vpn-tun0', 'address of vpn-tun0'],
    ['ip link set vpn-tun0 group 0', 'link of vpn-tun0'],
    ['ip link set vpn-tun0 down', 'link of vpn-tun0'],
    ['ip link set vpn-tun0 name harmless', 'link of vpn-tun0'],
    ['ip link del harmless', 'link of vpn-tun0'],
  ];
  for (const [command, ...heard] of tampered) {
    await app.run('sh', ['-c', command]);
    assert.deepEqual(await watcher.foreign(), heard, command);
  }
});

test('a vNIC that goes down and up again at once has lost its routes, and is told', { timeout: 300_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { app, watcher } = await watched(t);
  await watcher.tell('raise');
  await watcher.foreign();
  await app.ip('link set vpn-tun0 down', 'link set vpn-tun0 up');
  const heard = await watcher.foreign();
  assert.ok(heard.includes('link of vpn-tun0'), heard.join());
});

test('what others do elsewhere is not told', { timeout: 300_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { app, watcher } = await watched(t);
  await watcher.tell('raise');
  await watcher.foreign();
  await app.ip(
    'rule add pref 5000 table main protocol kernel',
    'rule add pref 31000 table main protocol kernel',
    'rule add pref 20000 table main protocol static',
    'route add unreachable 198.18.0.0/24 table 100',
    'route add unreachable 198.18.0.0/24 table 49999',
    'route add unreachable 198.18.0.0/24 table 65001',
    'link add veth8 type veth peer name veth9',
    'link del veth8',
    'link set eth0 down',
    'link set eth0 up',
  );
  await app.run('nft', [
    'add table inet vpn; add table inet vpnd2; add chain inet vpnd2 lock; delete table inet vpnd2',
  ]);
  assert.deepEqual(await watcher.foreign(), []);
});

test("what the kernel takes along with a link is no stranger's doing", { timeout: 300_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { app, watcher } = await watched(t);
  await watcher.tell('raise');
  await watcher.tell('lan private');
  assert.deepEqual(await watcher.foreign(), []);
  await app.ip('link set eth0 down');
  assert.deepEqual(await watcher.foreign(), []);
  const left = await app.json('ip', ['-j', '-6', 'route', 'show', 'table', '65000', 'dev', 'eth0']);
  assert.deepEqual(left, [], 'there was something to take along');
});

test('links that change are told once for many notifications', { timeout: 300_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { app, watcher } = await watched(t);
  let before = await settledLinks(watcher);
  const changes = [
    'ip -6 route add 2001:db8:9::/48 via fd50::1',
    'ip link set eth0 down',
    'ip link set eth0 up',
    'ip addr add 192.168.51.2/24 dev eth0',
    'ip addr del 192.168.51.2/24 dev eth0',
    'ip addr add 192.168.52.2/32 dev eth0 && ip addr del 192.168.52.2/32 dev eth0',
    'ip route add 198.18.0.0/24 via 192.168.50.1',
    'ip link add br0 type bridge',
    'ip link set br0 name br1',
    'ip link del br1',
    'sysctl -qw net.ipv4.conf.eth0.rp_filter=1',
    'sysctl -qw net.ipv4.conf.all.rp_filter=2',
  ];
  for (const command of changes) {
    await app.run('sh', ['-c', command]);
    await eventually(`${command} is told`, async () => (await watcher.links()) > before || undefined);
    // What the kernel does behind a command, some steps, may be far apart.
    const after = await settledLinks(watcher);
    assert.ok(after <= before + 6, `${command}: told ${after - before} times`);
    before = after;
  }
  await app.run('sysctl', ['-qw', 'net.ipv4.conf.eth0.log_martians=1']);
  await app.run('ip', ['addr', 'add', '192.168.53.2/32', 'dev', 'eth0', 'noprefixroute']);
  assert.equal(await watcher.links(), before);
});

test('10,000 routes in table main cost no restore, and no notification of ours', { timeout: 300_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { app, watcher } = await watched(t);
  await watcher.tell('raise');
  await watcher.foreign();
  const before = await settledLinks(watcher);
  const each = (word: string): string =>
    Array.from(
      { length: 10_000 },
      (_, index) => `route ${word} 100.${100 + (index >> 8)}.${index & 255}.0/24 via 192.168.50.1`,
    ).join('\n');
  await app.run('ip', ['-batch', '-'], { input: each('add'), timeoutMs: 60_000 });
  await app.run('ip', ['-batch', '-'], { input: each('del'), timeoutMs: 60_000 });
  assert.deepEqual(await watcher.foreign(), []);
  const told = (await settledLinks(watcher)) - before;
  assert.ok(told > 0 && told < 1000, `20,000 notifications were told ${told} times`);

  // Not read at all for a while: main's notifications are lost, ours are not.
  process.kill(watcher.pid, 'SIGSTOP');
  for (let round = 0; round < 3; round++) {
    await app.run('ip', ['-batch', '-'], { input: each('add'), timeoutMs: 60_000 });
    await app.run('ip', ['-batch', '-'], { input: each('del'), timeoutMs: 60_000 });
  }
  await app.run('ip', ['rule', 'del', 'pref', `${PRIORITY}`]);
  process.kill(watcher.pid, 'SIGCONT');
  assert.deepEqual(await watcher.foreign(), [`rule ${PRIORITY}`]);
});

test('lost notifications are told as such', { timeout: 300_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { app, watcher } = await watched(t);
  await watcher.tell('raise');
  await watcher.foreign();
  const flood = (word: string): string =>
    Array.from(
      { length: 20_000 },
      (_, index) => `route ${word} unreachable 101.${index >> 8}.${index & 255}.0/24 table 50009`,
    ).join('\n');
  process.kill(watcher.pid, 'SIGSTOP');
  await app.run('ip', ['-batch', '-'], { input: flood('add'), timeoutMs: 60_000 });
  await app.run('ip', ['-batch', '-'], { input: flood('del'), timeoutMs: 60_000 });
  await app.run('ip', ['rule', 'del', 'pref', `${PRIORITY}`]);
  process.kill(watcher.pid, 'SIGCONT');
  await watcher.hears('notifications');
  // From then on nothing is missed.
  await watcher.foreign();
  await app.run('ip', ['rule', 'add', 'pref', `${PRIORITY}`, 'table', 'main', 'protocol', 'kernel']);
  assert.deepEqual(await watcher.foreign(), [`rule ${PRIORITY}`]);
});

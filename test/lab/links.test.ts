/**
 * What is read of links and routes, which of them are copied for the LAN, and which sysctls are raised, against a kernel:
 *
 *   app: host-watcher                                        router
 *   eth0 192.168.50.2/24 fd50::2/64 ──────────────────────── eth0 192.168.50.1/24 fd50::1/64
 *   eth1 198.18.1.1/24 172.20.0.1/16     (veth, other end beside it)
 *   br0  10.77.0.1/24                    (bridge with a veth, of containers)
 *   vpn-tun0 10.8.0.2/32
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LabHost } from './lib/host.js';
import { requireRoot } from './lib/prerequisites.js';
import { watched } from './lib/watcher.js';

async function addLinks(app: LabHost): Promise<void> {
  await app.ip(
    'route add default via 192.168.50.1',
    'route add ::/0 via fd50::1',
    'link add eth1 type veth peer name far1',
    'link add br0 type bridge',
    'link add vethc type veth peer name farc',
    'link set vethc master br0',
    'link set vethc up',
    'link set farc up',
    'link set far1 up',
  );
  await app.configure('eth1', ['198.18.1.1/24', '172.20.0.1/16']);
  await app.configure('br0', ['10.77.0.1/24']);
  await app.linkIsUp('eth1');
  await app.linkIsUp('br0');
  // Each brings a route of its own that is copied, a moment later.
  for (const link of ['far1', 'farc', 'vethc']) await app.linkIsUp(link);
}

/** "172.20.0.0/16 eth1 172.20.0.1", sorted; what `ip` shows of the LAN table. */
async function lanTable(app: LabHost): Promise<string[]> {
  const lists = await Promise.all(
    ['-4', '-6'].map((family) =>
      app.json<{ dst: string; dev: string; prefsrc?: string }[]>('ip', [
        '-j',
        family,
        'route',
        'show',
        'table',
        '65000',
      ]),
    ),
  );
  return lists
    .flat()
    .map(({ dst, dev, prefsrc }) => [dst, dev, ...(prefsrc === undefined ? [] : [prefsrc])].join(' '))
    .sort();
}

test('links and routes are read as they are', { timeout: 120_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { app, watcher } = await watched(t);
  await addLinks(app);
  await watcher.tell('raise');
  const { facts } = await watcher.tell('facts');
  assert.ok(facts);
  const links = facts.links.filter(({ name }) => /^(eth|br|vpn|lo)/.test(name));
  assert.deepEqual(links.map(({ name, kind, isOuter, isInnerBridge }) => [name, kind, isOuter, isInnerBridge]).sort(), [
    ['br0', 'bridge', false, true],
    ['eth0', 'veth', true, false],
    ['eth1', 'veth', false, false],
  ]);
  const onLink = facts.onLink.filter(({ destination }) => destination !== 'fe80::');
  assert.deepEqual(
    onLink
      .map(({ destination, prefixLength, link, source }) => `${destination}/${prefixLength} ${link.name} ${source}`)
      .sort(),
    [
      '10.77.0.0/24 br0 10.77.0.1',
      '172.20.0.0/16 eth1 172.20.0.1',
      '192.168.50.0/24 eth0 192.168.50.2',
      '198.18.1.0/24 eth1 198.18.1.1',
      'fd50::/64 eth0 undefined',
    ],
  );
});

test('the LAN table follows links and policy, and only what changed is touched', { timeout: 120_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { app, watcher } = await watched(t);
  await addLinks(app);
  const local = ['br0', 'eth0', 'eth1', 'far1', 'farc', 'vethc'].map((dev) => `fe80::/64 ${dev}`);
  const isLocal = (route: string): boolean => local.includes(route);
  const copies = [
    '10.77.0.0/24 br0 10.77.0.1',
    '172.20.0.0/16 eth1 172.20.0.1',
    '192.168.50.0/24 eth0 192.168.50.2',
    'fd50::/64 eth0',
  ];

  await watcher.tell('lan private');
  const table = await lanTable(app);
  assert.deepEqual(
    table.filter((route) => !isLocal(route)),
    copies,
  );
  assert.ok(table.includes('fe80::/64 eth0') && table.includes('fe80::/64 eth1'), table.join());
  const again = await watcher.tell('lan private');
  assert.deepEqual([again.added, again.removed], [0, 0], 'what the kernel has is recognised');

  // The kernel takes the copies along, of IPv4 without telling anybody.
  await app.ip('link set eth0 down');
  assert.deepEqual(
    (await lanTable(app)).filter((route) => route.includes('eth0')),
    [],
  );
  await app.ip('link set eth0 up', 'addr add fd50::2/64 dev eth0 nodad');
  await app.linkIsUp('eth0');
  const { added, removed } = await watcher.tell('lan private');
  assert.deepEqual([added, removed], [3, 0]);
  assert.deepEqual(
    (await lanTable(app)).filter((route) => !isLocal(route)),
    copies,
  );

  await app.ip('addr del 172.20.0.1/16 dev eth1', 'addr add 172.21.0.1/16 dev eth1');
  await watcher.tell('lan private');
  assert.ok((await lanTable(app)).includes('172.21.0.0/16 eth1 172.21.0.1'));
  assert.ok(!(await lanTable(app)).some((route) => route.startsWith('172.20.')));

  await watcher.tell('lan 198.18.1.128/25,192.168.0.0/16');
  assert.deepEqual(await lanTable(app), [
    '10.77.0.0/24 br0 10.77.0.1',
    '192.168.50.0/24 eth0 192.168.50.2',
    '198.18.1.128/25 eth1 198.18.1.1',
    'fe80::/64 br0',
  ]);
  await watcher.tell('lan off');
  assert.deepEqual(await lanTable(app), ['10.77.0.0/24 br0 10.77.0.1', 'fe80::/64 br0']);
});

test('src_valid_mark is raised where the filter is on, restored, and given back after a crash', {
  timeout: 120_000,
}, async (t) => {
  if (!requireRoot(t)) return;
  const { app, watcher, successor } = await watched(t);
  await addLinks(app);
  await app.sysctl('net.ipv4.conf.all.rp_filter=0', 'net.ipv4.conf.default.rp_filter=0');
  for (const link of ['eth0', 'eth1', 'br0', 'far1', 'farc', 'vethc'])
    await app.sysctl(`net.ipv4.conf.${link}.rp_filter=0`);
  await app.sysctl(
    'net.ipv4.conf.eth0.rp_filter=1',
    'net.ipv4.conf.br0.rp_filter=2',
    'net.ipv4.conf.br0.src_valid_mark=1',
  );
  const read = async (): Promise<string> => {
    const names = ['all', 'eth0', 'eth1', 'br0'].map((link) => `net.ipv4.conf.${link}.src_valid_mark`);
    return (await app.run('sysctl', ['-n', ...names])).stdout.trim().replaceAll('\n', ' ');
  };
  await watcher.tell('strict on');
  assert.equal(await read(), '0 1 0 1');
  await app.sysctl('net.ipv4.conf.eth0.src_valid_mark=0');
  await watcher.hears('src_valid_mark of link "eth0"');
  assert.equal((await watcher.tell('strict on')).raised, true);
  assert.equal(await read(), '0 1 0 1');
  await watcher.tell('strict off');
  assert.equal(await read(), '0 0 0 1');

  await watcher.tell('strict on');
  // A link by another name is still the same.
  await app.ip('link set eth0 down', 'link set eth0 name lan0.1', 'link set lan0.1 up');
  await watcher.kill9();
  const next = await successor();
  assert.equal((await next.tell('strict sweep')).swept, 1);
  const { stdout } = await app.run('cat', ['/proc/sys/net/ipv4/conf/lan0.1/src_valid_mark']);
  assert.equal(stdout.trim(), '0');
  assert.equal((await next.tell('strict sweep')).swept, 0);
});

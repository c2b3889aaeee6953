/**
 * What becomes of names when a server of the VPN's dies, or the machine's resolver, or when the local network wants them. lib/dns-lab.ts has the picture; root's VPN leads to exit2, user 2001's to exit1.
 *
 *   getent ── /etc/resolv.conf ── systemd-resolved ✝ ── vpn-tunB ═══ exit2 10.10.0.21 ✝, 10.10.0.11
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BACK_ENDS, type DnsLab, dnsLab, dnsOf, MACHINE, serversOf } from './lib/dns-lab.js';
import { connect, type Exit } from './lib/exits.js';
import { resolvectl, startResolved } from './lib/resolvers.js';
import { route, type VpnApp, vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf } from './lib/vpn-lab.js';

/** Nobody has this address. */
const deadServer = ({ ipv4 }: Exit) => ipv4.replace(/1$/, '21');
const NAMES = ['n1', 'n2', 'n3'];
const linkOf = async ({ app }: DnsLab) => {
  const addresses = await app.json<{ ifname: string; addr_info: { local: string }[] }[]>('ip', ['-j', 'address']);
  return addresses.find(({ addr_info }) => addr_info.some(({ local }) => local === '10.10.0.2'))?.ifname ?? '';
};

for (const backEnd of BACK_ENDS) {
  test(`${backEnd}: with the first of two servers dead every name is still answered by the VPN's`, {
    timeout: 300_000,
  }, async (t) => {
    const lab = await dnsLab(t, backEnd);
    if (!lab) return;
    for (const [owner, exit] of [
      [2001, exitOf(lab, 1)],
      [0, exitOf(lab, 2)],
    ] as const) {
      const config = vpnConfig(exit.vnic, { dnsAddresses: [deadServer(exit), ...serversOf(exit).slice(1, 2)] });
      await connect(await lab.process(owner), exit, config);
    }
    const users = [
      [2001, 'exit1'],
      [2002, 'exit2'],
    ] as const;
    // Of one VPN one after the other: its servers take turns.
    const askAll = ([uid, exit]: (typeof users)[number]) =>
      NAMES.reduce(async (before, label) => {
        await before;
        const name = `${label}.u${uid}.example.net`;
        assert.equal(await lab.lookUp({ uid, name, options: 'timeout:2 attempts:5' }), exit, name);
      }, Promise.resolve());
    const asked = await lab.asked(() => Promise.all(users.map(askAll)), lab.exits.map(deadServer));
    const [exit1, exit2] = users.map(([uid]) => NAMES.map((label) => `${label}.u${uid}.example.net`));
    assert.deepEqual(asked, { exit1, exit2, outside: [] });
  });
}

test('systemd-resolved: killed under a split VPN of root, every name is answered before, meanwhile and after', {
  timeout: 300_000,
}, async (t) => {
  const lab = await dnsLab(t, 'systemd-resolved');
  if (!lab) return;
  const exit = exitOf(lab, 2);
  const root: VpnApp = await lab.process(0);
  const routes = [route('10.77.0.0/16'), route('fd77::/48')];
  await connect(root, exit, vpnConfig(exit.vnic, dnsOf(exit, { routes, searchDomains: ['corp.example'] })));
  const link = await linkOf(lab);
  // The default route is what it is told last; `yes` it is only when there are servers.
  const isTold = async () =>
    ((await resolvectl(lab.app, 'dns', link)).includes(serversOf(exit)[0] ?? '') &&
      (await resolvectl(lab.app, 'domain', link)).includes('~.') &&
      (await resolvectl(lab.app, 'default-route', link)).includes('yes')) ||
    undefined;
  await eventually('resolved is told', isTold);
  const everyName = async (phase: string, isThere: boolean) => {
    const { exit1, exit2, outside } = await lab.asked(async () => {
      for (const uid of [2002, 0]) {
        for (const options of ['timeout:10', 'timeout:10 use-vc']) {
          const way = `${options.includes('vc') ? 'tcp' : 'udp'}-${uid}-${phase}`;
          assert.equal(await lab.lookUp({ uid, name: `${way}.elsewhere.example`, options }), 'exit2', way);
          assert.equal(await lab.lookUp({ uid, name: `${way}.corp.example`, options }), 'exit2', way);
        }
      }
      if (isThere) await resolvectl(lab.app, 'query', `bus-${phase}.elsewhere.example`);
    });
    assert.deepEqual({ exit1, outside }, { exit1: [], outside: [] }, phase);
    assert.equal(exit2.length, isThere ? 9 : 8, phase);
  };
  await everyName('before', true);
  for (const round of [1, 2]) {
    await lab.resolved?.kill('SIGKILL');
    await everyName(`dead${round}`, false);
    await lab.app.run('rm', ['-rf', '/run/systemd/resolve/netif']);
    lab.resolved = await startResolved(lab.app);
    await eventually('resolved is told again', isTold);
    await everyName(`again${round}`, true);
  }
  await root.call('destroy');
  assert.equal(await lab.lookUp({ uid: 2002, name: 'end.example.net' }), 'machine');
});

test('systemd-resolved: a local network that claims a domain as its own gets none of its names', {
  timeout: 300_000,
}, async (t) => {
  const lab = await dnsLab(t, 'systemd-resolved');
  if (!lab) return;
  const exit = exitOf(lab, 2);
  await resolvectl(lab.app, 'dns', 'eth0', ...MACHINE);
  await resolvectl(lab.app, 'domain', 'eth0', '~example.net');
  await resolvectl(lab.app, 'default-route', 'eth0', 'yes');
  await connect(await lab.process(0), exit, vpnConfig(exit.vnic, dnsOf(exit)));
  const { outside } = await lab.asked(async () => {
    assert.equal(await lab.lookUp({ uid: 2002, name: 'claimed.example.net' }), 'exit2');
    // By the link that claims it, which is shut: no answer is right.
    await resolvectl(lab.app, 'query', 'claimed2.example.net').catch(() => {});
    await resolvectl(lab.app, 'query', '--interface=eth0', 'claimed3.example.net').catch(() => {});
  });
  assert.deepEqual(outside, []);
});

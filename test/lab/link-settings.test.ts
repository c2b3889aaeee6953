/**
 * A vNIC's settings are the service's, whatever the host has for new links and for all: names are found through every resolver
 * address with strict reverse path filters, the kernel's and firewalld's.
 *
 *   app                                       router                 server                    exit1
 *   uid 2001 ── vpn-tun0 ═══════════════════════════════════════════ UDP 51821 ═══════════════ 10.9.0.1, fd09::1 `exit1`
 *   lo 127.0.0.53, 127.0.0.1, ::1 `stub` ── eth0 ── 192.0.2.1,       203.0.113.10,
 *                                             2001:db8:1::1 `lan`    2001:db8:f::10 `server`
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { connect, startServers } from './lib/exits.js';
import type { LabHost } from './lib/host.js';
import { FIREWALLD } from './lib/neighbours.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { type VpnApp, vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf, type VpnLab, vpnLab } from './lib/vpn-lab.js';

const STUBS = ['127.0.0.53', '127.0.0.1', '::1'];
const LAN = ['192.0.2.1', '2001:db8:1::1'];
const RESOLVERS = [...STUBS, ...LAN, ADDRESSES.internet.ipv4, ADDRESSES.internet.ipv6];
const QUESTIONS = RESOLVERS.flatMap((address) => [
  { address, transport: 'dns-udp' as const },
  { address, transport: 'dns-udp' as const, unconnected: true },
  { address, transport: 'dns-tcp' as const },
]);
const EVERY_NAME = QUESTIONS.map(({ address, transport }) => `${address} ${transport} exit1`);

async function namesFound(app: VpnApp): Promise<string[]> {
  const answers = await app.call('ask', ...QUESTIONS);
  return answers.map((answer, index) => `${QUESTIONS[index]?.address} ${QUESTIONS[index]?.transport} ${answer}`);
}

async function namesLab(t: TestContext): Promise<VpnLab | undefined> {
  const callers = [0, 2001].map((uid) => ({
    match: { uid },
    system: true,
    permissions: ['ohos.permission.MANAGE_VPN'],
  }));
  // So that what is meant for the router has the address of the link that leads there.
  const lab = await vpnLab(t, { vpnd: { policy: { callers, lan: ['192.0.2.0/24', '2001:db8:1::/64'] } } });
  if (lab) await Promise.all([startServers(lab.app, 'stub', STUBS), startServers(lab.router, 'lan', LAN)]);
  return lab;
}

/** Both kinds of VPN, one after the other: as the user's own, and as one of those whom root's covers. */
async function everybodyFindsNames(lab: VpnLab, what: string): Promise<void> {
  const exit = exitOf(lab, 1);
  const asker = await lab.process(2001);
  for (const owner of [2001, 0]) {
    const app = await lab.process(owner);
    await connect(app, exit, vpnConfig(exit.vnic, { dnsAddresses: [exit.ipv4, exit.ipv6] }));
    assert.deepEqual(await namesFound(asker), EVERY_NAME, `${what}: VPN of ${owner}`);
    await app.call('destroy');
  }
}

/** What a host may have for every new link: harmful, or not what a VPN needs. */
const INHERITED = {
  rp_filter: 1,
  accept_redirects: 1,
  accept_source_route: 1,
  accept_local: 1,
  bc_forwarding: 1,
  disable_policy: 1,
  disable_xfrm: 1,
  ignore_routes_with_linkdown: 1,
  promote_secondaries: 0,
  send_redirects: 1,
  src_valid_mark: 0,
} as const;
const OURS = {
  rp_filter: '2',
  accept_redirects: '0',
  accept_source_route: '0',
  accept_local: '0',
  bc_forwarding: '0',
  disable_policy: '0',
  disable_xfrm: '0',
  ignore_routes_with_linkdown: '0',
  promote_secondaries: '1',
  send_redirects: '0',
  src_valid_mark: '1',
};

async function settings(app: LabHost, link: string, keys: readonly string[]): Promise<Record<string, string>> {
  const { stdout } = await app.run(
    'sysctl',
    keys.map((key) => `net.ipv4.conf.${link}.${key}`),
  );
  const entries = stdout
    .trim()
    .split('\n')
    .map((line) => line.split(' = ') as [string, string]);
  return Object.fromEntries(entries.map(([name, value]) => [name.split('.').at(-1) ?? '', value]));
}

for (const [all, fresh] of [
  [1, 0],
  [0, 1],
  [1, 1],
] as const) {
  test(`names are found with rp_filter=${all} of all links and ${fresh} of new ones`, {
    timeout: 240_000,
  }, async (t) => {
    const lab = await namesLab(t);
    if (!lab) return;
    await lab.app.sysctl(`net.ipv4.conf.all.rp_filter=${all}`, `net.ipv4.conf.default.rp_filter=${fresh}`);
    if (fresh === 1) await lab.app.sysctl('net.ipv4.conf.eth0.rp_filter=1');
    await everybodyFindsNames(lab, 'strict');
  });
}

test('names are found where the machine has no route to the name servers', { timeout: 240_000 }, async (t) => {
  const lab = await namesLab(t);
  if (!lab) return;
  await lab.app.ip('route del default', 'route add 198.51.100.0/24 via 192.0.2.1', 'route del ::/0 via 2001:db8:1::1');
  for (const filter of [0, 1, 2]) {
    await lab.app.sysctl(`net.ipv4.conf.all.rp_filter=${filter}`, `net.ipv4.conf.default.rp_filter=${filter}`);
    await everybodyFindsNames(lab, `rp_filter ${filter}`);
  }
});

test("names are found behind firewalld's reverse path filter", { timeout: 240_000 }, async (t) => {
  const lab = await namesLab(t);
  if (!lab) return;
  await lab.app.run('nft', ['-f', '-'], { input: FIREWALLD });
  await everybodyFindsNames(lab, 'firewalld');
});

test('a vNIC inherits nothing, and gets back what somebody else writes', { timeout: 240_000 }, async (t) => {
  const lab = await namesLab(t);
  if (!lab) return;
  const { app } = lab;
  const exit = exitOf(lab, 1);
  const keys = Object.keys(INHERITED);
  await app.sysctl(...Object.entries(INHERITED).map(([key, value]) => `net.ipv4.conf.default.${key}=${value}`));
  const owner = await lab.process(2001);
  for (const dnsAddresses of [[exit.ipv4, exit.ipv6], []]) {
    await connect(owner, exit, vpnConfig(exit.vnic, { dnsAddresses }));
    assert.deepEqual(await settings(app, 'vpn-tun0', keys), OURS);
    // As `sysctl --system` and udev do with a line for every link, and as a change of what new links have does.
    await app.sysctl('net.ipv4.conf.default.rp_filter=0', 'net.ipv4.conf.default.rp_filter=1');
    await app.sysctl(...Object.entries(INHERITED).map(([key, value]) => `net.ipv4.conf.vpn-tun0.${key}=${value}`));
    await eventually('our settings', async () => {
      const now = await settings(app, 'vpn-tun0', keys);
      return JSON.stringify(now) === JSON.stringify(OURS) || undefined;
    });
    await owner.call('destroy');
  }
});

/**
 * DNS servers that are not inside the VPN: on the local network, in an excluded prefix, or where the VPN has no route. Queries to every
 * resolver address are answered by them, leave to nobody else, and `leaks` names them.
 *
 *   app  lo 127.0.0.53, 127.0.0.1, ::1 `stub`         vpn-tunN ═══ exit1
 *        eth0 ── lanhost 192.168.50.9, fd50::9 `lanhost`
 *             ── router 192.168.50.1, fd50::1 `router` ── server 203.0.113.10, 2001:db8:f::10 `server`
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { RouteInfo, VpnConfig } from '../../src/model/vpn-types.js';
import { raise, VICTIMS } from './lib/attackers/victim.js';
import { canonicalState } from './lib/canonical-state.js';
import type { TestCgroup } from './lib/cgroup.js';
import { BACK_ENDS, dnsLab } from './lib/dns-lab.js';
import { startServers } from './lib/exits.js';
import type { LeakException } from './lib/leak-check.js';
import { POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import { resolvectl } from './lib/resolvers.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { AppError, route, vpnConfig } from './lib/vpn-app.js';
import { exitOf, settledState } from './lib/vpn-lab.js';

const TIMEOUT = { timeout: 240_000 };
const STUBS = ['127.0.0.53', '127.0.0.1', '::1'];
const { router, lanHost } = POLICY_ADDRESSES;
const { internet } = ADDRESSES;
/** On loopback, on the local network, far away, and in the tunnel. */
const RESOLVERS = [...STUBS, router.ipv4, router.ipv6, ADDRESSES.server.ipv4, ADDRESSES.server.ipv6, '10.9.0.1'];
const WHOLE = [route('0.0.0.0/0'), route('::/0')];

interface Case {
  where: string;
  servers: string[];
  side: string;
  way: string;
  routes: RouteInfo[];
}

const CASES: readonly Case[] = [
  {
    where: 'on the local network',
    servers: [lanHost.ipv4, lanHost.ipv6],
    side: 'lanhost',
    way: 'local network',
    routes: WHOLE,
  },
  {
    where: 'where the VPN has no route',
    servers: [internet.ipv4, internet.ipv6],
    side: 'server',
    way: 'no route',
    routes: [route('198.18.0.0/15'), route('2001:db8:e::/48')],
  },
  {
    where: 'in an excluded prefix',
    servers: [internet.ipv4, internet.ipv6],
    side: 'server',
    way: 'excluded',
    routes: [...WHOLE, ...['203.0.113.0/24', '2001:db8:f::/48'].map((each) => route(each, { isExcludedRoute: true }))],
  },
];

async function scene(t: TestContext, policy: object = {}): Promise<PolicyLab | undefined> {
  const callers = [0, 2001].map((uid) => ({
    match: { uid },
    system: true,
    permissions: ['ohos.permission.MANAGE_VPN'],
  }));
  const lab = await policyLab(t, { vpnd: { policy: { callers, ...policy } } });
  if (lab) await startServers(lab.app, 'stub', STUBS);
  return lab;
}

/** Who answers at each resolver's address: each once. */
async function answers(lab: PolicyLab, who: { uid: number; cgroup?: TestCgroup }): Promise<string[]> {
  const found: string[] = [];
  for (const target of RESOLVERS) {
    for (const how of [
      { protocol: 'dns-udp' },
      { protocol: 'dns-udp', unconnected: true },
      { protocol: 'dns-tcp' },
    ] as const) {
      const answer = await lab.probe({ ...who, target, timeoutMs: 5000, ...how });
      found.push(`${target} ${how.protocol} ${'side' in answer ? answer.side : answer.error}`);
    }
  }
  return found;
}

const all = (side: string) =>
  RESOLVERS.flatMap((target) => ['dns-udp', 'dns-udp', 'dns-tcp'].map((protocol) => `${target} ${protocol} ${side}`));
const dnsIn = (exceptions: readonly LeakException[]) =>
  exceptions.filter(({ kind }) => kind === 'dns').flatMap(({ destinations = [] }) => destinations);
const hostPrefix = (address: string) => `${address}/${address.includes(':') ? 128 : 32}`;

for (const victim of VICTIMS) {
  const uid = victim.covered.at(-1) ?? victim.owner;
  for (const { where, servers, side, way, routes } of CASES) {
    test(
      `${victim.whose}: a name server ${where} answers everybody it covers, and leaks names it`,
      TIMEOUT,
      async (t) => {
        const lab = await scene(t);
        if (!lab) return;
        // For the route to its far end, which stays.
        await (await raise(lab, victim)).app.call('destroy');
        for (const filter of [0, 1, 2]) {
          await lab.app.sysctl(`net.ipv4.conf.all.rp_filter=${filter}`);
          const before = await canonicalState(lab.app);
          const since = await lab.moment();
          const { app, facts, device } = await raise(lab, victim, { dnsAddresses: servers, routes });
          const inside = await lab.app.capture(device, ['port', '53']);
          assert.deepEqual(await answers(lab, { uid }), all(side), `rp_filter ${filter}`);
          assert.deepEqual(
            (await inside.stop()).map(({ destination }) => destination),
            [],
          );
          // What else is on that host is reached as before.
          if (side === 'lanhost') {
            const answer = await lab.probe({ uid, protocol: 'tcp', target: lanHost.ipv4, timeoutMs: 5000 });
            assert.equal('side' in answer && answer.side, 'lanhost');
          }
          const exceptions = await lab.exceptions();
          assert.deepEqual(dnsIn(exceptions), servers.map(hostPrefix));
          assert.ok(exceptions.some(({ kind, reason }) => kind === 'dns' && reason.includes(way)));
          assert.deepEqual(await lab.leaks(facts, exceptions, since), []);
          const departed = await lab.departed();
          assert.deepEqual(
            departed.filter(({ source }) => source.startsWith('127.') || source === '::1'),
            [],
          );
          await app.call('destroy');
          await settledState(lab.app, before);
        }
      },
    );
  }
}

test('servers of both kinds in one VPN are asked in turn, each by its way', TIMEOUT, async (t) => {
  const lab = await scene(t);
  if (!lab) return;
  const exit = exitOf(lab, 1);
  const since = await lab.moment();
  const { facts } = await raise(lab, VICTIMS[0] ?? assert.fail(), { dnsAddresses: [exit.ipv4, lanHost.ipv4] });
  for (const target of ['127.0.0.53', router.ipv4, ADDRESSES.server.ipv4]) {
    for (const protocol of ['dns-udp', 'dns-tcp'] as const) {
      const sides = new Set<string>();
      for (let count = 0; count < 8; count++) {
        const answer = await lab.probe({ uid: 2001, protocol, target, timeoutMs: 5000 });
        sides.add('side' in answer ? answer.side : answer.error);
      }
      assert.deepEqual([...sides].sort(), ['exit1', 'lanhost'], `${target} ${protocol}`);
    }
  }
  assert.deepEqual(await lab.leaks(facts, undefined, since), []);
});

test(
  'an application that a VPN covers asks such a server, and others of its user ask whom they want',
  TIMEOUT,
  async (t) => {
    const lab = await scene(t);
    if (!lab) return;
    const cgroup = lab.cgroup('app-browser.scope');
    const config = { dnsAddresses: [lanHost.ipv4, lanHost.ipv6], trustedApplications: [`cgroup:${cgroup.path}`] };
    await raise(lab, { owner: 2001, config: {} }, { routes: WHOLE, ...config });
    assert.deepEqual(await answers(lab, { uid: 2001, cgroup }), all('lanhost'));
    const other = await lab.probe({ uid: 2001, protocol: 'dns-udp', target: '127.0.0.53' });
    assert.deepEqual(other, { side: 'stub' });
  },
);

test('a network that comes later takes no name server out of the VPN', TIMEOUT, async (t) => {
  const lab = await scene(t);
  if (!lab) return;
  const { app } = lab;
  const since = await lab.moment();
  const inTunnel = '10.77.0.53';
  const exit = exitOf(lab, 1);
  await exit.host.configure('lo', [`${inTunnel}/32`]);
  await startServers(exit.host, 'exit1', [inTunnel]);
  const { facts } = await raise(lab, VICTIMS[0] ?? assert.fail(), { dnsAddresses: [inTunnel] });
  await lab.attacker.configure('eth0', [`${inTunnel}/16`]);
  await startServers(lab.attacker, 'attacker', [inTunnel]);
  await app.configure('eth0', ['10.77.0.2/16']);
  for (const target of ['127.0.0.53', inTunnel, router.ipv4]) {
    const answer = await lab.probe({ uid: 2001, protocol: 'dns-udp', target, timeoutMs: 5000 });
    assert.deepEqual(answer, { side: 'exit1' }, target);
  }
  assert.deepEqual(dnsIn(await lab.exceptions()), []);
  assert.deepEqual(await lab.leaks(facts, undefined, since), []);
});

for (const [what, policy, config, pattern] of [
  [
    'on the local network without local networks',
    { lan: 'off' },
    { dnsAddresses: [lanHost.ipv4] },
    /192\.168\.50\.9.*"lan"/,
  ],
  ['of IPv6 there', { lan: 'off' }, { dnsAddresses: [lanHost.ipv6] }, /fd50::9.*"lan"/],
  [
    'on the local network under lockdown',
    { lockdown: [2001] },
    { dnsAddresses: [lanHost.ipv4] },
    /192\.168\.50\.9.*lockdown/,
  ],
  [
    'without a route under everybody’s lockdown',
    { lockdown: [0] },
    { dnsAddresses: [internet.ipv4], routes: [route('198.18.0.0/15')] },
    /203\.0\.113\.10.*lockdown/,
  ],
] as const satisfies readonly [string, object, Omit<VpnConfig, 'addresses'>, RegExp][]) {
  test(`a name server ${what} is refused by its address, and one inside is not`, TIMEOUT, async (t) => {
    const lab = await scene(t, policy);
    if (!lab) return;
    const exit = exitOf(lab, 1);
    const before = await canonicalState(lab.app);
    for (const owner of [2001, 0]) {
      const app = await lab.process(owner);
      const refused = await app.call('setUp', vpnConfig(exit.vnic, config)).then(
        () => assert.fail('it was set up'),
        (error) => error,
      );
      assert.ok(refused instanceof AppError, String(refused));
      assert.equal(refused.code, 2200001, refused.message);
      assert.match(refused.message, pattern);
      await settledState(lab.app, before);
      const [server = ''] = config.dnsAddresses;
      await app.call(
        'setUp',
        vpnConfig(exit.vnic, { routes: [...WHOLE, route(hostPrefix(server))], dnsAddresses: [server] }),
      );
      await app.call('destroy');
      await settledState(lab.app, before);
    }
  });
}

for (const backEnd of BACK_ENDS) {
  test(`${backEnd}: the machine’s resolver reaches root’s name server on the local network`, TIMEOUT, async (t) => {
    const lab = await dnsLab(t, backEnd);
    if (!lab) return;
    await lab.app.sysctl('net.ipv4.conf.all.rp_filter=1');
    await raise(lab, VICTIMS[1] ?? assert.fail(), { dnsAddresses: [lanHost.ipv4, lanHost.ipv6], routes: WHOLE });
    for (const uid of [0, 2003]) {
      const answer = await lab.lookUp({ uid, name: `libc-${uid}.example.net` });
      assert.match(answer, /^192\.0\.2\.99/, `uid ${uid}`);
    }
    if (backEnd !== 'systemd-resolved') return;
    // By D-Bus: then it is the resolver that asks, from the vNIC to which it was told that the server belongs.
    assert.match(await resolvectl(lab.app, 'query', '-4', 'bus.example.net'), /192\.0\.2\.99/);
  });
}

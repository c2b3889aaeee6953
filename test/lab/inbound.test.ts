/**
 * What others asked of this host is answered on the way it came, whatever a VPN covers: sessions from before it and during it,
 * servers, pings, refusals; off-link and from the LAN, with reverse path filters off, strict and loose.
 *
 *   app :22 root, :8080 uid 2001 on its addresses, :8081 uid 2001 on all (policy udpServices)
 *     eth0 ─── router ── server   asks
 *       │  └── lanhost            asks
 *     vpn-tunN ════════════ exit1     is where everything else goes
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { VpnConfig } from '../../src/model/vpn-types.js';
import type { LabHost } from './lib/host.js';
import type { DepartedPacket } from './lib/leak-check.js';
import { FAMILIES, isInside, isLinkUpkeep, raise } from './lib/policy-facts.js';
import { isTunnelDatagram, POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import type { Prober } from './lib/prober.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { connect, startServers } from './lib/exits.js';
import { vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf } from './lib/vpn-lab.js';
import { startVpnd } from './lib/vpnd.js';
import { dirname } from 'node:path';

const { app: HOST } = POLICY_ADDRESSES;
const { internet } = ADDRESSES;
const SESSION = 22;
const BOUND = 8080;
const WILDCARD = 8081;
const CLOSED = 9999;
const TIMEOUT = { timeout: 300_000 };
const PATIENT = { timeoutMs: 20_000 };
const POLICY = {
  callers: [0, 2001].map((uid) => ({ match: { uid }, system: true, permissions: ['ohos.permission.MANAGE_VPN'] })),
  udpServices: [WILDCARD],
};

interface Variant {
  owner: number;
  rpFilter: 0 | 1 | 2;
  config?: Omit<VpnConfig, 'addresses'>;
  policy?: object;
  name: string;
}

const ONLY_IPV4 = { isIPv4Accepted: true, isIPv6Accepted: false };
const ONLY_IPV6 = { isIPv4Accepted: false, isIPv6Accepted: true };
const VARIANTS: Variant[] = [
  { owner: 0, rpFilter: 0, name: "root's VPN, rp_filter 0" },
  { owner: 0, rpFilter: 1, name: "root's VPN, rp_filter 1" },
  { owner: 0, rpFilter: 2, name: "root's VPN, rp_filter 2" },
  { owner: 0, rpFilter: 1, policy: { lan: 'off' }, name: "root's VPN, rp_filter 1, no local network" },
  { owner: 0, rpFilter: 0, config: ONLY_IPV4, name: "root's VPN without IPv6, rp_filter 0" },
  { owner: 0, rpFilter: 1, config: ONLY_IPV6, name: "root's VPN without IPv4, rp_filter 1" },
  { owner: 2001, rpFilter: 0, name: "a user's VPN, rp_filter 0" },
  { owner: 2001, rpFilter: 1, name: "a user's VPN, rp_filter 1" },
  { owner: 2001, rpFilter: 1, config: ONLY_IPV4, name: "a user's VPN without IPv6, rp_filter 1" },
  { owner: 2001, rpFilter: 0, config: ONLY_IPV6, name: "a user's VPN without IPv4, rp_filter 0" },
];

/** Before anything of ours: a link that is made later takes the default. */
async function setReversePathFilter({ app }: PolicyLab, value: number): Promise<void> {
  await app.sysctl(...['all', 'default', 'eth0', 'eth1'].map((link) => `net.ipv4.conf.${link}.rp_filter=${value}`));
}

interface Stranger {
  name: string;
  prober: Prober;
}

async function strangers(lab: PolicyLab): Promise<Stranger[]> {
  const hosts: [string, LabHost][] = [
    ['off-link', lab.server],
    ['on the LAN', lab.lanHost],
  ];
  return Promise.all(hosts.map(async ([name, host]) => ({ name, prober: await lab.stranger(host) })));
}

interface Session {
  name: string;
  prober: Prober;
  number: number;
}

/** To root's server and to uid 2001's, by both families. */
async function openSessions(list: readonly Stranger[], when: string): Promise<Session[]> {
  const made: Session[] = [];
  for (const { name, prober } of list) {
    for (const port of [SESSION, BOUND, WILDCARD]) {
      for (const family of FAMILIES) {
        const number = await prober.call('openSession', { target: HOST[family], port });
        made.push({ name: `${when}: ${name}, ${family}, port ${port}`, prober, number });
      }
    }
  }
  return made;
}

async function goOn(sessions: readonly Session[]): Promise<void> {
  await Promise.all(
    sessions.map(({ name, prober, number }) => assert.doesNotReject(prober.goesOn(number), name)),
  );
}

async function everythingIsAnswered(list: readonly Stranger[]): Promise<void> {
  for (const { name, prober } of list) {
    for (const family of FAMILIES) {
      const ask = (protocol: 'tcp' | 'udp' | 'icmp', port: number) =>
        prober.call('probe', { protocol, target: HOST[family], port, ...PATIENT });
      const what = `${name}, ${family}`;
      for (const [port, side] of [[BOUND, '2001'], [WILDCARD, 'of-2001']] as const) {
        for (const protocol of ['tcp', 'udp'] as const) {
          const answer = await ask(protocol, port);
          assert.equal('side' in answer ? answer.side : answer.error, side, `${what}, ${protocol} ${port}`);
        }
      }
      assert.deepEqual(await ask('icmp', 0), { side: 'kernel', source: '-' }, what);
      for (const protocol of ['tcp', 'udp'] as const) {
        assert.deepEqual(await ask(protocol, CLOSED), { error: 'ECONNREFUSED' }, `${what}, ${protocol}, closed port`);
      }
    }
  }
}

/** From where it was asked: a server's port, an echo reply, or that nobody has that port. */
function isInbound({ protocol, sourcePort = 0, icmpType = -1 }: DepartedPacket): boolean {
  if (protocol === 'icmp') return icmpType === 0 || icmpType === 3;
  if (protocol === 'icmpv6') return icmpType === 129 || icmpType === 1;
  return [SESSION, BOUND, WILDCARD, CLOSED].includes(sourcePort);
}

for (const { owner, rpFilter, config = {}, policy = {}, name } of VARIANTS) {
  test(`${name}: sessions live through it, and everything from outside is answered`, TIMEOUT, async (t) => {
    const lab = await policyLab(t, { vpnd: { policy: { ...POLICY, ...policy } } });
    if (!lab) return;
    await setReversePathFilter(lab, rpFilter);
    const user = await lab.prober({ uid: 2001 });
    await user.call('serve', 'of-2001', WILDCARD);
    await serveOnAddresses(lab);
    const list = await strangers(lab);
    const before = await openSessions(list, 'before');
    await goOn(before);

    const exit = exitOf(lab, 1);
    const accepted = { ipv4: config.isIPv4Accepted !== false, ipv6: config.isIPv6Accepted !== false };
    const addresses = exit.vnic.filter((address) => accepted[address.includes(':') ? 'ipv6' : 'ipv4']);
    const vpn = await lab.process(owner);
    await connect(vpn, exit, vpnConfig(addresses, config));
    const since = await lab.moment();
    await goOn(before);
    const during = await openSessions(list, 'during');
    await everythingIsAnswered(list);
    for (const family of FAMILIES) {
      const answer = await lab.probe({ uid: 2001, protocol: 'udp', target: internet[family], ...PATIENT });
      if (accepted[family]) assert.deepEqual(answer, { side: 'exit1', source: exit.client[family] });
      else assert.ok('error' in answer, family);
    }
    await goOn([...before, ...during]);
    const facts = { isUncovered: isLinkUpkeep, isProtected: isTunnelDatagram, isInbound };
    assert.deepEqual(await lab.leaks(facts, undefined, since), []);
    await vpn.call('destroy');
    await goOn([...before, ...during]);
    await everythingIsAnswered(list);
  });
}

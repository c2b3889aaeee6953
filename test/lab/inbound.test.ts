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
import { dirname } from 'node:path';
import { test } from 'node:test';
import type { VpnConfig } from '../../src/model/vpn-types.js';
import { connect } from './lib/exits.js';
import type { LabHost } from './lib/host.js';
import type { DepartedPacket } from './lib/leak-check.js';
import { FAMILIES, isInside, isLinkUpkeep, raise } from './lib/policy-facts.js';
import { isTunnelDatagram, POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import type { Prober } from './lib/prober.js';
import { startSocketProcess } from './lib/socket-process.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf } from './lib/vpn-lab.js';
import { startVpnd } from './lib/vpnd.js';

const { app: HOST } = POLICY_ADDRESSES;
const { internet } = ADDRESSES;
const SESSION = 22;
const BOUND = 8080;
const WILDCARD = 8081;
const UNASKED = 8082;
const CLOSED = 9999;
const TIMEOUT = { timeout: 300_000 };
const PATIENT = { timeoutMs: 20_000 };
const POLICY = {
  callers: [0, 2001].map((uid) => ({ match: { uid }, system: true, permissions: ['ohos.permission.MANAGE_VPN'] })),
  udpServices: [WILDCARD, UNASKED],
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

/** A server that binds its addresses one by one: uid 2001's, as one in a configuration file would be told to. */
async function serveOnAddresses({ app }: PolicyLab): Promise<void> {
  const servers = FAMILIES.map((family) => ({ kind: 'whoami', name: '2001', port: BOUND, address: HOST[family] }));
  const peer = app.spawnNode('dist/test/lab/lib/peer.js', [JSON.stringify(servers)], { uid: 2001 });
  await peer.waitFor(/^ready$/m);
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
  await Promise.all(sessions.map(({ name, prober, number }) => assert.doesNotReject(prober.goesOn(number), name)));
}

async function everythingIsAnswered(list: readonly Stranger[]): Promise<void> {
  for (const { name, prober } of list) {
    for (const family of FAMILIES) {
      const ask = (protocol: 'tcp' | 'udp' | 'icmp', port: number) =>
        prober.call('probe', { protocol, target: HOST[family], port, ...PATIENT });
      const what = `${name}, ${family}`;
      for (const [port, side] of [
        [BOUND, '2001'],
        [WILDCARD, 'of-2001'],
      ] as const) {
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
    // A client that takes a server's port is no server.
    const client = await startSocketProcess(lab.app, 2001);
    for (const [address, family] of [
      ['0.0.0.0', 'ipv4'],
      ['::', 'ipv6'],
    ] as const) {
      const fd = await client.call('open', { transport: 'udp', local: [address, UNASKED] });
      const ask = client.call('connect', fd, internet[family], 7).then(() => client.call('send', fd, 'unasked'));
      await ask.catch(() => {});
    }
    const facts = { isUncovered: isLinkUpkeep, isProtected: isTunnelDatagram, isInbound };
    assert.deepEqual(await lab.leaks(facts, undefined, since), []);
    await vpn.call('destroy');
    await goOn([...before, ...during]);
    await everythingIsAnswered(list);
  });
}

async function srcValidMark({ app }: PolicyLab): Promise<string> {
  const { stdout } = await app.run('sysctl', ['-n', 'net.ipv4.conf.eth0.src_valid_mark']);
  return stdout.trim();
}

test('src_valid_mark is raised for strict filters only, and given back only as it was left', TIMEOUT, async (t) => {
  const lab = await policyLab(t);
  if (!lab) return;
  const { app } = lab;
  const set = (value: number) => app.sysctl(`net.ipv4.conf.eth0.src_valid_mark=${value}`);
  const all = async () => (await app.run('sysctl', ['-n', 'net.ipv4.conf.all.src_valid_mark'])).stdout.trim();
  const during = async (work: () => Promise<void>): Promise<void> => {
    const vpn = await raise(lab, 0);
    await isInside(lab, 2001);
    await work();
    await vpn.call('destroy');
  };
  const is = async (value: string) => assert.equal(await srcValidMark(lab), value);

  await during(() => is('0'));
  await setReversePathFilter(lab, 1);
  await during(() => is('1'));
  await is('0');
  // Somebody else's before us: not ours to lower.
  await set(1);
  await during(() => is('1'));
  await is('1');
  await set(0);
  // Somebody lowers ours: it is needed, so it comes back; and is still ours.
  await during(async () => {
    await set(0);
    await eventually('it is raised again', async () => (await srcValidMark(lab)) === '1' || undefined);
  });
  await is('0');
  // Somebody sets it to a value of their own.
  await during(() => set(2));
  await is('2');
  await set(0);
  const vpn = await raise(lab, 0);
  await is('1');
  await lab.vpnd.kill9();
  await vpn.kill9();
  await is('1');
  await startVpnd(app, { directory: dirname(lab.vpnd.socket) });
  await eventually('it is given back', async () => (await srcValidMark(lab)) === '0' || undefined);
  assert.equal(await all(), '0');
});

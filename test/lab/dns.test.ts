/**
 * DNS of covered traffic goes to the VPN's servers, whatever resolver the host is set up with. Every server answers with its
 * own name:
 *
 *   app                                       router                 server                    exit1, exit2
 *   uid 2001 ── vpn-tun0 ═══════════════════════════════════════════ UDP 51821 ═══════════════ 10.9.0.1, fd09::1 `exit1`
 *   uid 2002 ── vpn-tun1 ═══════════════════════════════════════════ UDP 51822 ═══════════════ 10.10.0.1, fd0a::1 `exit2`
 *   lo 127.0.0.53, ::1 `stub` ── eth0 ─────── 192.0.2.1,             203.0.113.10,
 *                                             2001:db8:1::1 `lan`    2001:db8:f::10 `server`
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { captureDepartures, type Departures } from './lib/departures.js';
import { connect, type Exit, startServers } from './lib/exits.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { route, type VpnApp, vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf, type VpnLab, type VpnLabOptions, vpnLab } from './lib/vpn-lab.js';

const STUBS = ['127.0.0.53', '::1'];
const LAN = ['192.0.2.1', '2001:db8:1::1'];
const FAR = [ADDRESSES.internet.ipv4, ADDRESSES.internet.ipv6];
const RESOLVERS = [...STUBS, ...LAN, ...FAR];
const TRANSPORTS = ['dns-udp', 'dns-tcp'] as const;
const PATIENT = { timeoutMs: 20_000 };
/** Every resolver by UDP (connected and not) and by TCP. */
const QUESTIONS = RESOLVERS.flatMap((address) => [
  ...TRANSPORTS.map((transport) => ({ address, transport, ...PATIENT })),
  { address, transport: 'dns-udp' as const, unconnected: true, ...PATIENT },
]);
const OWN = QUESTIONS.map(({ address }) =>
  STUBS.includes(address) ? 'stub' : LAN.includes(address) ? 'lan' : 'server',
);
const everywhere = (answer: string) => QUESTIONS.map(() => answer);
const ask = (app: VpnApp) => app.call('ask', ...QUESTIONS);

async function dnsLab(t: TestContext, options: VpnLabOptions = {}): Promise<VpnLab | undefined> {
  const lab = await vpnLab(t, options);
  if (lab) await Promise.all([startServers(lab.app, 'stub', STUBS), startServers(lab.router, 'lan', LAN)]);
  return lab;
}

/** What left for port 53, by UDP or TCP. */
const toPort53 = async (departures: Departures) => (await departures.stop()).filter((line) => line.endsWith(':53'));
const dnsOf = (exit: Exit) => ({ dnsAddresses: [exit.ipv4, exit.ipv6] });

test('two users with two VPNs: every query is answered by the own server; others ask whom they want', {
  timeout: 180_000,
}, async (t) => {
  const lab = await dnsLab(t, { networks: [1, 2] });
  if (!lab) return;
  const [one, two] = [exitOf(lab, 1), exitOf(lab, 2)];
  const [first, second, user1, user2, other] = (await Promise.all(
    [2001, 2002, 2001, 2002, 2003].map((uid) => lab.process(uid)),
  )) as [VpnApp, VpnApp, VpnApp, VpnApp, VpnApp];
  assert.deepEqual(await ask(user1), OWN);

  await connect(first, one, vpnConfig(one.vnic, dnsOf(one)));
  const departures = await captureDepartures(lab.app);
  assert.deepEqual(await ask(user1), everywhere('exit1'));
  await connect(second, two, vpnConfig(two.vnic, dnsOf(two)));
  assert.deepEqual(await Promise.all([ask(user1), ask(user2)]), [everywhere('exit1'), everywhere('exit2')]);
  assert.deepEqual(await toPort53(departures), []);
  assert.deepEqual(await ask(other), OWN);

  await first.call('destroy');
  assert.deepEqual(await Promise.all([ask(user1), ask(user2), ask(other)]), [OWN, everywhere('exit2'), OWN]);
  await second.call('destroy');
  assert.deepEqual(await Promise.all([ask(user1), ask(user2), ask(other)]), [OWN, OWN, OWN]);
});

test("root's VPN and its servers are for everybody but the user with a VPN of its own, with or without servers", {
  timeout: 180_000,
}, async (t) => {
  const lab = await dnsLab(t, { networks: [1, 2] });
  if (!lab) return;
  const [one, two] = [exitOf(lab, 1), exitOf(lab, 2)];
  const [root, owner, user, other] = (await Promise.all([0, 2001, 2001, 2003].map((uid) => lab.process(uid)))) as [
    VpnApp,
    VpnApp,
    VpnApp,
    VpnApp,
  ];
  await connect(root, two, vpnConfig(two.vnic, dnsOf(two)));
  assert.deepEqual(await Promise.all([ask(user), ask(other)]), [everywhere('exit2'), everywhere('exit2')]);

  await connect(owner, one, vpnConfig(one.vnic, dnsOf(one)));
  assert.deepEqual(await Promise.all([ask(user), ask(other)]), [everywhere('exit1'), everywhere('exit2')]);
  await owner.call('destroy');

  // Without servers of its own, DNS is traffic like any other: into the tunnel, to whom it was sent.
  await connect(owner, one, vpnConfig(one.vnic));
  const far = FAR.flatMap((address) => TRANSPORTS.map((transport) => ({ address, transport, ...PATIENT })));
  assert.deepEqual(
    await user.call('ask', ...far),
    far.map(() => 'exit1'),
  );
  assert.deepEqual(await ask(other), everywhere('exit2'));
  await root.call('destroy');
  assert.deepEqual(
    await user.call('ask', ...far),
    far.map(() => 'exit1'),
  );
  assert.deepEqual(await ask(other), OWN);
});

test('a family for which the VPN has no server is refused at once and leaves nowhere', {
  timeout: 180_000,
}, async (t) => {
  const lab = await dnsLab(t);
  if (!lab) return;
  const exit = exitOf(lab, 1);
  const [owner, user] = await Promise.all([lab.process(2001), lab.process(2001)]);
  for (const [server, hasServer] of [
    [exit.ipv4, (address: string) => !address.includes(':')],
    [exit.ipv6, (address: string) => address.includes(':')],
  ] as const) {
    await connect(owner, exit, vpnConfig(exit.vnic, { dnsAddresses: [server] }));
    const departures = await captureDepartures(lab.app);
    const answers = (await ask(user)).map((answer) => answer.replace(/^E(PERM|CONNREFUSED)$/, 'refused'));
    assert.deepEqual(
      answers,
      QUESTIONS.map(({ address }) => (hasServer(address) ? 'exit1' : 'refused')),
    );
    assert.deepEqual(await toPort53(departures), []);
    await owner.call('destroy');
  }
});

test('protected sockets ask the server that they were told to', { timeout: 180_000 }, async (t) => {
  const lab = await dnsLab(t);
  if (!lab) return;
  const exit = exitOf(lab, 1);
  const owner = await lab.process(2001);
  await connect(owner, exit, vpnConfig(exit.vnic, dnsOf(exit)));
  const answers: string[] = [];
  for (const question of QUESTIONS) {
    const fd = await owner.call(
      'open',
      question.address.includes(':') ? 2 : 1,
      question.transport === 'dns-tcp' ? 'tcp' : 'udp',
    );
    await owner.call('protect', fd);
    answers.push(await owner.call('askOn', fd, question));
    await owner.call('close', fd);
  }
  assert.deepEqual(answers, OWN);
});

test('what a closed TCP socket still sends goes the way of its connection', { timeout: 180_000 }, async (t) => {
  const lab = await dnsLab(t);
  if (!lab) return;
  const exit = exitOf(lab, 1);
  const [owner, user] = await Promise.all([lab.process(2001), lab.process(2001)]);
  // Queries get lost at the far end: the kernel of the host sends them again, long after the socket is closed.
  const lossy =
    'table inet lossy { chain c { type filter hook input priority 0; tcp dport 53 tcp flags & psh == psh drop; }; }';
  await exit.host.run('nft', [lossy]);
  const split = { routes: [route('203.0.113.0/24'), route('2001:db8:f::/48')] };
  for (const more of [{}, split]) {
    await connect(owner, exit, vpnConfig(exit.vnic, { ...dnsOf(exit), ...more }));
    const departures = await captureDepartures(lab.app);
    const arrivals = await exit.host.capture('tun1', ['tcp', 'dst', 'port', '53']);
    const sockets = await Promise.all(
      RESOLVERS.map(async (address) => {
        const fd = await user.call('open', address.includes(':') ? 2 : 1, 'tcp');
        await user.call('connect', fd, address, 53);
        return { fd, address };
      }),
    );
    // Closed before the third time.
    const answers = sockets.map(async ({ fd, address }) => {
      const question = { address, transport: 'dns-tcp', isConnected: true, timeoutMs: 400 } as const;
      const answer = await user.call('askOn', fd, question);
      await user.call('close', fd);
      return answer;
    });
    assert.deepEqual(
      await Promise.all(answers),
      RESOLVERS.map(() => 'silence'),
    );
    await eventually('every query three times at the far end', async () => {
      const counts = new Map<number, number>();
      for (const { payload, sourcePort = 0 } of await arrivals.peek()) {
        if (payload.length > 0) counts.set(sourcePort, (counts.get(sourcePort) ?? 0) + 1);
      }
      return (counts.size >= RESOLVERS.length && [...counts.values()].every((count) => count >= 3)) || undefined;
    });
    assert.deepEqual(await toPort53(departures), []);
    await arrivals.stop();
    await owner.call('destroy');
  }
});

test('all servers are used; a split VPN takes all DNS of its user as well', { timeout: 180_000 }, async (t) => {
  const lab = await dnsLab(t);
  if (!lab) return;
  const exit = exitOf(lab, 1);
  const [owner, user] = await Promise.all([lab.process(2001), lab.process(2001)]);
  const more = ['10.9.0.11', '10.9.0.12', 'fd09::11', 'fd09::12'];
  await exit.host.configure(
    'tun1',
    more.map((address) => `${address}/${address.includes(':') ? 64 : 24}`),
  );
  for (const address of more) await startServers(exit.host, address, [address]);
  const servers = [...more, exit.ipv4, exit.ipv6];
  await connect(owner, exit, vpnConfig(exit.vnic, { dnsAddresses: servers, routes: [route('203.0.113.0/24')] }));

  const departures = await captureDepartures(lab.app);
  for (const [resolver, expected] of [
    ['192.0.2.1', [...more.slice(0, 2), 'exit1']],
    ['::1', [...more.slice(2), 'exit1']],
  ] as const) {
    for (const transport of TRANSPORTS) {
      const answers = await user.call(
        'ask',
        ...Array.from({ length: 12 }, () => ({ transport, address: resolver, ...PATIENT })),
      );
      assert.deepEqual([...new Set(answers)].sort(), [...expected].sort());
    }
  }
  assert.deepEqual(await toPort53(departures), []);
  assert.deepEqual(
    await user.call(
      'ask',
      { transport: 'tcp', address: ADDRESSES.server.ipv4 },
      { transport: 'tcp', address: FAR[0] ?? '' },
    ),
    [`server ${ADDRESSES.app.ipv4}`, `exit1 ${exit.client.ipv4}`],
  );
});

/**
 * The lab of the leak tests itself, with nothing but an exit: that every side says its name, that what leaves is seen and
 * told, and that the attackers' tools reach what they are for.
 *
 *   app eth0 ── LAN with lanhost and attacker ── router ── server, exit1        app eth1 ── cafe
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { pushRoutes } from './lib/attackers/dhcp.js';
import {
  arpRequest,
  echoRequestFrame,
  neighbourSolicitation,
  routerAdvertisement,
  TCP_SYN,
  tcpFrame,
  udpFrame,
} from './lib/attackers/frames.js';
import { connect } from './lib/exits.js';
import type { DepartedPacket } from './lib/leak-check.js';
import { ADVERTISED_PREFIX, isTunnelDatagram, POLICY_ADDRESSES, policyLab } from './lib/policy-lab.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf } from './lib/vpn-lab.js';

const PROTOCOLS = ['tcp', 'udp', 'icmp', 'dns-udp', 'dns-tcp'] as const;
const { internet } = ADDRESSES;
/** Neighbour discovery and reports about groups, which come when they come. */
const isKernels = ({ protocol, icmpType = 0 }: DepartedPacket) =>
  protocol === 'icmpv6' && ((icmpType >= 133 && icmpType <= 136) || icmpType === 143);

test('every side answers with its name and whom it saw, by every protocol', { timeout: 180_000 }, async (t) => {
  const lab = await policyLab(t);
  if (!lab) return;
  const exit = exitOf(lab, 1);
  await connect(await lab.process(2001), exit, vpnConfig(exit.vnic));
  const { app, appOnCafe, lanHost, cafe } = POLICY_ADDRESSES;
  const cases = [
    { uid: 2001, target: internet, side: 'exit1', source: exit.client },
    { uid: 2002, target: internet, side: 'server', source: app },
    { uid: 0, target: internet, side: 'server', source: app },
    { uid: 2002, target: lanHost, side: 'lanhost', source: app },
    { uid: 2002, target: cafe, side: 'cafe', source: appOnCafe },
    { uid: 2002, target: internet, side: 'cafe', source: appOnCafe, more: { bindTo: 'eth1' } },
  ];
  for (const { uid, target, side, source, more } of cases) {
    for (const family of ['ipv4', 'ipv6'] as const) {
      for (const protocol of PROTOCOLS) {
        const answer = await lab.probe({ uid, protocol, target: target[family], ...more });
        const wanted = protocol.startsWith('dns') ? { side } : { side, source: source[family] };
        assert.deepEqual(answer, wanted, `${uid} ${protocol} ${target[family]}`);
      }
    }
  }
});

test('what leaves is told packet by packet, unless an exception or the test explains it', {
  timeout: 180_000,
}, async (t) => {
  const lab = await policyLab(t);
  if (!lab) return;
  const target = internet.ipv4;
  await lab.probe({ uid: 2001, protocol: 'icmp', target });
  const before = await lab.moment();
  await lab.probe({ uid: 2001, protocol: 'udp', target });
  await lab.probe({ uid: 2001, protocol: 'icmp', target, bindTo: 'eth1' });
  const all = (await lab.leaks({ isUncovered: isKernels }, [], before)).map((line) => line.replace(/(\.2):\d+/, '$1'));
  const ping = `eth1 icmp 192.168.60.2 > ${target} type 8`;
  assert.deepEqual(
    all.filter((line) => !line.includes(' arp ')),
    [`eth0 udp 192.168.50.2 > ${target}:7`, ping],
  );
  const links = [
    { kind: 'test', uid: 2001, protocol: 'udp' as const, destinations: [`${target}/24`], reason: 'test' },
    { kind: 'arp', uid: 2001, protocol: 'arp' as const, reason: 'test' },
  ];
  assert.deepEqual(await lab.leaks({ isUncovered: isKernels }, links, before), [ping]);
  const isUncovered = (packet: DepartedPacket) => isKernels(packet) || packet.link === 'eth1';
  assert.deepEqual(await lab.leaks({ isUncovered }, links, before), []);
});

test('sessions and services in both directions go on, and say when they have ended', {
  timeout: 180_000,
}, async (t) => {
  const lab = await policyLab(t, { networks: [] });
  if (!lab) return;
  const user = await lab.prober({ uid: 2001 });
  await user.call('serve', 'of-2001', 8080);
  const [far, near] = await Promise.all([lab.stranger(lab.server), lab.stranger(lab.lanHost)]);
  for (const stranger of [far, near]) {
    for (const family of ['ipv4', 'ipv6'] as const) {
      const target = POLICY_ADDRESSES.app[family];
      const session = await stranger.call('openSession', { target, port: 22 });
      await stranger.goesOn(session);
      for (const protocol of ['tcp', 'udp'] as const) {
        const answer = await stranger.call('probe', { protocol, target, port: 8080 });
        assert.equal('side' in answer && answer.side, 'of-2001');
      }
      assert.deepEqual(await stranger.call('probe', { protocol: 'icmp', target }), { side: 'kernel', source: '-' });
    }
  }
  const session = await user.call('openSession', { target: internet.ipv4 });
  await user.goesOn(session);
  await lab.app.run('ss', ['-K', 'dst', internet.ipv4]);
  await assert.rejects(user.goesOn(session), /session ended with ECONNABORTED/);
});

test('the attacker reaches the host by frame, by pushed route and by router advertisement', {
  timeout: 180_000,
}, async (t) => {
  const lab = await policyLab(t, { networks: [] });
  if (!lab) return;
  const attacker = await lab.stranger(lab.attacker);
  const mac = await lab.mac(lab.attacker);
  const stations = { from: mac, to: await lab.mac(lab.app) };
  const capture = await lab.attacker.capture('eth0');
  const user = await lab.prober({ uid: 2001 });
  const inbox = await user.call('listen', 'udp', '0.0.0.0', 5000);

  for (const [source, destination] of [
    [internet.ipv4, POLICY_ADDRESSES.app.ipv4],
    [POLICY_ADDRESSES.attacker.ipv6, POLICY_ADDRESSES.app.ipv6],
  ] as const) {
    const flow = { source, destination, sourcePort: 4000, destinationPort: 5000 };
    for (const frame of [udpFrame(stations, flow), tcpFrame(stations, flow, TCP_SYN), echoRequestFrame(stations, flow)])
      assert.equal(await attacker.call('sendFrame', 'eth0', frame), 'ok');
  }
  const { attacker: own, app } = POLICY_ADDRESSES;
  await attacker.call('sendFrame', 'eth0', arpRequest(mac, own.ipv4, app.ipv4));
  await attacker.call('sendFrame', 'eth0', neighbourSolicitation(mac, own.ipv6, app.ipv6));
  await eventually('the datagram', async () => (await user.call('heard', inbox))[0]);
  assert.deepEqual(await user.call('heard', inbox), ['attack']);
  const wanted = ['arp', 'icmpv6 136', 'icmpv6 129'];
  const answers = await eventually('all answers', async () => {
    const from = (await capture.peek()).filter(({ source }) => source === app.ipv4 || source === app.ipv6);
    const kinds = new Set(from.map(({ protocol, icmpType }) => `${protocol} ${icmpType ?? ''}`.trim()));
    return kinds.size >= 4 && wanted.every((kind) => kinds.has(kind)) ? [...kinds] : undefined;
  });
  for (const kind of wanted) assert.ok(answers.includes(kind), `${kind}: ${answers}`);

  await lab.app.sysctl('net.ipv6.conf.eth0.accept_ra=2');
  await attacker.call('sendFrame', 'eth0', routerAdvertisement(mac, 'fe80::bad', ADVERTISED_PREFIX));
  const addresses = await eventually('an address by autoconfiguration', async () => {
    const { stdout } = await lab.app.run('ip', ['-6', '-o', 'address', 'show', 'dev', 'eth0']);
    return /2001:db8:bad:[0-9a-f:]+/.exec(stdout)?.[0];
  });
  assert.match(addresses, /^2001:db8:bad:/);

  const pull = await pushRoutes(lab.app, 'eth0', POLICY_ADDRESSES.attacker);
  for (const target of [internet.ipv4, internet.ipv6]) {
    const answer = await lab.probe({ uid: 2002, protocol: 'tcp', target });
    assert.deepEqual({ side: 'attacker', ...answer, source: '' }, { side: 'attacker', source: '' }, target);
  }
  await pull();
  const answer = await lab.probe({ uid: 2002, protocol: 'tcp', target: internet.ipv4 });
  assert.equal('side' in answer && answer.side, 'server');
});

test('only a holder of CAP_NET_RAW sends by AF_PACKET; a protected tunnel is told apart', {
  timeout: 180_000,
}, async (t: TestContext) => {
  const lab = await policyLab(t);
  if (!lab) return;
  const exit = exitOf(lab, 1);
  const [plain, raw] = await Promise.all([
    lab.prober({ uid: 2001 }),
    lab.prober({ uid: 2001, mayUsePacketSockets: true }),
  ]);
  const stations = { from: await lab.mac(lab.app), to: await lab.mac(lab.attacker) };
  const flow = { source: '192.168.50.2', destination: internet.ipv4, sourcePort: 1, destinationPort: 2 };
  assert.equal(await plain.call('sendFrame', 'eth0', udpFrame(stations, flow)), 'EPERM');
  assert.equal(await raw.call('sendFrame', 'eth0', udpFrame(stations, flow)), 'ok');
  const unknown = { ...stations, from: '00:00:00:00:00:00' };
  assert.equal(await raw.call('sendFrame', 'eth0', udpFrame(unknown, { ...flow, destinationPort: 3 })), 'ok');
  const frames = (await lab.leaks({}, [])).filter((line) => line.includes(' udp '));
  assert.deepEqual(
    frames,
    [2, 3].map((port) => `eth0 udp 192.168.50.2:1 > ${internet.ipv4}:${port}`),
  );
  await plain.kill9();
  assert.notEqual((await lab.prober({ uid: 2001 })).pid, plain.pid);

  const tunnel = { kind: 'tunnel', uid: 2001, socket: 'protected' as const, reason: 'test' };
  const arp = { kind: 'arp', uid: 2001, protocol: 'arp' as const, reason: 'test' };
  const before = await lab.moment();
  await connect(await lab.process(2001), exit, vpnConfig(exit.vnic));
  assert.deepEqual(await lab.probe({ uid: 2001, protocol: 'tcp', target: internet.ipv4 }), {
    side: 'exit1',
    source: exit.client.ipv4,
  });
  assert.notDeepEqual(await lab.leaks({}, [tunnel, arp], before), []);
  const facts = { isProtected: isTunnelDatagram, isUncovered: isKernels };
  assert.deepEqual(await lab.leaks(facts, [tunnel, arp], before), []);
});

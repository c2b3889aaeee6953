/**
 * A covered user who wants out: every way of a socket past the routing, with and without CAP_NET_RAW, and what a holder of the
 * TUN can do. Only protected sockets leave by a physical link.
 *
 *   attacker ── LAN ── eth0 app eth1 ── cafe         app vpn-tun0 ══ exit1
 *                       └ router ── server
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { echoRequestFrame, TCP_SYN, tcpFrame, udpFrame } from './lib/attackers/frames.js';
import { raise, VICTIMS } from './lib/attackers/victim.js';
import { POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { vpnConfig } from './lib/vpn-app.js';
import { eventually } from './lib/vpn-lab.js';

const { internet, server } = ADDRESSES;
const FAMILIES = ['ipv4', 'ipv6'] as const;
const SPOOFED = { ipv4: '192.0.2.200', ipv6: '2001:db8:1::200' };
const [IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_UDP] = [1, 58, 17];
const ETHERNET_DIGITS = 28;
const FIRST_PORT = 20_000;
/** Below the ports that the kernel gives out: where services are. */
const LOW_PORT = 3000;

/** One line for escape.py, without the port. */
type Attempt = Record<string, unknown> & { way: string };
type Sends = 'plain' | 'raw';

/** What anybody may do. */
function plainAttempts(vnic: { ipv4: string; ipv6: string }): Attempt[] {
  const { app, appOnCafe } = POLICY_ADDRESSES;
  return FAMILIES.flatMap((family) => {
    const target = internet[family];
    const [home, away] = [app[family], appOnCafe[family]];
    const ways: Record<string, unknown>[] = [
      ...['eth0', 'eth1'].flatMap((link) => [{ device: link }, { index: link }]),
      { source: home },
      { source: away },
      { source: home, device: 'eth0' },
      { source: away, device: 'eth1' },
      { source: home, from: LOW_PORT },
      { source: vnic[family], device: 'eth0' },
      ...(family === 'ipv4'
        ? [
            { mapped: true, device: 'eth0' },
            { mapped: true, source: home },
          ]
        : [{ source: SPOOFED.ipv6, device: 'eth0', free: true }]),
    ];
    const datagrams: Record<string, unknown>[] = [
      { unicast: 'eth0' },
      { unicast: 'eth1' },
      { pktinfo: [null, 'eth0'] },
      { pktinfo: [null, 'eth1'] },
      { pktinfo: [home, null] },
      { pktinfo: [home, 'eth0'] },
      { pktinfo: [away, 'eth1'] },
      { pktinfo: [home, 'eth0'], device: 'eth0', source: home },
    ];
    return [
      ...[...ways, ...datagrams].map((way) => ({ way: 'udp', target, ...way })),
      ...ways.map((way) => ({ way: 'tcp', target, ...way })),
      { way: 'fast', target, device: 'eth0' },
    ];
  });
}

/** What a holder of CAP_NET_RAW may do besides. `frame(port)`: of a packet to that port of a server. */
function rawAttempts(stations: { from: string; to: string }, firstPort: number): Attempt[] {
  const { app } = POLICY_ADDRESSES;
  let port = firstPort;
  return FAMILIES.flatMap((family) => {
    const target = internet[family];
    const flow = (source: string = app[family]) => ({
      source,
      destination: target,
      sourcePort: 1,
      destinationPort: port++,
    });
    const packet = (frame: string) => frame.slice(ETHERNET_DIGITS);
    const etherType = family === 'ipv4' ? 0x0800 : 0x86dd;
    const ways: Record<string, unknown>[] = [
      { device: 'eth0' },
      { device: 'eth1' },
      { pktinfo: [app[family], 'eth0'] },
      {},
    ];
    const sources = [app[family], SPOOFED[family]];
    const echo = packet(echoRequestFrame(stations, flow())).slice(family === 'ipv4' ? 40 : 80);
    const datagram = () => packet(udpFrame(stations, flow())).slice(family === 'ipv4' ? 40 : 80);
    const tagged = (tag: string) => udpFrame(stations, flow()).replace(/^(.{24})/, `$1${tag}0005`);
    const lying = (type: string) => udpFrame(stations, flow()).replace(/^(.{24}).{4}/, `$1${type}`);
    const frames: Record<string, unknown>[] = [
      ...[0, etherType, 0x0806, 0x888e, 0x8100].map((protocol) => ({ protocol, frame: udpFrame(stations, flow()) })),
      { frame: tcpFrame(stations, flow(), TCP_SYN) },
      { frame: udpFrame(stations, flow(SPOOFED[family])) },
      { frame: udpFrame({ ...stations, from: '02:00:00:00:00:01' }, flow()) },
      ...['8100', '88a8'].map((tag) => ({ frame: tagged(tag) })),
      // IP behind the types of ARP, MPLS, PPPoE, LLDP and one of nobody's.
      ...['0806', '8847', '8864', '88cc', '88b5'].map((type) => ({ frame: lying(type) })),
      { cooked: true, protocol: etherType, station: stations.to, frame: packet(udpFrame(stations, flow())) },
    ];
    return [
      ...sources.flatMap((source) =>
        ways.map((way) => ({ way: 'raw', target, header: packet(udpFrame(stations, flow(source))), ...way })),
      ),
      ...ways.map((way) => ({
        way: 'raw',
        target,
        protocol: family === 'ipv4' ? IPPROTO_ICMP : IPPROTO_ICMPV6,
        data: echo,
        ...way,
      })),
      ...ways.map((way) => ({ way: 'raw', target, protocol: IPPROTO_UDP, data: datagram(), ...way })),
      { way: 'udp', target, source: SPOOFED[family], device: 'eth0', transparent: true, port: port++ },
      ...frames.flatMap((frame) =>
        ['eth0', 'eth1'].flatMap((device) => [
          { way: 'packet', device, ...frame },
          { way: 'packet', device, ...frame, bypass: true },
        ]),
      ),
    ];
  });
}

/** What each attempt came to: 'ok' or an errno. */
async function escape(lab: PolicyLab, uid: number, sends: Sends, attempts: readonly Attempt[]): Promise<string[]> {
  const script = lab.app.path('test/lab/lib/attackers/escape.py');
  const process = lab.app.spawn('python3', ['-SE', script, String(uid), sends]);
  await process.waitFor(/^ready$/m);
  process.write(attempts.map((attempt) => `${JSON.stringify(attempt)}\n`).join(''));
  const told = () => process.stdout.trim().split('\n').slice(1);
  await eventually('all attempts', async () => told().length === attempts.length || undefined);
  return told();
}

for (const victim of VICTIMS) {
  const { whose, covered, uncovered } = victim;

  test(`${whose}: no option of a socket and no kind of socket leads past it`, { timeout: 240_000 }, async (t) => {
    const lab = await policyLab(t);
    if (!lab) return;
    const { exit, facts } = await raise(lab, victim);
    const stations = { from: await lab.mac(lab.app), to: await lab.mac(lab.attacker) };
    const plain = plainAttempts(exit.client).map((attempt, index) => ({ ...attempt, port: FIRST_PORT + index }));
    const raw = rawAttempts(stations, FIRST_PORT + plain.length);
    // By somebody whom the VPN leaves alone nearly all of them leave.
    const begin = (await lab.departed()).length;
    for (const [sends, attempts] of [
      ['plain', plain],
      ['raw', raw],
    ] as const) {
      const results = await escape(lab, uncovered, sends, attempts);
      console.log(
        sends,
        attempts
          .map((a, i) => [a, results[i]] as const)
          .filter(([, r]) => r !== 'ok')
          .map(([a, r]) => `${r} ${JSON.stringify(a).slice(0, 200)}`),
      );
    }
    const control = (await lab.departed()).slice(begin);
    console.log(plain.length, raw.length, control.length);
    const ports = new Set(control.map(({ destinationPort }) => destinationPort));
    console.log(plain.filter(({ port }) => !ports.has(port)));
    for (const uid of covered) {
      const since = await lab.moment();
      await escape(lab, uid, 'plain', plain);
      await escape(lab, uid, 'raw', raw);
      assert.deepEqual(await lab.leaks(facts, undefined, since), [], `uid ${uid}`);
    }
    void server;
    void vpnConfig;
  });
}

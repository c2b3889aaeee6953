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
import { type DepartedPacket, describePacket, unexplained } from './lib/leak-check.js';
import { POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import type { LabProcess } from './lib/process.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { eventually } from './lib/vpn-lab.js';

const { internet } = ADDRESSES;
const FAMILIES = ['ipv4', 'ipv6'] as const;
const SPOOFED = { ipv4: '192.0.2.200', ipv6: '2001:db8:1::200' };
/** A station that nobody is. */
const MADE_UP = '02:00:00:00:00:01';
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
      { frame: udpFrame({ ...stations, from: MADE_UP }, flow()) },
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

/** All attempts by a process of this user's, which keeps its sockets until it is killed. */
async function attemptAll(
  lab: PolicyLab,
  uid: number,
  sends: Sends,
  attempts: readonly Attempt[],
): Promise<LabProcess> {
  const script = lab.app.path('test/lab/lib/attackers/escape.py');
  const process = lab.app.spawn('python3', ['-SE', script, String(uid), sends]);
  await process.waitFor(/^ready$/m);
  process.write(attempts.map((attempt) => `${JSON.stringify(attempt)}\n`).join(''));
  const told = () => process.stdout.trim().split('\n').slice(1);
  await eventually('all attempts', async () => told().length === attempts.length || undefined);
  return process;
}

const identity = (packet: DepartedPacket): string => `${packet.timeMs} ${describePacket(packet)}`;

/** Frames of root's that are no IP: an exception. The test has put IP in them. */
const isLinkFrame = ({ protocol }: DepartedPacket): boolean => [0x8864, 0x88cc, 0x88b5].map(String).includes(protocol);

/**
 * What came out of the links' other ends from `app`: a capture on the links themselves does not show frames that go past the
 * queue (PACKET_QDISC_BYPASS).
 */
async function otherEnds(lab: PolicyLab): Promise<() => Promise<DepartedPacket[]>> {
  const links = await lab.app.json<{ ifname: string; address: string }[]>('ip', ['-j', 'link', 'show']);
  const stations = new Set([MADE_UP, ...links.filter(({ ifname }) => ifname !== 'lo').map(({ address }) => address)]);
  const [home, away] = [await lab.router.capture('toapp'), await lab.cafe.capture('eth0')];
  return async () => {
    const lists = [
      (await home.peek()).map((packet) => ({ ...packet, link: 'eth0' })),
      (await away.peek()).map((packet) => ({ ...packet, link: 'eth1' })),
    ];
    return lists.flat().filter(({ station = '' }) => stations.has(station));
  };
}

for (const victim of VICTIMS) {
  const { whose, covered, uncovered } = victim;

  test(`${whose}: no option of a socket and no kind of socket leads past it, but protect() does`, {
    timeout: 240_000,
  }, async (t) => {
    const lab = await policyLab(t);
    if (!lab) return;
    const tunnel = await raise(lab, victim);
    const { exit } = tunnel;
    const stations = { from: await lab.mac(lab.app), to: await lab.mac(lab.attacker) };
    const plain = plainAttempts(exit.client).map(
      (attempt, index): Attempt => ({ ...attempt, port: FIRST_PORT + index }),
    );
    const raw = rawAttempts(stations, FIRST_PORT + plain.length);

    // By somebody whom the VPN leaves alone they all leave, but what has the vNIC's address.
    const arrived = await otherEnds(lab);
    const control = [await attemptAll(lab, uncovered, 'plain', plain), await attemptAll(lab, uncovered, 'raw', raw)];
    const vnic = new Set<unknown>(Object.values(exit.client));
    let left: DepartedPacket[] = [];
    let stayed: Attempt[] = [];
    const most = (plain.length + raw.length) * 0.95;
    // The first of them wait for what the neighbours answer.
    const haveLeft = async () => {
      left = await arrived();
      const ports = new Set<unknown>(left.map(({ destinationPort }) => destinationPort));
      stayed = plain.filter(({ port, source }) => !ports.has(port) && !vnic.has(source));
      return (stayed.length === 0 && left.length > most) || undefined;
    };
    await eventually('all attempts have left', haveLeft).catch(() => undefined);
    await Promise.all(control.map((process) => process.kill('SIGKILL')));
    assert.deepEqual(stayed, []);
    assert.ok(left.length > most, `${left.length} of ${plain.length} and ${raw.length}`);

    const ipv4 = exit.vnic.filter((address) => !address.includes(':'));
    let { app, facts } = tunnel;
    for (const addresses of [exit.vnic, ipv4]) {
      for (const uid of covered) {
        // Each packet is looked at once; those of both links come in any order.
        const known = new Set((await arrived()).map(identity));
        const running = [await attemptAll(lab, uid, 'plain', plain), await attemptAll(lab, uid, 'raw', raw)];
        const isUncovered = (packet: DepartedPacket): boolean =>
          facts.isUncovered?.(packet) || (uid === 0 && isLinkFrame(packet));
        const fresh = (await arrived()).filter((packet) => !known.has(identity(packet)));
        const leaks = unexplained(fresh, await lab.exceptions(), { ...facts, isUncovered });
        assert.deepEqual(leaks.map(describePacket), [], `uid ${uid}: ${addresses}`);
        await Promise.all(running.map((process) => process.kill('SIGKILL')));
      }
      await app.call('destroy');
      // Next time the VPN does not accept IPv6.
      ({ app, facts } = await raise(lab, victim, { addresses: ipv4 }));
    }

    const since = await lab.moment();
    const prober = await lab.prober({ uid: victim.owner });
    for (const family of [1, 2] as const) {
      const address = family === 1 ? internet.ipv4 : internet.ipv6;
      const fd = await prober.call('open', family, 'udp');
      await prober.call('protect', fd);
      const source = family === 1 ? POLICY_ADDRESSES.app.ipv4 : POLICY_ADDRESSES.app.ipv6;
      assert.equal(
        await prober.call('askOn', fd, { transport: 'udp', address, timeoutMs: 20_000 }),
        `server ${source}`,
      );
    }
    const isProtected = (packet: DepartedPacket): boolean =>
      packet.protocol === 'udp' && packet.destinationPort === 7 && !facts.isProtected?.(packet);
    const both = (packet: DepartedPacket): boolean => isProtected(packet) || (facts.isProtected?.(packet) ?? false);
    assert.deepEqual(await lab.leaks({ ...facts, isProtected: both }, undefined, since), []);
    assert.equal((await lab.departed()).filter(isProtected).length - left.filter(isProtected).length >= 2, true);
  });

  test(`${whose}: a holder of the TUN keeps nothing of it: persistent, owned, attached again`, {
    timeout: 180_000,
  }, async (t) => {
    const lab = await policyLab(t);
    if (!lab) return;
    const tuns = async () => (await lab.app.json('ip', ['-j', 'link', 'show', 'type', 'tun'])).length;
    for (const end of ['destroy', 'kill'] as const) {
      const { app, fd, device, exit } = await raise(lab, victim);
      const accomplice = await lab.process(victim.owner);
      assert.deepEqual(await app.call('keepDevice', fd), ['ok', 'ok'], 'the kernel asks for no right');
      assert.notEqual(await accomplice.call('attach', device), 'ok', 'while it stands');
      if (end === 'destroy') await app.call('destroy');
      else await app.kill9();
      await eventually('the end of the vNIC', async () => (await tuns()) === 0 || undefined);
      // Root may make a TUN of its own, whatever its name; it is none of the VPN's then.
      if (victim.owner !== 0) assert.match(await accomplice.call('attach', device), /^(EPERM|EACCES)$/);
      for (const uid of covered) {
        await eventually('the network, open again', async () => {
          const answer = await lab.probe({ uid, protocol: 'tcp', target: internet.ipv4, timeoutMs: 5000 });
          return ('side' in answer && answer.side === 'server') || undefined;
        });
      }
      const own = new Set<string>(Object.values(exit.client));
      assert.deepEqual(
        (await lab.departed()).filter(({ source }) => own.has(source)),
        [],
      );
    }
  });
}

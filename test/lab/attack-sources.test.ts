/**
 * A VPN's server that sends in the name of others: of hosts on the local networks, of this host itself, of what the app excluded from
 * the VPN. Whoever answered would do it outside the tunnel.
 *
 *   app :5004 a covered user's server on all addresses ── vpn-tunN, where packets with any source are written to the TUN
 *     eth0 ─── lanhost, router ── server      lo, eth0 and eth1 are captured: no answer is there
 *     eth1 ─── cafe
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { VpnConfig } from '../../src/model/vpn-types.js';
import {
  echoRequestFrame,
  errorFrame,
  type Flow,
  packetOf,
  TCP_SYN,
  tcpFrame,
  udpFrame,
} from './lib/attackers/frames.js';
import { raise, type Tunnel, VICTIMS } from './lib/attackers/victim.js';
import type { Capture } from './lib/capture.js';
import { describePacket, discoveryTarget } from './lib/leak-check.js';
import type { CapturedPacket } from './lib/pcap.js';
import { POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { route } from './lib/vpn-app.js';
import { eventually } from './lib/vpn-lab.js';

const { internet } = ADDRESSES;
const { app: HOST, appOnCafe: HOST_ON_CAFE, lanHost, cafe } = POLICY_ADDRESSES;
const FAMILIES = ['ipv4', 'ipv6'] as const;
type IpFamily = (typeof FAMILIES)[number];
const PORT = 5004;
const ASKING_PORT = 7777;
const ECHO_REQUESTS = [8, 128];
const TIMEOUT = { timeout: 240_000 };
/** What comes in by a tunnel is written to it: nobody's station. */
const STATIONS = { from: '02:00:00:00:00:01', to: '02:00:00:00:00:02' };
const GROUPS = { ipv4: '224.0.0.1', ipv6: 'ff02::1' };

const EXCLUDED = { ipv4: '198.18.7.9', ipv6: '2001:db8:e::9' };
/** Inside what is excluded, and in the VPN again. */
const INCLUDED_AGAIN = { ipv4: '198.18.9.9', ipv6: '2001:db8:e:9::9' };
const WHOLE = [route('0.0.0.0/0'), route('::/0')];
const EXCLUDING = [
  ...WHOLE,
  ...['198.18.0.0/15', '2001:db8:e::/48'].map((prefix) => route(prefix, { isExcludedRoute: true })),
  ...['198.18.9.0/24', '2001:db8:e:9::/64'].map((prefix) => route(prefix)),
];
/** Only these go in. */
const SOME = ['203.0.113.0/24', '2001:db8:f::/48'].map((prefix) => route(prefix));

interface Scene {
  lab: PolicyLab;
  tunnel: Tunnel;
  inside: Capture;
  loopback: Capture;
}

interface Setting {
  victim: (typeof VICTIMS)[number];
  routes: NonNullable<VpnConfig['routes']>;
  policy?: object;
  more?: Omit<VpnConfig, 'addresses' | 'routes'>;
}

async function scene(t: TestContext, { victim, routes, policy, more }: Setting): Promise<Scene | undefined> {
  const callers = [{ match: { uid: victim.owner }, system: true, permissions: ['ohos.permission.MANAGE_VPN'] }];
  const lab = await policyLab(t, policy === undefined ? {} : { vpnd: { policy: { callers, ...policy } } });
  if (!lab) return undefined;
  const server = await lab.prober({ uid: victim.covered.at(-1) ?? 0 });
  await server.call('serve', 'mine', PORT);
  const tunnel = await raise(lab, victim, { routes, ...more });
  return {
    lab,
    tunnel,
    inside: await lab.app.capture(tunnel.device),
    loopback: await lab.app.capture('lo', ['port', String(PORT)]),
  };
}

/** A datagram, one to everybody, a connection and a ping, from there. */
function packetsFrom({ tunnel }: Scene, source: string): string[] {
  const family = source.includes(':') ? 'ipv6' : 'ipv4';
  const flow: Flow = {
    source,
    destination: tunnel.exit.client[family],
    sourcePort: ASKING_PORT,
    destinationPort: PORT,
  };
  return [
    udpFrame(STATIONS, flow),
    udpFrame(STATIONS, { ...flow, destination: GROUPS[family] }),
    tcpFrame(STATIONS, flow, TCP_SYN),
    echoRequestFrame(STATIONS, flow),
  ].map(packetOf);
}

const writeAll = async ({ tunnel }: Scene, packets: readonly string[]) => {
  for (const packet of packets) await tunnel.app.call('inject', tunnel.fd, packet);
};

const isWritten = ({ sourcePort, icmpType = 0 }: CapturedPacket): boolean =>
  sourcePort === ASKING_PORT || ECHO_REQUESTS.includes(icmpType);

/** The protocols of the answers that went into the tunnel to this address. */
async function answered({ inside, tunnel }: Scene, address: string): Promise<string[]> {
  const sources: readonly string[] = Object.values(tunnel.exit.client);
  const packets = (await inside.peek()).filter(
    (packet) => packet.destination === address && sources.includes(packet.source) && !isWritten(packet),
  );
  return [...new Set(packets.map(({ protocol }) => protocol))].sort();
}

const ALL_ANSWERS = { ipv4: ['icmp', 'tcp', 'udp'], ipv6: ['icmpv6', 'tcp', 'udp'] };

/** What has no socket, a user's VPN sends by its default table, which leaves all that is excluded to others. */
const OF_SOCKETS = { ipv4: ['tcp', 'udp'], ipv6: ['tcp', 'udp'] };

/** Packets from these sources are answered in the tunnel; what was written before them has been looked at as well. */
async function answersInside(view: Scene, sources: Record<IpFamily, string>, kinds = ALL_ANSWERS): Promise<void> {
  for (const family of FAMILIES) {
    await writeAll(view, packetsFrom(view, sources[family]));
    const told = async () => {
      const protocols = await answered(view, sources[family]);
      return kinds[family].every((kind) => protocols.includes(kind)) || undefined;
    };
    await eventually(`answers to ${sources[family]} in the tunnel`, told);
  }
}

/** Answers to these, and searches for them, by any link but the vNIC. */
async function answeredOutside({ lab, loopback }: Scene, sources: readonly string[]): Promise<string[]> {
  const isTo = (packet: CapturedPacket) =>
    sources.includes(packet.destination) || sources.includes(discoveryTarget(packet) ?? '');
  const looped = (await loopback.peek()).map((packet) => ({ ...packet, link: 'lo' }));
  const packets = [...(await lab.departed()), ...looped].filter(isTo);
  return [...new Set(packets.map(describePacket))];
}

async function isSilent(view: Scene, sources: readonly string[], ordinary: Record<IpFamily, string>): Promise<void> {
  for (const source of sources) await writeAll(view, packetsFrom(view, source));
  await answersInside(view, ordinary);
  assert.deepEqual(await answeredOutside(view, sources), []);
  for (const source of sources) assert.deepEqual(await answered(view, source), [], source);
}

const both = (addresses: Record<IpFamily, string>) => [addresses.ipv4, addresses.ipv6];
const FORGED = [lanHost, cafe, HOST, HOST_ON_CAFE, EXCLUDED].flatMap(both);

for (const victim of VICTIMS) {
  const { whose } = victim;

  test(`${whose}: its server gets no answer in the name of LAN, host or excluded addresses`, TIMEOUT, async (t) => {
    const view = await scene(t, { victim, routes: EXCLUDING });
    if (!view) return;
    const { lab, tunnel } = view;
    // Nobody's, and everybody's: an answer to it is one to this host.
    const forged = [...FORGED, '0.0.0.0', '127.0.0.1', '::', '::1', tunnel.exit.client.ipv4, tunnel.exit.client.ipv6];
    await isSilent(view, forged, internet);
    await answersInside(view, { ipv4: tunnel.exit.ipv4, ipv6: tunnel.exit.ipv6 });
    await answersInside(view, INCLUDED_AGAIN, OF_SOCKETS);
    // Where a link-local address is, it says itself: an answer to it goes back by the link that it came by.
    const linkLocal = ['fe80::66', 'fe80::1'];
    for (const source of linkLocal) await writeAll(view, packetsFrom(view, source));
    await answersInside(view, { ipv4: '203.0.113.7', ipv6: '2001:db8:f::7' });
    assert.deepEqual(await answeredOutside(view, linkLocal), []);
    await lab.vpnd.kill9();
    const again = { ipv4: '203.0.113.77', ipv6: '2001:db8:f::77' };
    await isSilent(view, FORGED, again);
  });

  test(`${whose}: local addresses that covered traffic reaches by the tunnel may speak there`, TIMEOUT, async (t) => {
    const off = await scene(t, { victim, routes: WHOLE, policy: { lan: 'off' } });
    if (!off) return;
    await answersInside(off, lanHost);
    assert.deepEqual(await answeredOutside(off, both(lanHost)), []);
  });

  test(`${whose}: a route of its own to a local network counts more than the network itself`, TIMEOUT, async (t) => {
    const named = await scene(t, {
      victim,
      routes: [...WHOLE, ...['192.168.50.0/25', 'fd50::/112'].map((prefix) => route(prefix))],
    });
    if (!named) return;
    await isSilent(named, both(cafe), lanHost);
    assert.deepEqual(await answeredOutside(named, both(lanHost)), []);
  });

  test(
    `${whose}: of some networks only, it hears its networks, its servers and errors from anywhere`,
    TIMEOUT,
    async (t) => {
      const nameServers = { ipv4: '198.51.100.2', ipv6: '2001:db8:2::2' };
      // They are inside, since the VPN has routes to them.
      const routes = [...SOME, ...['198.51.100.2/32', '2001:db8:2::2/128'].map((prefix) => route(prefix))];
      const view = await scene(t, { victim, routes, more: { dnsAddresses: both(nameServers) } });
      if (!view) return;
      const { lab, tunnel } = view;
      const uid = victim.covered.at(-1) ?? 0;
      await isSilent(view, both(lanHost).concat(both(cafe), both(HOST)), internet);
      // Elsewhere is outside of such a VPN, as what is excluded is outside of others. Pings the kernel answers in the tunnel.
      const elsewhere = { ipv4: '198.18.1.1', ipv6: '2001:db8:77::1' };
      for (const family of FAMILIES) await writeAll(view, packetsFrom(view, elsewhere[family]));
      await answersInside(view, { ipv4: '203.0.113.5', ipv6: '2001:db8:f::5' });
      assert.deepEqual(await answeredOutside(view, both(elsewhere)), []);
      for (const protocol of ['dns-udp', 'dns-tcp'] as const) {
        for (const target of both(nameServers)) {
          assert.deepEqual(await lab.probe({ uid, protocol, target, timeoutMs: 20_000 }), { side: 'exit1' }, target);
        }
      }
      // A router inside, with addresses of its own, about a datagram that this host sent.
      for (const family of FAMILIES) {
        const client = await lab.prober({ uid });
        const fd = await client.call('open', family === 'ipv4' ? 1 : 2, 'udp');
        const question = { transport: 'udp', address: internet[family], timeoutMs: 20_000 } as const;
        assert.equal(await client.call('askOn', fd, question), `exit1 ${tunnel.exit.client[family]}`);
        const sent = (await view.inside.peek()).find(
          ({ protocol, source, destination, destinationPort }) =>
            protocol === 'udp' &&
            source === tunnel.exit.client[family] &&
            destination === internet[family] &&
            destinationPort === 7,
        );
        const flow: Flow = {
          source: tunnel.exit.client[family],
          destination: internet[family],
          sourcePort: sent?.sourcePort ?? 0,
          destinationPort: 7,
        };
        for (const source of [elsewhere[family], lanHost[family]]) {
          const error = errorFrame(STATIONS, { source, destination: tunnel.exit.client[family] }, flow);
          await writeAll(view, [packetOf(error)]);
          const said = await client.call('askOn', fd, { ...question, isConnected: true });
          assert.equal(said, 'ECONNREFUSED', source);
        }
      }
    },
  );
}

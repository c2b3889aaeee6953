/**
 * The vNIC from outside and from other users: nobody on a physical link learns its address or reaches anything by it
 * (CVE-2019-14899, MLLVD-CR-24-03), and who is not covered neither sends nor receives there.
 *
 *   attacker 192.168.50.66 ── LAN ── eth0 app eth1 ── cafe         app vpn-tunN ══ exitN
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  arpRequest,
  echoRequestFrame,
  errorFrame,
  type Flow,
  neighbourSolicitation,
  TCP_ACK,
  TCP_SYN,
  TCP_SYN_ACK,
  tcpFrame,
  udpFrame,
} from './lib/attackers/frames.js';
import { raise, VICTIMS } from './lib/attackers/victim.js';
import type { LabHost } from './lib/host.js';
import { type DepartedPacket, discoveryTarget } from './lib/leak-check.js';
import { POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import type { Prober } from './lib/prober.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { eventually } from './lib/vpn-lab.js';

const { internet } = ADDRESSES;
const FAMILIES = ['ipv4', 'ipv6'] as const;
const WILDCARD = { ipv4: '0.0.0.0', ipv6: '::' };
const TRANSPORTS = ['tcp', 'udp'] as const;
const [OPEN, CLOSED] = [{ ipv4: 5004, ipv6: 5006 }, 5999];
const NEIGHBOUR_ADVERTISEMENT = 136;

/** A host on one of the links of `app`. */
interface Outside {
  name: string;
  prober: Prober;
  stations: { from: string; to: string };
  own: { ipv4: string; ipv6: string };
  /** The address of `app` on that link. */
  app: { ipv4: string; ipv6: string };
}

async function outsides(lab: PolicyLab): Promise<Outside[]> {
  const places: [LabHost, string, 'attacker' | 'cafe', 'app' | 'appOnCafe'][] = [
    [lab.attacker, 'eth0', 'attacker', 'app'],
    [lab.cafe, 'eth1', 'cafe', 'appOnCafe'],
  ];
  return Promise.all(
    places.map(async ([host, link, own, app]) => {
      const [entry] = await lab.app.json('ip', ['-j', 'link', 'show', link]);
      const stations = { from: await lab.mac(host), to: String(entry?.address) };
      const prober = await lab.stranger(host);
      return { name: host.name, prober, stations, own: POLICY_ADDRESSES[own], app: POLICY_ADDRESSES[app] };
    }),
  );
}

/** Every first packet of every protocol, to a service and to nobody. */
function framesTo({ stations, own }: Outside, to: { ipv4: string; ipv6: string }, from = own): string[] {
  return FAMILIES.flatMap((family) => {
    const [source, destination] = [from[family], to[family]];
    const first = [OPEN[family], CLOSED].flatMap((port) =>
      firstPackets(stations, { source, destination, sourcePort: 7, destinationPort: port }),
    );
    return [...first, echoRequestFrame(stations, { source, destination })];
  });
}

function firstPackets(stations: Outside['stations'], flow: Flow): string[] {
  const segments = [TCP_SYN, TCP_SYN_ACK, TCP_ACK].map((flags) => tcpFrame(stations, flow, flags));
  return [...segments, udpFrame(stations, flow, `for ${flow.destination}`)];
}

async function send({ prober, name }: Outside, link: string, frames: readonly string[]): Promise<void> {
  for (const frame of frames) assert.equal(await prober.call('sendFrame', link, frame), 'ok', name);
}

/** Once this one is heard, what was sent before it on the same link has been looked at. */
async function marked(outside: Outside, listener: Prober, inbox: number, marker: string): Promise<void> {
  const flow = { source: outside.own.ipv4, destination: outside.app.ipv4, sourcePort: 9, destinationPort: OPEN.ipv4 };
  await send(outside, 'eth0', [udpFrame(outside.stations, flow, marker)]);
  await eventually(marker, async () => (await listener.call('heard', inbox)).includes(marker) || undefined);
}

const isDiscovery = (packet: DepartedPacket): boolean => discoveryTarget(packet) !== undefined;

for (const victim of VICTIMS) {
  const { whose, covered } = victim;
  const [uid = 0] = covered;

  test(`${whose}: what comes from outside for the vNIC's address is met with silence (CVE-2019-14899)`, {
    timeout: 180_000,
  }, async (t) => {
    const lab = await policyLab(t);
    if (!lab) return;
    const { exit, device } = await raise(lab, victim);
    const listener = await lab.prober({ uid });
    const inboxes = new Map<string, number>();
    for (const family of FAMILIES) {
      for (const transport of TRANSPORTS) {
        const inbox = await listener.call('listen', transport, WILDCARD[family], OPEN[family]);
        inboxes.set(`${transport} ${family}`, inbox);
      }
    }
    const inbox = inboxes.get('udp ipv4') ?? -1;
    const connected = await listener.call('open', 1, 'tcp');
    const question = { transport: 'tcp', address: internet.ipv4, timeoutMs: 20_000 } as const;
    const greeting = await listener.call('askOn', connected, question);
    assert.equal(greeting, `${exit.name} ${exit.client.ipv4}`);
    const { stdout } = await lab.app.run('ss', ['-Htn', 'state', 'established', 'dst', internet.ipv4]);
    const port = Number(new RegExp(`${exit.client.ipv4}(?:%\\w+)?:(\\d+)`).exec(stdout)?.[1]);
    assert.ok(port > 0, stdout);
    const connection = { source: internet.ipv4, destination: exit.client.ipv4, sourcePort: 7, destinationPort: port };

    const tunnel = await lab.app.capture(device);
    for (const outside of await outsides(lab)) {
      // The attack is one: the same frames for the link's own address are answered and heard.
      await send(outside, 'eth0', framesTo(outside, outside.app));
      await marked(outside, listener, inbox, `after ${outside.name}'s first`);
      const { ipv4, ipv6 } = outside.own;
      for (const wanted of [`tcp ${ipv4}`, `tcp ${ipv6}`, `icmp ${ipv4}`, `icmpv6 ${ipv6}`]) {
        await eventually(`${outside.name}: ${wanted}`, async () => {
          const left: DepartedPacket[] = await lab.departed();
          return left.some(({ protocol, destination }) => `${protocol} ${destination}` === wanted) || undefined;
        });
      }

      const since = await lab.moment();
      const inTunnel = (await tunnel.peek()).length;
      const spoofed = [...framesTo(outside, exit.client, internet), ...firstPackets(outside.stations, connection)];
      await send(outside, 'eth0', [...framesTo(outside, exit.client), ...spoofed]);
      await marked(outside, listener, inbox, `after ${outside.name}'s second`);
      assert.deepEqual(await lab.leaks({ isUncovered: isDiscovery }, [], since), [], 'not even what exceptions allow');
      assert.deepEqual((await tunnel.peek()).slice(inTunnel), [], 'the far end would show it');
    }
    const heard = await Promise.all([...inboxes.values()].map((number) => listener.call('heard', number)));
    const places = [POLICY_ADDRESSES.app, POLICY_ADDRESSES.appOnCafe];
    const wanted = (family: 'ipv4' | 'ipv6') => places.map((place) => `for ${place[family]}`);
    const all = new Set(heard.flat().filter((message) => !message.startsWith('after ')));
    assert.deepEqual([...all].sort(), [...wanted('ipv4'), ...wanted('ipv6')].sort());
    const again = { ...question, isConnected: true };
    assert.equal(await listener.call('askOn', connected, again), 'again', 'the connection lives');
  });

  test(`${whose}: errors from outside about what it sends change nothing`, { timeout: 180_000 }, async (t) => {
    const lab = await policyLab(t);
    if (!lab) return;
    const { exit } = await raise(lab, victim);
    const user = await lab.prober({ uid });
    const inbox = await user.call('listen', 'udp', WILDCARD.ipv4, OPEN.ipv4);
    const [attacker] = await outsides(lab);
    assert.ok(attacker);
    const pathMtu = async (address: string) =>
      (await lab.app.run('ip', ['route', 'get', address, 'uid', String(uid)])).stdout.match(/mtu \d+/)?.[0];
    for (const [number, family] of FAMILIES.entries()) {
      const fd = await user.call('open', number === 0 ? 1 : 2, 'udp');
      const question = { transport: 'udp', address: internet[family], timeoutMs: 20_000 } as const;
      const wanted = `${exit.name} ${exit.client[family]}`;
      assert.equal(await user.call('askOn', fd, question), wanted);
      const { stdout } = await lab.app.run('ss', ['-Hun', 'dst', `[${internet[family]}]`]);
      const port = Number(/:(\d+)\s+\S+:7\s*$/m.exec(stdout)?.[1]);
      assert.ok(port > 0, stdout);
      const flow = { source: exit.client[family], destination: internet[family], sourcePort: port, destinationPort: 7 };
      const sources: string[] = [attacker.own[family], internet[family]];
      for (const source of sources) {
        for (const mtu of [undefined, 1280]) {
          const outer = { source, destination: attacker.app[family] };
          await send(attacker, 'eth0', [errorFrame(attacker.stations, outer, flow, mtu)]);
          await marked(attacker, user, inbox, `after ${family} ${source} ${mtu}`);
          assert.equal(await user.call('askOn', fd, { ...question, isConnected: true }), wanted, `${source} ${mtu}`);
          assert.equal(await pathMtu(internet[family]), undefined);
        }
      }
    }
    // About what goes outside they are heard.
    const outside = await user.call('open', 1, 'udp');
    if (uid === victim.owner) await user.call('protect', outside);
    const address = POLICY_ADDRESSES.lanHost.ipv4;
    const refused = { transport: 'udp', address, port: 9, timeoutMs: 20_000 } as const;
    assert.equal(await user.call('askOn', outside, refused), 'ECONNREFUSED');
  });

  test(`${whose}: nobody on a link is told who has the vNIC's address (ARP, neighbour discovery)`, {
    timeout: 180_000,
  }, async (t) => {
    const lab = await policyLab(t);
    if (!lab) return;
    const { exit } = await raise(lab, victim);
    const listener = await lab.prober({ uid });
    const inbox = await listener.call('listen', 'udp', WILDCARD.ipv4, OPEN.ipv4);
    for (const outside of await outsides(lab)) {
      const { stations, own, name } = outside;
      const questions = ({ ipv4, ipv6 }: { ipv4: string; ipv6: string }) => [
        // Of a neighbour, of somebody who checks for a duplicate, of somebody who claims the address.
        ...[own.ipv4, '0.0.0.0', ipv4].map((sender) => arpRequest(stations.from, sender, ipv4)),
        ...[own.ipv6, '::'].map((sender) => neighbourSolicitation(stations.from, sender, ipv6)),
        neighbourSolicitation(stations.from, own.ipv6, ipv6, stations.to),
        neighbourSolicitation(stations.from, internet.ipv6, ipv6),
      ];
      const answersFor = async ({ ipv4, ipv6 }: { ipv4: string; ipv6: string }): Promise<string[]> =>
        (await lab.departed()).flatMap((packet) => {
          const isArp = packet.protocol === 'arp' && packet.source === ipv4;
          const isNdp = packet.icmpType === NEIGHBOUR_ADVERTISEMENT && discoveryTarget(packet) === ipv6;
          return isArp ? ['arp'] : isNdp ? ['ndp'] : [];
        });
      const before = (await answersFor(outside.app)).length;
      await send(outside, 'eth0', [...questions(outside.app), ...questions(exit.client)]);
      await marked(outside, listener, inbox, `after ${name}`);
      await eventually(`${name}: the link's own address is answered for`, async () => {
        const answers = new Set((await answersFor(outside.app)).slice(before));
        return (answers.has('arp') && answers.has('ndp')) || undefined;
      });
      assert.deepEqual(await answersFor(exit.client), [], name);
    }
  });
}

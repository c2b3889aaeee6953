/**
 * A VPN's server, or its user by writing to the TUN, against those whom the VPN does not cover: errors about their flows, and
 * fragments of their datagrams; and somebody on the local network who adds a fragment to what a tunnel brings.
 *
 *   attacker 192.168.50.66 ── LAN ── eth0 app vpn-tunN ══ exitN, or a packet written to the TUN
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  errorFrame,
  type Flow,
  fragmentsOf,
  packetOf,
  redirectFrame,
  type Stations,
  udpFrame,
} from './lib/attackers/frames.js';
import { raise, type Tunnel, VICTIMS } from './lib/attackers/victim.js';
import { POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import type { Prober } from './lib/prober.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { eventually } from './lib/vpn-lab.js';

const { internet } = ADDRESSES;
const { app: HOST, router: ROUTER, attacker: ATTACKER } = POLICY_ADDRESSES;
const FAMILIES = ['ipv4', 'ipv6'] as const;
const WILDCARD = { ipv4: '0.0.0.0', ipv6: '::' };
const PORT = 5004;
const TIMEOUT = { timeout: 180_000 };
/** Whoever is left alone asks by the physical link, and hears from the real server. */
const OUTSIDE = 'server';
/** Shorter than any link here; of IPv6 the smallest there is. */
const SMALL = { ipv4: 600, ipv6: 1280 };

async function stationsOf(lab: PolicyLab): Promise<Stations> {
  const [link] = await lab.app.json('ip', ['-j', 'link', 'show', 'eth0']);
  return { from: await lab.mac(lab.attacker), to: String(link?.address) };
}

/** What arrived before this one in the tunnel has been looked at. */
async function afterwards(tunnel: Tunnel, listener: Prober, inbox: number, stations: Stations, text: string) {
  const flow = { source: internet.ipv4, destination: tunnel.exit.client.ipv4, sourcePort: 9, destinationPort: PORT };
  await tunnel.app.call('inject', tunnel.fd, packetOf(udpFrame(stations, flow, text)));
  await eventually(text, async () => (await listener.call('heard', inbox)).includes(text) || undefined);
}

for (const victim of VICTIMS) {
  const { whose, uncovered, covered } = victim;
  const [uid = 0] = covered;

  test(`${whose}: errors that come out of its tunnel about others' flows change nothing`, TIMEOUT, async (t) => {
    const lab = await policyLab(t);
    if (!lab) return;
    const tunnel = await raise(lab, victim);
    const stations = await stationsOf(lab);
    const listener = await lab.prober({ uid });
    const inbox = await listener.call('listen', 'udp', WILDCARD.ipv4, PORT);
    const other = await lab.prober({ uid: uncovered });
    const wayOf = async (address: string) =>
      (await lab.app.run('ip', ['route', 'get', address, 'uid', String(uncovered)])).stdout;
    for (const [index, family] of FAMILIES.entries()) {
      const fd = await other.call('open', index === 0 ? 1 : 2, 'udp');
      const question = { transport: 'udp', address: internet[family], timeoutMs: 20_000 } as const;
      assert.equal(await other.call('askOn', fd, question), `${OUTSIDE} ${HOST[family]}`);
      const { stdout } = await lab.app.run('ss', ['-Hun', 'dst', `[${internet[family]}]`]);
      const port = Number(/:(\d+)\s+\S+:7\s*$/m.exec(stdout)?.[1]);
      assert.ok(port > 0, stdout);
      const flow: Flow = {
        source: HOST[family],
        destination: internet[family],
        sourcePort: port,
        destinationPort: 7,
      };
      const outers = [internet[family], ROUTER[family]].map((source) => ({
        source,
        destination: tunnel.exit.client[family],
      }));
      const before = await wayOf(internet[family]);
      const frames = outers.flatMap((outer) => [
        errorFrame(stations, outer, flow),
        errorFrame(stations, outer, flow, SMALL[family]),
        ...(family === 'ipv4' ? [redirectFrame(stations, outer, flow, ATTACKER.ipv4)] : []),
      ]);
      for (const frame of frames) await tunnel.app.call('inject', tunnel.fd, packetOf(frame));
      await afterwards(tunnel, listener, inbox, stations, `after ${family}`);
      assert.equal(await other.call('askOn', fd, { ...question, isConnected: true }), `${OUTSIDE} ${HOST[family]}`);
      const after = await wayOf(internet[family]);
      assert.deepEqual(facts(after), facts(before), after);
    }
  });

  test(`${whose}: no datagram is put together from fragments of the tunnel and of a link`, TIMEOUT, async (t) => {
    const lab = await policyLab(t);
    if (!lab) return;
    const tunnel = await raise(lab, victim);
    const stations = await stationsOf(lab);
    const attacker = await lab.stranger(lab.attacker);
    const byLink = async (frame: string) => assert.equal(await attacker.call('sendFrame', 'eth0', frame), 'ok');
    const byTunnel = (frame: string) => tunnel.app.call('inject', tunnel.fd, packetOf(frame));
    let identification = 0x4242;
    for (const family of FAMILIES) {
      const sides = [
        { who: uid, own: byTunnel, other: byLink, destination: tunnel.exit.client[family], source: internet[family] },
        { who: uncovered, own: byLink, other: byTunnel, destination: HOST[family], source: ATTACKER[family] },
      ];
      for (const { who, own, other, destination, source } of sides) {
        const hearer: Prober = await lab.prober({ uid: who });
        const port = ++identification;
        const inbox: number = await hearer.call('listen', 'udp', WILDCARD[family], port);
        const flow = { source, destination, sourcePort: 7, destinationPort: port };
        const pieces = (text: string) => fragmentsOf(udpFrame(stations, flow, text.padEnd(64)), 32, ++identification);
        const mixes = [
          [other, own, 0],
          [own, other, 0],
          [other, own, 1],
          [own, other, 1],
        ] as const;
        for (const [one, two, first] of mixes) {
          const parts = pieces('mixed');
          await one(parts[first]);
          await two(parts[1 - first] ?? '');
        }
        const [head, tail] = pieces('whole');
        await own(head);
        await own(tail);
        const words = (): Promise<string[]> => hearer.call('heardWords', inbox);
        await eventually('what came by one way', async () => (await words()).includes('whole') || undefined);
        assert.deepEqual(await words(), ['whole'], `uid ${who}, ${family}`);
      }
    }
  });
}

/** What of a route others could have changed. */
function facts(route: string): string[] {
  return route.match(/\b(via \S+|dev \S+|mtu \d+|<redirected>)/g) ?? [];
}

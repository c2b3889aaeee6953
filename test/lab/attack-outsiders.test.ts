/**
 * A VPN is a boundary for those it does not cover: another user, one with a VPN of its own, one on the list of blocked ones, root.
 * They neither send into a vNIC nor receive from it, whatever they bind to.
 *
 *   app: vpn-tunA of root's (not uid 2003) ══ exit1 10.9.0.1      vpn-tunB of uid 2001's ══ exit2 10.10.0.1
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { raise, type Tunnel } from './lib/attackers/victim.js';
import { type PolicyLab, policyLab } from './lib/policy-lab.js';
import type { Prober } from './lib/prober.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { eventually } from './lib/vpn-lab.js';

const { internet } = ADDRESSES;
const FAMILIES = ['ipv4', 'ipv6'] as const;
const WILDCARD = { ipv4: '0.0.0.0', ipv6: '::' };
const TRANSPORTS = ['tcp', 'udp'] as const;
const ROOT = { owner: 0, config: { blockedApplications: ['uid:2003'] } };
const USER = { owner: 2001, config: {} };

interface Side {
  whose: string;
  tunnel: Tunnel;
  covered: number;
  outsiders: readonly number[];
}

/** Both VPNs up, each with those who are none of its business. */
async function twoVpns(t: TestContext): Promise<{ lab: PolicyLab; sides: Side[] } | undefined> {
  const lab = await policyLab(t, { networks: [1, 2] });
  if (!lab) return undefined;
  const [root, user] = [await raise(lab, ROOT, {}, 1), await raise(lab, USER, {}, 2)];
  const sides = [
    { whose: "a user's VPN", tunnel: user, covered: 2001, outsiders: [2002, 2003, 0] },
    { whose: "root's VPN", tunnel: root, covered: 2002, outsiders: [2001, 2003] },
  ];
  return { lab, sides };
}

interface Listener {
  what: string;
  transport: 'tcp' | 'udp';
  family: 'ipv4' | 'ipv6';
  port: number;
  prober: Prober;
  inbox: number;
}

test('nobody but those it covers receives from a vNIC: wildcard, its address, its device', {
  timeout: 240_000,
}, async (t) => {
  const { lab, sides } = (await twoVpns(t)) ?? {};
  if (!lab || !sides) return;
  let port = 5000;
  for (const { whose, tunnel, covered, outsiders } of sides) {
    const { exit, device } = tunnel;
    const listeners: Listener[] = [];
    for (const uid of [...outsiders, covered]) {
      const prober = await lab.prober({ uid });
      for (const family of FAMILIES) {
        const ways = [
          { how: 'wildcard', args: [WILDCARD[family]] },
          { how: 'address', args: [exit.client[family]] },
          { how: 'device', args: [WILDCARD[family], device] },
        ] as const;
        for (const { how, args } of ways) {
          for (const transport of TRANSPORTS) {
            const [address, ...bindTo] = args;
            const inbox = await prober.call('listen', transport, address, ++port, ...bindTo);
            listeners.push({ what: `${uid} ${transport} ${family} ${how}`, transport, family, port, prober, inbox });
          }
        }
      }
    }
    const capture = await lab.app.capture(device);
    const far = await lab.stranger(exit.host);
    // The far end learns from the first packet where the tunnel is.
    await lab.probe({ uid: covered, protocol: 'udp', target: exit.ipv4 });
    const isCovered = ({ what }: Listener) => what.startsWith(`${covered} `);
    const knock = ({ transport, family, port: to }: Listener) =>
      far.call('probe', { protocol: transport, target: exit.client[family], port: to, timeoutMs: 3000 });
    // The covered one's come last: when they have heard, all others would have.
    for (const some of [listeners.filter((listener) => !isCovered(listener)), listeners.filter(isCovered)]) {
      await Promise.all(some.map(knock));
    }
    for (const listener of listeners.filter(isCovered)) {
      await eventually(listener.what, async () => {
        const [first] = await listener.prober.call('heard', listener.inbox);
        // Who knocked has given up before the tunnel came to it.
        if (first === undefined) await knock(listener);
        return first;
      });
    }
    for (const { what, prober, inbox } of listeners.filter((listener) => !isCovered(listener))) {
      assert.deepEqual(await prober.call('heard', inbox), [], `${whose}: ${what}`);
    }
    const silent = new Set(listeners.filter((listener) => !isCovered(listener)).map((listener) => listener.port));
    const told = (await capture.stop()).filter(({ sourcePort }) => silent.has(sourcePort ?? 0));
    assert.deepEqual(told, [], `${whose}: the far end does not learn that they listen`);
  }
});

test('nobody but those it covers sends into a vNIC, and nothing with its address leaves elsewhere', {
  timeout: 240_000,
}, async (t) => {
  const { lab, sides } = (await twoVpns(t)) ?? {};
  if (!lab || !sides) return;
  for (const { whose, tunnel, covered, outsiders } of sides) {
    const { exit, device } = tunnel;
    const capture = await lab.app.capture(device);
    for (const family of FAMILIES) {
      const source = exit.client[family];
      const ways = [{ bindTo: device }, { source }, { bindTo: device, source }, { bindTo: 'eth0', source }];
      for (const uid of outsiders) {
        for (const way of ways) {
          for (const protocol of ['tcp', 'udp', 'icmp', 'dns-udp'] as const) {
            for (const target of [internet[family], exit[family]]) {
              const answer = await lab.probe({ uid, protocol, target, ...way, timeoutMs: 150 });
              const what = `${whose}: ${uid} ${protocol} ${target} ${JSON.stringify(way)}`;
              assert.ok('error' in answer, `${what}: ${JSON.stringify(answer)}`);
            }
          }
        }
      }
    }
    const entered = await capture.peek();
    assert.deepEqual(
      entered.map(({ protocol, source, destination }) => `${protocol} ${source} > ${destination}`),
      [],
    );
    // The capture would have shown it.
    const answer = await lab.probe({ uid: covered, protocol: 'tcp', target: internet.ipv4, bindTo: device });
    assert.deepEqual(answer, { side: exit.name, source: exit.client.ipv4 });
    assert.notDeepEqual(await capture.stop(), []);
    const own = new Set<string>(Object.values(exit.client));
    const left = await lab.departed();
    assert.deepEqual(
      left.filter(({ source }) => own.has(source)),
      [],
      'nothing leaves with its address',
    );
  }
});

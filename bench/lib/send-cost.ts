/**
 * What other people's VPNs cost a process that none of them covers: nanoseconds a UDP send, by an ordinary user and by root, in
 * hosts with and without VPNs, which stand at once and are asked in turns. One host has the VPNs' interfaces and addresses
 * only: what they cost by themselves is no rule's doing (for IPv6 the kernel looks through every address of the host to
 * choose a source, unless the socket is bound to one).
 */
import type { LabHost } from '../../test/lab/lib/host.js';
import type { Lab } from '../../test/lab/lib/lab.js';
import { startVpnd } from '../../test/lab/lib/vpnd.js';
import { crowdPolicy } from './crowd.js';
import { Driver } from './driver.js';
import { median } from './statistics.js';

export const CROWDS = {
  none: { count: 0, kind: 'plain' },
  '100 TUNs': { count: 100, kind: 'tun' },
  '100 VPNs': { count: 100, kind: 'plain' },
  '100 with DNS': { count: 100, kind: 'dns' },
  '1,000 VPNs': { count: 1000, kind: 'plain' },
} as const;
export type Crowd = keyof typeof CROWDS;

export interface SendCost {
  who: string;
  nanoseconds: Record<Crowd, number>;
}

const USERS = { 'a user': 3001, root: 0 };
const SOURCES = { IPv4: '192.0.2.2', IPv6: '2001:db8:1::2' };
const TARGETS = { IPv4: '198.51.100.1', IPv6: '2001:db8:2::1' };
const ROUND_MS = 40;

export async function sendCost(lab: Lab, rounds: number, program: string): Promise<SendCost[]> {
  const hosts = new Map<Crowd, LabHost>();
  for (const crowd of Object.keys(CROWDS) as Crowd[]) hosts.set(crowd, await crowdedHost(lab, crowd));
  const costs: SendCost[] = [];
  for (const [user, uid] of Object.entries(USERS)) {
    for (const family of ['IPv4', 'IPv6'] as const) {
      for (const source of [[], [SOURCES[family]]]) {
        const args = [TARGETS[family], String(uid), ...source];
        const times = await inTurns(hosts, rounds, (host) => host.spawn(program, args));
        const nanoseconds = Object.fromEntries([...times].map(([crowd, all]) => [crowd, median(all)]));
        const who = `${user}, ${family}${source.length > 0 ? ', bound' : ''}`;
        costs.push({ who, nanoseconds: nanoseconds as Record<Crowd, number> });
      }
    }
  }
  return costs;
}

async function crowdedHost(lab: Lab, crowd: Crowd): Promise<LabHost> {
  const host = await lab.host(crowd);
  const { count, kind } = CROWDS[crowd];
  const vpnd = await startVpnd(host, { policy: crowdPolicy() });
  const args = [String(count), kind];
  const vpns = host.spawnNode('dist/bench/lib/many-vpns.js', args, { env: { VPND_SOCKET: vpnd.socket } });
  await vpns.waitFor(/^ready$/m, 300_000);
  await host.configure('sink0', [`${SOURCES.IPv4}/24`, `${SOURCES.IPv6}/64`]);
  await host.ip('route add default dev sink0', 'route add ::/0 dev sink0');
  return host;
}

async function inTurns(
  hosts: ReadonlyMap<Crowd, LabHost>,
  rounds: number,
  start: (host: LabHost) => ReturnType<LabHost['spawn']>,
): Promise<Map<Crowd, number[]>> {
  const drivers = [...hosts].map(([crowd, host]) => ({ crowd, driver: new Driver(start(host)) }));
  const times = new Map<Crowd, number[]>(drivers.map(({ crowd }) => [crowd, []]));
  for (const { driver } of drivers) await driver.ask(String(ROUND_MS));
  for (let round = 0; round < rounds; round++) {
    for (const { crowd, driver } of drivers) {
      times.get(crowd)?.push(Number(await driver.ask(String(ROUND_MS))));
    }
  }
  for (const { driver } of drivers) await driver.stop();
  return times;
}

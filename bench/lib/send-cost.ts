/**
 * What other people's VPNs cost a process that none of them covers: nanoseconds a UDP send, by an ordinary user and by root,
 * in hosts with 0, 100 and 1,000 VPNs and one with 100 that bring DNS servers. All hosts stand at once and are asked in turns.
 */
import type { LabHost } from '../../test/lab/lib/host.js';
import type { Lab } from '../../test/lab/lib/lab.js';
import { startVpnd } from '../../test/lab/lib/vpnd.js';
import { crowdPolicy } from './crowd.js';
import { Driver } from './driver.js';
import { median } from './statistics.js';

export const CROWDS = ['0', '100', '1000', '100 with DNS'] as const;
export type Crowd = (typeof CROWDS)[number];

export interface SendCost {
  who: string;
  family: string;
  nanoseconds: Record<Crowd, number>;
}

const UNCOVERED = 3001;
const TARGETS = { IPv4: '198.51.100.1', IPv6: '2001:db8:2::1' };
const ROUND_MS = 40;

export async function sendCost(lab: Lab, rounds: number, program: string): Promise<SendCost[]> {
  const hosts = new Map<Crowd, LabHost>();
  for (const crowd of CROWDS) hosts.set(crowd, await crowdedHost(lab, crowd));
  const costs: SendCost[] = [];
  for (const uid of [UNCOVERED, 0]) {
    for (const [family, address] of Object.entries(TARGETS)) {
      const times = await inTurns(hosts, rounds, (host) => host.spawn(program, [address, String(uid)]));
      const nanoseconds = Object.fromEntries(CROWDS.map((crowd) => [crowd, median(times.get(crowd) ?? [])]));
      costs.push({ who: uid === 0 ? 'root' : 'a user', family, nanoseconds: nanoseconds as Record<Crowd, number> });
    }
  }
  return costs;
}

async function crowdedHost(lab: Lab, crowd: Crowd): Promise<LabHost> {
  const host = await lab.host(crowd);
  const [count = '0'] = crowd.split(' ');
  const vpnd = await startVpnd(host, { policy: crowdPolicy() });
  const args = [count, crowd.endsWith('DNS') ? 'dns' : 'plain'];
  const vpns = host.spawnNode('dist/bench/lib/many-vpns.js', args, { env: { VPND_SOCKET: vpnd.socket } });
  await vpns.waitFor(/^ready$/m, 300_000);
  await host.configure('sink0', ['192.0.2.2/24', '2001:db8:1::2/64']);
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

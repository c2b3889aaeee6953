/**
 * Throughput in two hosts that differ only in what vpnd does: in one 16 users have VPNs, in the other user 0's TUN is a plain
 * one with a route, and there is no service. In each, user 0 sends into its TUN, whose packets a C program carries to a
 * namespace behind it, and a stranger sends over the veth to the same namespace:
 *
 *   host                                             sink
 *   uid 10000 ── TUN 10.9.0.2 ═══ bulk relay ═══════ far0, lo 203.0.113.10, 2001:db8:f::10
 *   uid 3001  ── eth0 192.0.2.2 ──────────────────── eth0 192.0.2.1, 2001:db8:1::1
 */
import { availableParallelism } from 'node:os';
import type { LabHost } from '../../test/lab/lib/host.js';
import type { Lab } from '../../test/lab/lib/lab.js';
import { startVpnd, type Vpnd } from '../../test/lab/lib/vpnd.js';
import { Driver } from './driver.js';
import { benchPolicy, FIRST_POLICY_UID, POLICY_VPNS, TUNNEL_TARGETS } from './policy-configs.js';
import { median } from './statistics.js';

export interface Site {
  host: LabHost;
  vpns: Driver;
  vpnd: Vpnd | undefined;
}

export interface Throughput {
  what: string;
  unit: 'Mbit/s' | 'packets/s';
  without: number;
  with: number;
  /** Median of the rounds' ratios: the machine's speed drifts more between rounds than within one. */
  ratio: number;
}

export interface Programs {
  bulk: string;
  send: string;
}

const STRANGER = 3001;
const LINK_TARGETS = { IPv4: '192.0.2.1', IPv6: '2001:db8:1::1' } as const;
const SCRIPT = 'dist/bench/lib/policy-vpns.js';
const ROUND_MS = 150;
/**
 * Where the scheduler puts three busy processes on few cores would decide more than what is measured: the relay has one core,
 * the ends another. Words for taskset(1).
 */
const [SENDER_CPU, RELAY_CPU] = [
  ['-c', '0'],
  ['-c', availableParallelism() > 1 ? '1' : '0'],
];

/** With `cgroups`, the lists of the VPNs name cgroups below it. Without: no service, no VPN. */
export async function buildSite(lab: Lab, name: string, bulk: string, service?: { cgroups?: string }): Promise<Site> {
  const [host, sink] = await Promise.all([lab.host(name), lab.host(`${name}-sink`)]);
  await lab.link(host, 'eth0', ['192.0.2.2/24', '2001:db8:1::2/64'], sink, 'eth0', [
    `${LINK_TARGETS.IPv4}/24`,
    `${LINK_TARGETS.IPv6}/64`,
  ]);
  await host.ip(`route add default via ${LINK_TARGETS.IPv4}`, `route add ::/0 via ${LINK_TARGETS.IPv6}`);
  const vpnd = service && (await startVpnd(host, { policy: benchPolicy('private') }));
  const env = vpnd && { env: { VPND_SOCKET: vpnd.socket } };
  const vpns = new Driver(host.spawnNode(SCRIPT, service?.cgroups === undefined ? [] : [service.cgroups], { ...env }));
  if (vpnd) for (let index = 0; index < POLICY_VPNS; index++) await vpns.ask(`up ${index}`);
  else await vpns.ask('plain');
  await vpns.ask(`relay ${RELAY_CPU[1]} ${bulk} far0 ${sink.pid}`);
  await sink.configure('far0', ['10.9.0.1/24', 'fd09::1/64']);
  await sink.configure('lo', [`${TUNNEL_TARGETS.IPv4}/32`, `${TUNNEL_TARGETS.IPv6}/128`]);
  await sink.spawn('taskset', [...SENDER_CPU, bulk, 'sink']).waitFor(/^ready$/m);
  return { host, vpns, vpnd };
}

export async function throughput(
  without: Site,
  withVpns: Site,
  rounds: number,
  programs: Programs,
): Promise<Throughput[]> {
  const results: Throughput[] = [];
  for (const [who, uid, targets] of [
    ['covered', FIRST_POLICY_UID, TUNNEL_TARGETS],
    ['uncovered', STRANGER, LINK_TARGETS],
  ] as const) {
    for (const family of ['IPv4', 'IPv6'] as const) {
      const target = targets[family];
      const of = (program: string, ...words: string[]) => [program, ...words, target, String(uid)];
      const nsToRate = (value: number) => 1e9 / value;
      results.push(
        await inTurns(`${who}, ${family}, TCP`, 'Mbit/s', [without, withVpns], rounds, of(programs.bulk, 'send')),
        await inTurns(`${who}, ${family}, UDP`, 'packets/s', [without, withVpns], rounds, of(programs.send), nsToRate),
      );
    }
  }
  return results;
}

async function inTurns(
  what: string,
  unit: Throughput['unit'],
  sites: readonly [Site, Site],
  rounds: number,
  program: readonly string[],
  convert = (value: number) => value,
): Promise<Throughput> {
  const drivers = sites.map(({ host }) => new Driver(host.spawn('taskset', [...SENDER_CPU, ...program])));
  const measure = async (driver: Driver | undefined) => convert(Number(await driver?.ask(String(ROUND_MS))));
  for (const driver of drivers) await measure(driver);
  const pairs: [number, number][] = [];
  for (let round = 0; round < rounds; round++) {
    // Who goes second finds the machine warm, or throttled: both take turns at it.
    const isSwapped = round % 2 === 1;
    const first = await measure(drivers[isSwapped ? 1 : 0]);
    const second = await measure(drivers[isSwapped ? 0 : 1]);
    pairs.push(isSwapped ? [second, first] : [first, second]);
  }
  for (const driver of drivers) await driver.stop();
  return {
    what,
    unit,
    without: median(pairs.map(([value]) => value)),
    with: median(pairs.map(([, value]) => value)),
    ratio: median(pairs.map(([a, b]) => b / a)),
  };
}

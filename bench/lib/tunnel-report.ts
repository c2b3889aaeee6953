/** The tables of bench:tunnel, and what was wanted of their figures. */
import { printTable, printWanted, printWantedAtLeast } from './table.js';
import { type IdleUse, processes } from './tunnel-idle.js';
import { KINDS, type Kind, TITLES, type Tunnel } from './tunnel-kinds.js';
import type { LatencySample } from './tunnel-latency.js';
import { middle, type Rounds, ratio, span } from './tunnel-rounds.js';
import type { Load, ThroughputSample } from './tunnel-throughput.js';
import { residentMegabytes } from './tunnel-usage.js';

const OTHER = 'wireguard-go';
const WANTED = { throughput: 1.5, cpu: 0.8, latency: 1.5, wakeUps: 0, residentMegabytes: 100 };

export function printThroughput(load: Load, samples: Rounds<ThroughputSample>): void {
  const gigabits = (sample: ThroughputSample) => sample.gigabits;
  const cpu = (sample: ThroughputSample) => sample.sending + sample.receiving;
  const isUdp = load.startsWith('UDP');
  printTable(
    `${load} (CPU: seconds a gigabyte of the tunnel's processes)`,
    [
      '',
      'Gbit/s',
      'from-to',
      'of w-go',
      isUdp ? 'lost %' : 'retransmits',
      'CPU sending',
      'receiving',
      'both',
      'of w-go',
    ],
    measured(samples).map((kind) => {
      const [least, most] = span(samples, kind, gigabits);
      const of = (figure: (sample: ThroughputSample) => number) => digits(middle(samples, kind, figure));
      return [
        TITLES[kind],
        of(gigabits),
        `${least.toFixed(2)}-${most.toFixed(2)}`,
        digits(ratio(samples, kind, OTHER, gigabits)),
        isUdp ? of((sample) => sample.lostPercent) : middle(samples, kind, (sample) => sample.retransmits).toFixed(0),
        of((sample) => sample.sending),
        of((sample) => sample.receiving),
        of(cpu),
        digits(ratio(samples, kind, OTHER, cpu)),
      ];
    }),
  );
  if (isUdp || !isCompared(samples)) return;
  printWantedAtLeast(`${load}, of wireguard-go's`, ratio(samples, 'this', OTHER, gigabits), WANTED.throughput);
  printWanted(`${load}, CPU a gigabyte, of wireguard-go's`, ratio(samples, 'this', OTHER, cpu), WANTED.cpu);
}

export function printLatency(when: string, samples: Rounds<LatencySample>): void {
  const p50 = (sample: LatencySample) => sample.p50;
  printTable(
    `round trip, ${when}, ms`,
    ['', 'p50', 'of w-go', 'p99', 'of w-go', 'lost'],
    measured(samples).map((kind) => [
      TITLES[kind],
      digits(middle(samples, kind, p50), 3),
      digits(ratio(samples, kind, OTHER, p50)),
      digits(
        middle(samples, kind, ({ p99 }) => p99),
        3,
      ),
      digits(ratio(samples, kind, OTHER, ({ p99 }) => p99)),
      digits(
        middle(samples, kind, ({ lost }) => lost),
        0,
      ),
    ]),
  );
  if (when !== 'idle' || !isCompared(samples)) return;
  printWanted("idle latency, of wireguard-go's", ratio(samples, 'this', OTHER, p50), WANTED.latency);
}

/** After everything else: memory is what they have grown to. */
export function printUse(tunnels: readonly Tunnel[], idle: readonly IdleUse[], seconds: number): void {
  const rows = processes(tunnels).map((each) => ({
    ...each,
    megabytes: residentMegabytes(each.pid),
    idle: idle.find(({ tunnel, end }) => tunnel === each.tunnel && end === each.end),
  }));
  if (rows.length === 0) return;
  const head = idle.length > 0 ? [`wake-ups in ${seconds} s idle`, 'CPU ms', 'packets'] : [];
  printTable(
    'each process',
    ['', 'resident MB', ...head],
    rows.map(({ tunnel, end, megabytes, idle: use }) => [
      `${TITLES[tunnel.kind]}, ${end}`,
      megabytes.toFixed(0),
      ...(use ? [use.wakeUps, use.cpuMs, use.packets].map((figure) => figure.toFixed(0)) : []),
    ]),
  );
  for (const { tunnel, end, megabytes, idle: use } of rows) {
    if (tunnel.kind !== 'this') continue;
    printWanted(`resident MB, ${end}`, megabytes, WANTED.residentMegabytes, 0);
    if (use) printWanted(`wake-ups while idle, beyond timers, ${end}`, use.wakeUps, WANTED.wakeUps, 0);
  }
}

function measured(samples: Rounds<unknown>): Kind[] {
  return KINDS.filter((kind) => samples.has(kind));
}

function isCompared(samples: Rounds<unknown>): boolean {
  return samples.has('this') && samples.has(OTHER);
}

function digits(figure: number, count = 2): string {
  return Number.isNaN(figure) ? '' : figure.toFixed(count);
}

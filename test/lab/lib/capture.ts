/**
 * What really crossed a link: tcpdump in the host's namespace, parsed by pcap.ts. A capture has begun when start returns,
 * and stop() loses nothing: it first waits until tcpdump has seen all that the kernel counted.
 */
import type { LabHost } from './host.js';
import { type CapturedPacket, parsePcap } from './pcap.js';
import type { LabProcess } from './process.js';

export interface Capture {
  /** The packets so far; the capture goes on. */
  peek(): Promise<CapturedPacket[]>;
  stop(): Promise<CapturedPacket[]>;
}

/**
 * tcpdump -U writes each packet at once; --immediate-mode takes it from the kernel at once. The ring holds B / s packets:
 * 32 MiB of 4 KiB, enough for seconds of a slow machine. A larger packet (veth keeps GSO packets whole) loses its tail.
 */
const OPTIONS = ['-n', '-U', '--immediate-mode', '-s', '4096', '-B', '32768', '-Z', 'root', '-w', '-'];

export async function startCapture(host: LabHost, device: string, filter: readonly string[]): Promise<Capture> {
  const tcpdump = host.spawn('tcpdump', ['-i', device, ...OPTIONS, ...filter]);
  await tcpdump.waitFor(/listening on/);
  return {
    peek: async () => {
      await drain(tcpdump);
      return parsePcap(tcpdump.stdoutBytes);
    },
    stop: async () => {
      await drain(tcpdump);
      await tcpdump.kill('SIGINT');
      return parsePcap(tcpdump.stdoutBytes);
    },
  };
}

/** Of reports that say the same, a second at least: nothing more comes. */
const STEADY_ROUNDS = 60;

/**
 * SIGUSR1 makes tcpdump say how many packets it has written and how many the kernel gave it. A link that is gone ends
 * tcpdump by itself, with everything written.
 */
async function drain(tcpdump: LabProcess): Promise<void> {
  await sleep(30);
  let steady = { counts: '', rounds: 0 };
  for (let round = 1; tcpdump.running && round <= 200; round++) {
    const before = reports(tcpdump).length;
    process.kill(tcpdump.pid, 'SIGUSR1');
    for (let tries = 0; tries < 100 && tcpdump.running && reports(tcpdump).length === before; tries++) await sleep(5);
    const [report, captured, received, dropped] = reports(tcpdump).at(-1) ?? [];
    if (Number(dropped) > 0) throw new Error(`tcpdump lost packets: ${report}`);
    if (reports(tcpdump).length > before && captured === received) return;
    // What the kernel took before it knew the filter is counted and never written.
    const counts = `${captured} ${received}`;
    steady = { counts, rounds: counts === steady.counts ? steady.rounds + 1 : 0 };
    if (steady.rounds === STEADY_ROUNDS) return;
    await sleep(10);
  }
  if (tcpdump.running) throw new Error(`tcpdump does not keep up: ${reports(tcpdump).at(-1)?.[0]}`);
}

function reports(tcpdump: LabProcess): RegExpExecArray[] {
  return [
    ...tcpdump.stderr.matchAll(/(\d+) packets? captured, (\d+) packets? received by filter, (\d+) packets? dropped/g),
  ];
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

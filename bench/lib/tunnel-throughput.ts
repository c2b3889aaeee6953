/** iperf3 through each kind of tunnel, and what the tunnel's processes pay for it. */
import { type IperfOptions, type IperfResult, iperf } from '../../test/lab/lib/iperf3.js';
import type { Tunnel } from './tunnel-kinds.js';
import { inRounds, type Rounds } from './tunnel-rounds.js';
import { cpuSeconds } from './tunnel-usage.js';

export interface ThroughputSample {
  gigabits: number;
  retransmits: number;
  lostPercent: number;
  /** CPU seconds for a gigabyte that arrived, of the process at the sending and at the receiving end. NaN for the veth. */
  sending: number;
  receiving: number;
}

export const LOADS = {
  'TCP, 1 stream': { streams: 1 },
  'TCP, 4 streams': { streams: 4 },
  /** With IPv6 inside they would just fit as well. */
  'UDP, 1372 bytes': { udpBytes: 1372 },
} as const satisfies Record<string, IperfOptions>;
export type Load = keyof typeof LOADS;

export async function throughput(
  tunnels: readonly Tunnel[],
  load: Load,
  rounds: number,
  seconds: number,
): Promise<Rounds<ThroughputSample>> {
  return inRounds(tunnels, rounds, async ({ left, target, pids }) => {
    const cpu = () =>
      (pids ? [cpuSeconds(pids.left), cpuSeconds(pids.right)] : [Number.NaN, Number.NaN]) as [number, number];
    const before = cpu();
    const result: IperfResult = await iperf(left, target, { ...LOADS[load], seconds });
    const after = cpu();
    const gigabytes = result.bytes / 1e9;
    return {
      gigabits: result.bitsPerSecond / 1e9,
      retransmits: result.retransmits,
      lostPercent: result.lostPercent,
      sending: (after[0] - before[0]) / gigabytes,
      receiving: (after[1] - before[1]) / gigabytes,
    };
  });
}

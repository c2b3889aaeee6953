/**
 * What a flood of 10^5 datagrams does to a session that is up: its TCP throughput beside the flood, of that a moment before.
 * A wireguard-go sends to this tunnel, and a third host floods it, as in test/lab/wireguard-flood.test.ts.
 */
import { iperf, startIperf } from '../../test/lab/lib/iperf3.js';
import { INSIDE } from '../../test/lab/lib/two-hosts.js';
import { type Flood, startAttacker } from '../../test/lab/lib/wireguard-attacker.js';
import { PORTS, pingSizes, startPair } from '../../test/lab/lib/wireguard-lab.js';
import { median } from './statistics.js';

export const FLOOD_DATAGRAMS = 100_000;
/** Of the host that is flooded, on the cable to the one that does it. */
const FLOODED = '203.0.113.1';

export interface FloodResult {
  what: string;
  /** Medians. */
  quiet: number;
  flooded: number;
  ratio: number;
}

export async function floods(rounds: number, seconds: number): Promise<FloodResult[]> {
  const ends: (() => unknown)[] = [];
  const pair = await startPair({ after: (end) => void ends.push(end as () => unknown) });
  try {
    const attacker = await startAttacker(pair.lab, pair.here, pair.there);
    await startIperf(pair.here, INSIDE.IPv4.here);
    // Only this tunnel knows where the other one is.
    await pingSizes(pair.here, INSIDE.IPv4.there, [56]);
    const measure = async () => (await iperf(pair.there, INSIDE.IPv4.here, { seconds })).bitsPerSecond / 1e9;
    await measure();
    const kinds: [string, Flood][] = [
      ['initiations with a right mac1', { kind: 'initiation', publicKey: pair.ours.publicKey }],
      ['garbage', { kind: 'garbage' }],
    ];
    const results: FloodResult[] = [];
    for (const [what, flood] of kinds) {
      const samples: { quiet: number; flooded: number }[] = [];
      for (let round = 0; round < rounds; round++) {
        const quiet = await measure();
        const count = FLOOD_DATAGRAMS;
        const options = { address: FLOODED, port: PORTS.here, count, perSecond: Math.ceil(count / seconds) };
        const { sent } = await attacker.flood(flood, options);
        samples.push({ quiet, flooded: await measure() });
        await sent;
      }
      results.push({
        what,
        quiet: median(samples.map(({ quiet }) => quiet)),
        flooded: median(samples.map(({ flooded }) => flooded)),
        ratio: median(samples.map(({ quiet, flooded }) => flooded / quiet)),
      });
    }
    return results;
  } finally {
    for (const end of ends) await end();
  }
}

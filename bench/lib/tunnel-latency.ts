/** Round trips through each kind of tunnel, of ping(8), while nothing else goes on and beside a TCP stream as fast as it can. */
import { iperf } from '../../test/lab/lib/iperf3.js';
import { quantile } from './statistics.js';
import type { Tunnel } from './tunnel-kinds.js';
import { inRounds, type Rounds } from './tunnel-rounds.js';

/** Milliseconds. */
export interface LatencySample {
  p50: number;
  p99: number;
  lost: number;
}

const INTERVAL_SECONDS = 0.01;
/** What the stream needs to get up to speed. */
const RAMP_MS = 400;

export async function idleLatency(
  tunnels: readonly Tunnel[],
  rounds: number,
  seconds: number,
): Promise<Rounds<LatencySample>> {
  return inRounds(tunnels, rounds, (tunnel) => ping(tunnel, seconds));
}

export async function loadedLatency(
  tunnels: readonly Tunnel[],
  rounds: number,
  seconds: number,
): Promise<Rounds<LatencySample>> {
  return inRounds(tunnels, rounds, async (tunnel) => {
    const load = iperf(tunnel.left, tunnel.target, { seconds: seconds + 1 });
    await new Promise((resolve) => setTimeout(resolve, RAMP_MS));
    const sample = await ping(tunnel, seconds);
    await load;
    return sample;
  });
}

async function ping({ left, target }: Tunnel, seconds: number): Promise<LatencySample> {
  const count = Math.round(seconds / INTERVAL_SECONDS);
  const words = ['-n', '-i', String(INTERVAL_SECONDS), '-c', String(count), '-W', '2', target];
  const { stdout } = await left.run('ping', words, { timeoutMs: (seconds + 20) * 1000, check: false });
  const times = [...stdout.matchAll(/time=([\d.]+) ms/g)].map(([, time]) => Number(time));
  return { p50: quantile(times, 0.5), p99: quantile(times, 0.99), lost: count - times.length };
}

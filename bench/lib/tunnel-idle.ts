/**
 * What the tunnels' processes do when there is nothing to do: all of them at once, in spans without traffic. The middle one of
 * three is told: what happens once, such as the end of a session's time, is in one of them only, what is periodic in each.
 */
import { median } from './statistics.js';
import type { Tunnel } from './tunnel-kinds.js';
import { cpuSeconds, wakeUps } from './tunnel-usage.js';

export interface IdleUse {
  tunnel: Tunnel;
  end: 'left' | 'right';
  cpuMs: number;
  wakeUps: number;
  /** Packets that went through the interface all the same, in both directions. */
  packets: number;
}

/** After the last packet a WireGuard still answers within 10 s (keepalive) and asks after 15 s (new handshake). */
export const QUIET_SECONDS = 20;

const SPANS = 3;

export async function idleUse(tunnels: readonly Tunnel[], seconds: number): Promise<IdleUse[]> {
  await sleep(QUIET_SECONDS);
  const readings = [await Promise.all(processes(tunnels).map(read))];
  for (let span = 0; span < SPANS; span++) {
    await sleep(seconds);
    readings.push(await Promise.all(processes(tunnels).map(read)));
  }
  return processes(tunnels).map(({ tunnel, end }, index) => {
    const grown = (figure: keyof Use) => {
      const figures = readings.map((reading) => reading[index]?.[figure] ?? Number.NaN);
      return median(figures.slice(1).map((after, span) => after - (figures[span] ?? Number.NaN)));
    };
    return { tunnel, end, cpuMs: grown('cpu') * 1000, wakeUps: grown('wakes'), packets: grown('packets') };
  });
}

export function processes(tunnels: readonly Tunnel[]): { tunnel: Tunnel; end: 'left' | 'right'; pid: number }[] {
  return tunnels.flatMap((tunnel) => {
    const { pids } = tunnel;
    return pids ? (['left', 'right'] as const).map((end) => ({ tunnel, end, pid: pids[end] })) : [];
  });
}

interface Use {
  cpu: number;
  wakes: number;
  packets: number;
}

async function read({ tunnel, end, pid }: ReturnType<typeof processes>[number]): Promise<Use> {
  const host = tunnel[end];
  const [link] = await host.json<LinkStatistics[]>('ip', ['-j', '-s', 'link', 'show', 'dev', tunnel.device]);
  const packets = (link?.stats64.rx.packets ?? 0) + (link?.stats64.tx.packets ?? 0);
  return { cpu: cpuSeconds(pid), wakes: wakeUps(pid), packets };
}

interface LinkStatistics {
  stats64: Record<'rx' | 'tx', { packets: number }>;
}

function sleep(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}

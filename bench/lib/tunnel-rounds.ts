/**
 * Measurements in turns: every kind once in a round, and who begins changes from round to round, because the machine's speed
 * drifts more between rounds than within one. Ratios are formed within a round.
 */
import { median } from './statistics.js';
import type { Kind, Tunnel } from './tunnel-kinds.js';

export type Rounds<Sample> = Map<Kind, Sample[]>;

export async function inRounds<Sample>(
  tunnels: readonly Tunnel[],
  rounds: number,
  measure: (tunnel: Tunnel) => Promise<Sample>,
): Promise<Rounds<Sample>> {
  const samples: Rounds<Sample> = new Map(tunnels.map(({ kind }) => [kind, []]));
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < tunnels.length; turn++) {
      const tunnel = tunnels[(round + turn) % tunnels.length];
      if (tunnel) samples.get(tunnel.kind)?.push(await measure(tunnel));
    }
  }
  return samples;
}

/** Median of a figure. */
export function middle<Sample>(samples: Rounds<Sample>, kind: Kind, figure: (sample: Sample) => number): number {
  return median((samples.get(kind) ?? []).map(figure));
}

export function span<Sample>(
  samples: Rounds<Sample>,
  kind: Kind,
  figure: (sample: Sample) => number,
): [number, number] {
  const figures = (samples.get(kind) ?? []).map(figure);
  return [Math.min(...figures), Math.max(...figures)];
}

/** Median of the rounds' ratios of one kind to another; NaN where one of them is not measured. */
export function ratio<Sample>(
  samples: Rounds<Sample>,
  kind: Kind,
  to: Kind,
  figure: (sample: Sample) => number,
): number {
  const others = samples.get(to) ?? [];
  return median(
    (samples.get(kind) ?? []).flatMap((sample, round) => {
      const other = others[round];
      return other === undefined ? [] : [figure(sample) / figure(other)];
    }),
  );
}

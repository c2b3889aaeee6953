/** How often something is put right that somebody else changes: at most twice a second; said aloud when it becomes a fight. */
const INTERVAL_MS = 500;
/** So many repairs in so short a time are a fight, said once a minute. */
const FIGHT = { repairs: 8, withinMs: 10_000, silenceMs: 60_000 };

export class RepairRate {
  #times: number[] = [];
  #saidMs = Number.NEGATIVE_INFINITY;

  /** How long the next repair has to wait. */
  waitMs(nowMs: number): number {
    return Math.max(0, (this.#times.at(-1) ?? Number.NEGATIVE_INFINITY) + INTERVAL_MS - nowMs);
  }

  /** Counts a repair. Returns whether a fight is to be reported. */
  isFight(nowMs: number): boolean {
    this.#times = [...this.#times.filter((time) => time > nowMs - FIGHT.withinMs), nowMs];
    if (this.#times.length < FIGHT.repairs || nowMs < this.#saidMs + FIGHT.silenceMs) return false;
    this.#saidMs = nowMs;
    return true;
  }
}

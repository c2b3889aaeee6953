/**
 * When to put back what somebody else took away: at once, but for many changes together, at most twice a second, and less and
 * less often when it becomes a fight. What is put back, and how, is the caller's. Time is the clock's.
 */
import { type Clock, Debounce, systemClock } from './debounce.js';

const PAUSE = { quietMs: 50, limitMs: 250 };
/** At most so many in any second. */
const PER_SECOND = 2;
const SECOND_MS = 1000;
/** So many repairs within this time are a fight; without one for so long it is over. */
const FIGHT_REPAIRS = 5;
const FIGHT_MS = 10_000;
const CALM_MS = 30_000;
/** Between two repairs in a fight: doubled each time. While it is away one of the two locks may be open. */
const FIRST_PAUSE_MS = 1000;
const LAST_PAUSE_MS = 8000;
/** After a failure; doubled as well. */
const FIRST_RETRY_MS = 500;
/** Enough to see who it is about. */
const NAMED_MAXIMUM = 16;

export interface RestorerSettings {
  /** Compares what is with what should be and puts it right. Resolves to whether there was something to put right. */
  restore(): Promise<boolean>;
  /** Once a fight, with the objects it is about. */
  onContested(what: readonly string[]): void;
  /** `restore` threw; it is tried again. */
  onFailed(error: unknown): void;
}

export class Restorer {
  readonly #settings: RestorerSettings;
  readonly #clock: Clock;
  readonly #debounce: Debounce;
  /** Objects changed since the last restore began. */
  readonly #pending = new Set<string>();
  /** Of the current fight, or of what may become one. */
  readonly #named = new Set<string>();
  /** When the last restores began, oldest first. */
  #begun: number[] = [];
  /** When the last repairs ended, oldest first. */
  #repaired: number[] = [];
  #pauseMs = 0;
  #retryMs = 0;
  #isBusy = false;
  #isClosed = false;
  #cancel: (() => void) | undefined;

  constructor(settings: RestorerSettings, clock: Clock = systemClock) {
    this.#settings = settings;
    this.#clock = clock;
    this.#debounce = new Debounce(PAUSE, () => this.#schedule(), clock);
  }

  /** Somebody else changed these. */
  changed(what: readonly string[]): void {
    if (this.#isClosed || what.length === 0) return;
    for (const each of what) this.#pending.add(each);
    if (!this.#isBusy) this.#debounce.touch();
  }

  /** A restore that is under way is not interrupted; none is begun. */
  close(): void {
    this.#isClosed = true;
    this.#debounce.cancel();
    this.#cancel?.();
  }

  #schedule(): void {
    this.#isBusy = true;
    const now = this.#clock.nowMs();
    if (now - (this.#repaired.at(-1) ?? now) > (this.#pauseMs > 0 ? CALM_MS : FIGHT_MS)) this.#calm();
    const wait = this.#earliestMs() - now;
    if (wait <= 0) return void this.#run();
    this.#cancel = this.#clock.after(wait, () => void this.#run());
  }

  #earliestMs(): number {
    const [oldest] = this.#begun.length < PER_SECOND ? [] : this.#begun;
    return Math.max(
      oldest === undefined ? 0 : oldest + SECOND_MS,
      (this.#repaired.at(-1) ?? 0) + this.#pauseMs,
      (this.#begun.at(-1) ?? 0) + this.#retryMs,
    );
  }

  async #run(): Promise<void> {
    this.#begun = [...this.#begun, this.#clock.nowMs()].slice(-PER_SECOND);
    const what = [...this.#pending];
    this.#pending.clear();
    let isRepaired = false;
    try {
      isRepaired = await this.#settings.restore();
      this.#retryMs = 0;
    } catch (error) {
      if (!this.#isClosed) this.#settings.onFailed(error);
      this.#retryMs = this.#retryMs === 0 ? FIRST_RETRY_MS : Math.min(this.#retryMs * 2, LAST_PAUSE_MS);
      for (const each of what) this.#pending.add(each);
    }
    this.#isBusy = false;
    if (this.#isClosed) return;
    if (isRepaired) this.#onRepaired(what);
    if (this.#pending.size > 0) this.#debounce.touch();
  }

  #onRepaired(what: readonly string[]): void {
    const now = this.#clock.nowMs();
    this.#repaired = [...this.#repaired, now].slice(-FIGHT_REPAIRS);
    for (const each of what) if (this.#named.size < NAMED_MAXIMUM) this.#named.add(each);
    if (this.#pauseMs > 0) {
      this.#pauseMs = Math.min(this.#pauseMs * 2, LAST_PAUSE_MS);
    } else if (this.#repaired.length === FIGHT_REPAIRS && now - (this.#repaired[0] ?? 0) <= FIGHT_MS) {
      this.#pauseMs = FIRST_PAUSE_MS;
      this.#settings.onContested([...this.#named]);
    }
  }

  #calm(): void {
    this.#repaired = [];
    this.#named.clear();
    this.#pauseMs = 0;
  }
}

/** Many changes at once, one reaction: it waits for a short quiet, but never longer than a limit. The clock can be a test's. */

export interface Clock {
  nowMs(): number;
  /** Returns what cancels it. Does not keep the process alive. */
  after(ms: number, work: () => void): () => void;
}

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  after: (ms, work) => {
    const timer = setTimeout(work, ms);
    timer.unref();
    return () => clearTimeout(timer);
  },
};

export interface Pause {
  quietMs: number;
  limitMs: number;
}

export class Debounce {
  readonly #pause: Pause;
  readonly #work: () => void;
  readonly #clock: Clock;
  #firstMs: number | undefined;
  #cancel: (() => void) | undefined;

  constructor(pause: Pause, work: () => void, clock: Clock = systemClock) {
    this.#pause = pause;
    this.#work = work;
    this.#clock = clock;
  }

  touch(): void {
    const now = this.#clock.nowMs();
    this.#firstMs ??= now;
    this.#cancel?.();
    const left = Math.max(0, this.#firstMs + this.#pause.limitMs - now);
    this.#cancel = this.#clock.after(Math.min(this.#pause.quietMs, left), () => {
      this.cancel();
      this.#work();
    });
  }

  cancel(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#firstMs = undefined;
  }
}

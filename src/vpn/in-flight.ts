/**
 * How many calls of the kit have begun and not yet told their outcome. The `.ets` runner goes on to the next method when
 * there is none. Counting keeps nothing alive: what keeps the process running is the call's own socket.
 */
let count = 0;
let waiting: (() => void)[] = [];

export const inFlight = {
  get count(): number {
    return count;
  },

  begin(): void {
    count++;
  },

  /** To be called once for each `begin`, when the outcome is known. */
  end(): void {
    count--;
    if (count > 0) return;
    const resolve = waiting;
    waiting = [];
    for (const done of resolve) done();
  },

  /** Resolves when the count is 0. */
  idle(): Promise<void> {
    return count === 0 ? Promise.resolve() : new Promise((resolve) => waiting.push(resolve));
  },
};

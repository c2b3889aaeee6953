/**
 * Whose timer is due next, among thousands: a binary heap. Timers are set back with every packet, so the heap does not follow:
 * an entry's key may be too early, never too late, and is put right when it comes to the top. Moving a timer to a later time
 * or stopping it so costs nothing, and what `nextMs` says is exact all the same.
 */

export interface Timed {
  /** When the earliest of its timers is due, exactly; Infinity: none is set. */
  readonly dueMs: number;
  /** The schedule's own: the key, never later than `dueMs`, and the place in the heap; −1: not in it. */
  keyMs: number;
  place: number;
}

export class Schedule<T extends Timed> {
  readonly #heap: T[] = [];

  /** Something of this entry is now due at `ms`. */
  set(entry: T, ms: number): void {
    if (entry.place === -1) {
      entry.keyMs = ms;
      this.#put(entry, this.#heap.length);
      this.#rise(entry);
    } else if (ms < entry.keyMs) {
      entry.keyMs = ms;
      this.#rise(entry);
    }
  }

  /** When the first is due; Infinity: nothing will ever be. */
  get nextMs(): number {
    for (let first = this.#heap[0]; first !== undefined; first = this.#heap[0]) {
      const due = first.dueMs;
      if (due === first.keyMs) return due;
      if (due === Number.POSITIVE_INFINITY) {
        this.remove(first);
      } else {
        first.keyMs = due;
        this.#sink(first);
      }
    }
    return Number.POSITIVE_INFINITY;
  }

  /** The entry that is due first, if it is due; it stays until its timers are set to a later time. */
  firstDue(nowMs: number): T | undefined {
    return this.nextMs <= nowMs ? this.#heap[0] : undefined;
  }

  remove(entry: T): void {
    const place = entry.place;
    if (place === -1) return;
    entry.place = -1;
    const last = this.#heap.pop();
    if (last === undefined || last === entry) return;
    this.#put(last, place);
    this.#rise(last);
    this.#sink(last);
  }

  #rise(entry: T): void {
    while (entry.place > 0) {
      const above = this.#heap[(entry.place - 1) >> 1] as T;
      if (above.keyMs <= entry.keyMs) return;
      const place = above.place;
      this.#put(above, entry.place);
      this.#put(entry, place);
    }
  }

  #sink(entry: T): void {
    for (;;) {
      const left = this.#heap[2 * entry.place + 1];
      const right = this.#heap[2 * entry.place + 2];
      const below = right !== undefined && left !== undefined && right.keyMs < left.keyMs ? right : left;
      if (below === undefined || below.keyMs >= entry.keyMs) return;
      const place = below.place;
      this.#put(below, entry.place);
      this.#put(entry, place);
    }
  }

  #put(entry: T, place: number): void {
    this.#heap[place] = entry;
    entry.place = place;
  }
}

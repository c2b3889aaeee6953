/**
 * CLOCK_BOOTTIME (clock_gettime(2)): never set back, and unlike the clock of performance.now() it goes on while the machine is
 * suspended, so that keys that have grown old meanwhile are known to be.
 */
import type { Arena } from './arena.js';
import { libcAt } from './ffi.js';

const CLOCK_BOOTTIME = 7;

export class BootClock {
  readonly #view: DataView;
  readonly #at: number;
  readonly #address: number;

  constructor(arena: Arena) {
    this.#view = arena.view;
    // struct timespec (LP64): seconds, nanoseconds.
    this.#at = arena.reserve(16);
    this.#address = arena.address + this.#at;
  }

  /** Milliseconds with fractions. */
  now(): number {
    libcAt.clock_gettime(CLOCK_BOOTTIME, this.#address);
    // The upper half of the seconds is 0 for 136 years.
    return this.#view.getUint32(this.#at, true) * 1000 + this.#view.getUint32(this.#at + 8, true) / 1e6;
  }
}

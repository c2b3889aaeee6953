/**
 * TAI64N labels, the timestamps of initiations (WireGuard paper, section 5.4.2; https://cr.yp.to/libtai/tai64.html): 8 bytes of
 * seconds, 2^62 plus TAI seconds since 1970, and 4 bytes of nanoseconds, big-endian, so that labels sort as bytes.
 *
 * As in every implementation known, TAI is taken to be 10 s ahead of Unix time, leap seconds are ignored, and the clock is
 * whitened: 24 low bits of the nanoseconds are zero (steps of 16.8 ms), so that labels tell a peer little of our clock.
 */
import { TIMESTAMP_BYTES } from './constants.js';

const TAI64_HIGH = 0x4000_0000;
const TAI_MINUS_UNIX_S = 10;
const GRAIN_NS = 1 << 24;
const NS_PER_S = 1_000_000_000;

/**
 * The labels one peer is sent. Each is greater than the one before, even when two are asked for within one step or the wall
 * clock was set back: a peer drops an initiation that is not newer than the last.
 */
export class TimestampSource {
  #seconds = Number.NEGATIVE_INFINITY;
  #nanoseconds = 0;

  /** @param wallClockMs Unix time, such as Date.now(). */
  next(wallClockMs: number): Uint8Array {
    const seconds = Math.floor(wallClockMs / 1000);
    const nanoseconds = whitened(Math.round((wallClockMs - seconds * 1000) * 1e6));
    if (seconds > this.#seconds || (seconds === this.#seconds && nanoseconds > this.#nanoseconds)) {
      this.#seconds = seconds;
      this.#nanoseconds = nanoseconds;
    } else {
      this.#nanoseconds += GRAIN_NS;
      if (this.#nanoseconds >= NS_PER_S) {
        this.#seconds++;
        this.#nanoseconds = 0;
      }
    }
    return label(this.#seconds, this.#nanoseconds);
  }
}

/** The label of a Unix time, whitened. */
export function tai64n(wallClockMs: number): Uint8Array {
  return new TimestampSource().next(wallClockMs);
}

/** Whether label `a` is later than `b`. */
export function isLater(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < TIMESTAMP_BYTES; i++) {
    const difference = (a[i] as number) - (b[i] as number);
    if (difference !== 0) return difference > 0;
  }
  return false;
}

function whitened(nanoseconds: number): number {
  return nanoseconds & ~(GRAIN_NS - 1);
}

function label(unixSeconds: number, nanoseconds: number): Uint8Array {
  const tai = unixSeconds + TAI_MINUS_UNIX_S;
  const bytes = new Uint8Array(TIMESTAMP_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, TAI64_HIGH + Math.floor(tai / 2 ** 32));
  view.setUint32(4, tai);
  view.setUint32(8, nanoseconds);
  return bytes;
}

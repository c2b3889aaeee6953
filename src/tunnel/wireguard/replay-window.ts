/**
 * Which counters of a session have been seen (WireGuard paper, section 5.4.6; the ring of RFC 6479). UDP may reorder, so a
 * counter may come late by up to WINDOW, but no counter is ever taken twice, nor one at REJECT_AFTER_MESSAGES or above.
 *
 * Counters have 64 bits and come in two unsigned halves; neither BigInt nor a double that would have to hold them.
 */
import { REJECT_AFTER_MESSAGES_HIGH, REJECT_AFTER_MESSAGES_LOW } from './constants.js';

const WORD_BITS = 32;
const WORDS = 256;
/**
 * How far behind the greatest a counter may be. One word of the ring less than there is: the word of the greatest counter is
 * cleared as a whole when it is entered.
 */
export const WINDOW = (WORDS - 1) * WORD_BITS;

export class ReplayWindow {
  /** Counter c has bit c mod 8192. Those in front of the greatest, up to its word's end, are clear. */
  readonly #seen = new Int32Array(WORDS);
  /** Halves of the greatest counter accepted. Before the first it is 0, not seen. */
  #low = 0;
  #high = 0;

  /** May be asked before the packet is known to be authentic, because it changes nothing. */
  isFresh(low: number, high: number): boolean {
    if (high === REJECT_AFTER_MESSAGES_HIGH && low >= REJECT_AFTER_MESSAGES_LOW) return false;
    const ahead = this.#ahead(low, high);
    if (ahead > 0) return true;
    return ahead >= -WINDOW && ((this.#word(low) >>> (low & 31)) & 1) === 0;
  }

  /** Only for a counter that came with an authentic packet. False, and nothing changed, when it is not fresh. */
  accept(low: number, high: number): boolean {
    if (!this.isFresh(low, high)) return false;
    const ahead = this.#ahead(low, high);
    if (ahead > 0) this.#advance(ahead, low, high);
    const index = (low >>> 5) & (WORDS - 1);
    this.#seen[index] = this.#word(low) | (1 << (low & 31));
    return true;
  }

  /**
   * How far the counter is in front of the greatest. Exact up to 2^53 and of the right sign and size beyond, because the
   * difference of the high halves times 2^32 is exact.
   */
  #ahead(low: number, high: number): number {
    return (high - this.#high) * 0x1_0000_0000 + (low - this.#low);
  }

  #advance(ahead: number, low: number, high: number): void {
    const words = Math.floor((ahead + (this.#low & 31)) / WORD_BITS);
    const word = this.#low >>> 5;
    if (words >= WORDS) this.#seen.fill(0);
    else for (let step = 1; step <= words; step++) this.#seen[(word + step) & (WORDS - 1)] = 0;
    this.#low = low;
    this.#high = high;
  }

  #word(low: number): number {
    return this.#seen[(low >>> 5) & (WORDS - 1)] as number;
  }
}

/**
 * MAC of the WireGuard paper (section 5.4): keyed BLAKE2s (RFC 7693) with 16 bytes of output. node:crypto has neither keys nor
 * other lengths for BLAKE2s.
 *
 * Written out here because mac1 is all that is done for a datagram of a flood: 1 µs for an initiation, where @noble/hashes
 * takes 4.5 (Node 20). The state after the key's block is kept, so that a key that is used again costs nothing.
 */
import { MAC_BYTES } from './constants.js';

const BLOCK_BYTES = 64;
const MAX_KEY_BYTES = 32;

// biome-ignore format: a table
/** Section 2.6: the first 32 bits of the fractional parts of the square roots of the first eight primes. */
const IV = Int32Array.of(
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
);

/** Section 2.7: which word of the message goes where, a row for each of the ten rounds, in hexadecimal digits. */
const SIGMA = Uint8Array.from(
  '0123456789abcdef' +
    'ea489fd61c02b753' +
    'b8c052fdae367194' +
    '7931dcbe265a40f8' +
    '905724afe1bc683d' +
    '2c6a0b834d75fe19' +
    'c51fed4a0763928b' +
    'db7ec13950f4862a' +
    '6fe9b308c2d714a5' +
    'a2847615fb9e3cd0',
  (digit) => Number.parseInt(digit, 16),
);

// One block's work space, zeroed after each use; nothing interrupts JavaScript in between. The words lie in memory as the machine
// has them: for little-endian machines only.
const block = new Uint8Array(BLOCK_BYTES);
const words = new Int32Array(block.buffer);
const v = new Int32Array(16);
const state = new Int32Array(8);
const stateBytes = new Uint8Array(state.buffer);

export class Mac {
  readonly #keyed = IV.slice();

  /** @param key up to 32 bytes; copied into the state in a form from which it cannot be read, but which is as good as the key. */
  constructor(key: Uint8Array) {
    if (key.length === 0 || key.length > MAX_KEY_BYTES) throw new RangeError(`a BLAKE2s key of ${key.length} bytes`);
    // Section 2.5: output length, key length, fanout 1 and depth 1.
    this.#keyed[0] = (IV[0] as number) ^ (0x0101_0000 | (key.length << 8) | MAC_BYTES);
    block.set(key);
    compress(this.#keyed, BLOCK_BYTES, false);
    block.fill(0);
  }

  /** MAC of message[start..end). A message is never empty. */
  of(message: Uint8Array, start = 0, end = message.length): Uint8Array {
    this.#run(message, start, end);
    const mac = stateBytes.slice(0, MAC_BYTES);
    state.fill(0);
    return mac;
  }

  /** Whether message[end..end + 16) is the MAC of message[0..end). In constant time. */
  matches(message: Uint8Array, end: number): boolean {
    if (message.length < end + MAC_BYTES) return false;
    this.#run(message, 0, end);
    let difference = 0;
    for (let i = 0; i < MAC_BYTES; i++) difference |= (stateBytes[i] as number) ^ (message[end + i] as number);
    state.fill(0);
    return difference === 0;
  }

  /** Zeroes the state; the Mac is not to be used again. */
  wipe(): void {
    this.#keyed.fill(0);
  }

  #run(message: Uint8Array, start: number, end: number): void {
    state.set(this.#keyed);
    let at = start;
    for (; end - at > BLOCK_BYTES; at += BLOCK_BYTES) {
      for (let i = 0; i < BLOCK_BYTES; i++) block[i] = message[at + i] as number;
      compress(state, BLOCK_BYTES + at - start + BLOCK_BYTES, false);
    }
    const rest = end - at;
    for (let i = 0; i < BLOCK_BYTES; i++) block[i] = i < rest ? (message[at + i] as number) : 0;
    compress(state, BLOCK_BYTES + end - start, true);
    block.fill(0);
  }
}

/** Section 3.2, the function F. `count`: bytes so far, the key's block and this one included; below 2^32 here. */
function compress(h: Int32Array, count: number, isLast: boolean): void {
  v.set(h);
  v.set(IV, 8);
  v[12] = (v[12] as number) ^ count;
  if (isLast) v[14] = ~(v[14] as number);
  for (let row = 0; row < SIGMA.length; row += 16) {
    mix(0, 4, 8, 12, row);
    mix(1, 5, 9, 13, row + 2);
    mix(2, 6, 10, 14, row + 4);
    mix(3, 7, 11, 15, row + 6);
    mix(0, 5, 10, 15, row + 8);
    mix(1, 6, 11, 12, row + 10);
    mix(2, 7, 8, 13, row + 12);
    mix(3, 4, 9, 14, row + 14);
  }
  for (let i = 0; i < 8; i++) h[i] = (h[i] as number) ^ (v[i] as number) ^ (v[i + 8] as number);
  v.fill(0);
}

/** Section 3.1, the function G, with the two message words that SIGMA names at `sigma`. */
function mix(a: number, b: number, c: number, d: number, sigma: number): void {
  const x = words[SIGMA[sigma] as number] as number;
  const y = words[SIGMA[sigma + 1] as number] as number;
  let va = v[a] as number;
  let vb = v[b] as number;
  let vc = v[c] as number;
  let vd = v[d] as number;
  va = (va + vb + x) | 0;
  vd = rotateRight(vd ^ va, 16);
  vc = (vc + vd) | 0;
  vb = rotateRight(vb ^ vc, 12);
  va = (va + vb + y) | 0;
  vd = rotateRight(vd ^ va, 8);
  vc = (vc + vd) | 0;
  vb = rotateRight(vb ^ vc, 7);
  v[a] = va;
  v[b] = vb;
  v[c] = vc;
  v[d] = vd;
}

function rotateRight(word: number, bits: number): number {
  return (word >>> bits) | (word << (32 - bits));
}

/**
 * The Internet checksum (RFC 1071) of bytes in memory. Sums are of 16-bit words as a little-endian machine reads them, which
 * the standard allows (section 2, "byte order independence") as long as they are written back the same way; every platform
 * of node's is little-endian but s390x, which is refused where the data path starts.
 */

import type { SumBlocks } from './checksum-simd.js';

/** The same memory in units of one, two and four bytes. Offsets are always in bytes. */
export class Words {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly u16: Uint16Array;
  readonly i32: Int32Array;
  readonly sumBlocks: SumBlocks | undefined;

  /** `memory` must begin its ArrayBuffer. `sumBlocks`: made for it, where the processor has vectors. */
  constructor(memory: Uint8Array, sumBlocks?: SumBlocks) {
    this.bytes = memory;
    this.sumBlocks = sumBlocks;
    this.view = new DataView(memory.buffer);
    this.u16 = new Uint16Array(memory.buffer);
    this.i32 = new Int32Array(memory.buffer);
  }
}

/** The sum of at most 65,535 bytes, below 2^32 and not folded. */
export function sum({ bytes, u16, i32, sumBlocks }: Words, offset: number, length: number): number {
  let at = offset;
  let left = length;
  let low = 0;
  let high = 0;
  const isOdd = (at & 1) === 1 && left > 0;
  if (isOdd) {
    low = (bytes[at] ?? 0) << 8;
    at++;
    left--;
  }
  if (sumBlocks !== undefined && left >= 64) {
    const end = at + (left & ~63);
    low += sumBlocks(at, end) >>> 0;
    at = end;
    left &= 63;
  }
  if ((at & 2) === 2 && left >= 2) {
    low += u16[at >> 1] ?? 0;
    at += 2;
    left -= 2;
  }
  // Words of 32 bits: all of them modulo 2^32, and their upper halves; the lower halves are what is left, below 2^32 up to
  // 64 KiB. An addition less a word than adding up both halves.
  let all = 0;
  let index = at >> 2;
  for (const end = index + ((left >> 4) << 2); index < end; index += 4) {
    const a = i32[index] as number;
    const b = i32[index + 1] as number;
    const c = i32[index + 2] as number;
    const d = i32[index + 3] as number;
    all = (all + a + b + c + d) | 0;
    high = (high + (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16)) | 0;
  }
  low += (all - (high << 16)) >>> 0;
  at += left & ~15;
  left &= 15;
  for (; left >= 2; left -= 2, at += 2) low += u16[at >> 1] ?? 0;
  if (left === 1) low += bytes[at] ?? 0;
  const total = low + high;
  return isOdd ? swap16(fold(total)) : total;
}

/** 16 bits, the carries added back. `value` is below 2^47. */
export function fold(value: number): number {
  let folded = value > 0xffffffff ? (value % 0x10000) + Math.floor(value / 0x10000) : value;
  folded = (folded & 0xffff) + (folded >>> 16);
  folded = (folded & 0xffff) + (folded >>> 16);
  return folded;
}

/** Network order of a 16-bit number as a little-endian word, and back. */
export function swap16(value: number): number {
  return ((value & 0xff) << 8) | ((value >>> 8) & 0xff);
}

/** A 32-bit number in network order, as the sum of its two words. */
export function sum32(value: number): number {
  return swap16(value >>> 16) + swap16(value & 0xffff);
}

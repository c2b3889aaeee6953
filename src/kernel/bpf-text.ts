/**
 * Functions for BPF programs that look at a string of at most 255 bytes somewhere in the kernel, given its address. They are
 * global functions in the verifier's sense: it checks each of them once, for any argument, and not again for every call and
 * every length. That is what keeps a program with loops in loops loadable. Each takes 256 bytes of stack.
 */
import type { Assembler } from './bpf-assembler.js';

const BYTES = 256;
const COPY = -BYTES;

/** r0 = length of the string at r1; 0 when it cannot be read. */
export function emitNameLength(code: Assembler, name: string): void {
  const [some, none] = [`${name} some`, `${name} none`];
  code.function(name, 1);
  copy(code);
  // The count has the NUL in it; an error is a huge number.
  code.jumpIf('r0', '==', 0, none).jumpIf('r0', '<=', BYTES, some);
  code.label(none).move('r0', 1);
  code.label(some).sub('r0', 1).exit();
}

/** r0 = the first index of the byte r3 in the first r2 bytes at r1; r2 when there is none. */
export function emitFindByte(code: Assembler, name: string): void {
  const [next, found] = [`${name} next`, `${name} found`];
  code.function(name, 3).move('r6', 'r2').move('r7', 'r3');
  copy(code);
  code.move('r0', 0);
  code.label(next).jumpIf('r0', '>=', 'r6', found);
  code.move('r1', 'r10').add('r1', 'r0').load('u8', 'r2', 'r1', COPY).jumpIf('r2', '==', 'r7', found);
  code.add('r0', 1).jumpIf('r0', '<', BYTES, next);
  code.label(found).exit();
}

/**
 * r0 = the index behind the last '-' in the first r2 bytes at r1, plus 256 times that behind the one before; 0 for none.
 * Without a branch on the characters: for the verifier each would double the ways to go on.
 */
export function emitLastTwoDashes(code: Assembler, name: string): void {
  const [next, done] = [`${name} next`, `${name} done`];
  code.function(name, 2).move('r6', 'r2');
  copy(code);
  code.move('r1', 0).move('r3', 0).move('r4', 0);
  code.label(next).jumpIf('r1', '>=', 'r6', done);
  code.move('r2', 'r10').add('r2', 'r1').load('u8', 'r2', 'r2', COPY).add('r1', 1);
  // r2: all ones when it is '-', else all zeros.
  code.xor('r2', '-'.charCodeAt(0)).sub('r2', 1).shiftRightSigned('r2', 63);
  // In r2's case r4 = r3 and r3 = r1.
  code.move('r0', 'r3').xor('r0', 'r4').and('r0', 'r2').xor('r4', 'r0');
  code.move('r0', 'r1').xor('r0', 'r3').and('r0', 'r2').xor('r3', 'r0');
  code.jumpIf('r1', '<', BYTES, next);
  code.label(done).move('r0', 'r4').shiftLeft('r0', 8).or('r0', 'r3').exit();
}

/** The string at r1 to the stack; r0 = its length and 1, or an error. */
function copy(code: Assembler): void {
  code.move('r3', 'r1').move('r1', 'r10').add('r1', COPY).move('r2', BYTES).call('probe_read_kernel_str');
}

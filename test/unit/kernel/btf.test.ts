import assert from 'node:assert/strict';
import test from 'node:test';
import { Btf } from '../../../src/kernel/btf.js';

/** Writes BTF as Documentation/bpf/btf.rst has it. */
function btf(build: (text: (name: string) => number) => number[][]): Buffer {
  let strings = '\0';
  const types = build((name) => {
    strings += `${name}\0`;
    return strings.length - name.length - 1;
  }).flat();
  const words = [0x0001eb9f, 24, 0, types.length * 4, types.length * 4, strings.length, ...types];
  const bytes = Buffer.alloc(words.length * 4);
  words.forEach((word, index) => {
    bytes.writeUInt32LE(word >>> 0, index * 4);
  });
  return Buffer.concat([bytes, Buffer.from(strings)]);
}

const kind = (number: number, count = 0, flag = 0) => (flag * 2 ** 31 + number * 2 ** 24 + count) >>> 0;
const INT = 1;
const STRUCT = 4;
const UNION = 5;

/** Types 1 to 7, then one of every other kind, then the struct that is looked for. */
const sample = btf((text) => [
  [text('u32'), kind(INT), 4, 32], // 1
  [0, kind(STRUCT, 2), 8, text('a'), 1, 0, text('b'), 1, 32], // 2
  [0, kind(UNION, 2), 8, text('whole'), 1, 0, 0, 2, 0], // 3
  [text('task'), kind(STRUCT, 3), 24, text('state'), 1, 0, 0, 3, 64, text('end'), 1, 160], // 4
  [text('flags'), kind(STRUCT, 2, 1), 4, text('bit'), 1, (1 << 24) | 3, text('byte'), 1, (8 << 24) | 8], // 5
  [text('task'), kind(7, 0), 0], // 6: a forward declaration of the same name
  [text('late'), kind(UNION, 1), 4, text('x'), 1, 0], // 7
  [0, kind(2), 1],
  [0, kind(3), 0, 1, 1, 4],
  [text('e'), kind(6, 2), 4, text('E0'), 0, text('E1'), 1],
  [text('t'), kind(8), 1],
  ...[9, 10, 11].map((number) => [0, kind(number), 1]),
  [0, kind(13, 1), 1, text('arg'), 1],
  [text('f'), kind(12), 15],
  [text('v'), kind(14), 1, 0],
  [text('.data'), kind(15, 1), 4, 17, 0, 4],
  [text('double'), kind(16), 8],
  [text('tag'), kind(17), 4, 0],
  [text('type tag'), kind(18), 1],
  [text('e64'), kind(19, 1), 8, text('BIG'), 0, 1],
  [text('last'), kind(STRUCT, 1), 4, text('member'), 1, 32],
]);

test('offsetOf() finds members, also those of unnamed structs and unions', () => {
  const types = new Btf(sample);
  assert.equal(types.offsetOf('task', 'state'), 0);
  assert.equal(types.offsetOf('task', 'whole'), 8);
  assert.equal(types.offsetOf('task', 'a'), 8);
  assert.equal(types.offsetOf('task', 'b'), 12);
  assert.equal(types.offsetOf('task', 'end'), 20);
  assert.equal(types.offsetOf('last', 'member'), 4, 'behind every kind of type');
});

test('offsetOf() knows no members that are not there, no unions and no single bits', () => {
  const types = new Btf(sample);
  for (const [struct, member] of [
    ['task', 'none'],
    ['tas', 'state'],
    ['task', 'stat'],
    ['none', 'state'],
    ['late', 'x'],
    ['flags', 'bit'],
  ]) {
    assert.equal(types.offsetOf(struct as string, member as string), undefined, `${struct}.${member}`);
  }
  assert.equal(types.offsetOf('flags', 'byte'), 1);
});

test('what is no BTF is refused with a RangeError, cut at any place', () => {
  for (let length = 0; length < sample.length; length++) {
    assert.throws(() => new Btf(sample.subarray(0, length)), RangeError, String(length));
  }
  assert.throws(() => new Btf(Buffer.alloc(64)), RangeError);
  const unknown = btf(() => [[0, kind(31), 0]]);
  assert.throws(() => new Btf(unknown), /BTF kind 31/);
});

test('a struct that contains itself ends', () => {
  const circle = btf((text) => [[text('circle'), kind(STRUCT, 1), 4, 0, 1, 0]]);
  assert.equal(new Btf(circle).offsetOf('circle', 'x'), undefined);
});

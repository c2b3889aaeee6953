/** How hostile values look in a message. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hasControlCharacter, quote } from '../../../src/model/quote.js';

test('quote() writes each kind of value in a few words', () => {
  const table: [unknown, string][] = [
    ['', '""'],
    ['a"b', '"a\\"b"'],
    ['a\nb\u0000', '"a\\nb\\u0000"'],
    ['\u202eevil\u2028\u009b', '"\\u202eevil\\u2028\\u009b"'],
    ['Ünïcode', '"Ünïcode"'],
    ['x'.repeat(10_000), `"${'x'.repeat(60)}"… (10000 characters)`],
    [null, 'null'],
    [undefined, 'undefined'],
    [Number.NaN, 'NaN'],
    [12, '12'],
    [true, 'true'],
    [[1], 'an array'],
    [{ toString: null }, 'an object'],
    [() => 1, 'a function'],
    [Symbol('\n'), 'a symbol'],
    [7n, 'a bigint'],
  ];
  for (const [value, text] of table) assert.equal(quote(value), text);
});

test('quote() is always one short line without control characters', () => {
  fc.assert(
    fc.property(fc.oneof(fc.anything(), fc.string({ unit: 'binary', maxLength: 200 })), (value) => {
      const text = quote(value);
      assert.ok(!hasControlCharacter(text), JSON.stringify(text));
      assert.ok(text.length < 800);
    }),
  );
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ROOT_SELECTIONS, SELECTIONS } from '../../../src/host/numbers.js';
import { Selections } from '../../../src/host/selections.js';

test('a selection that is free again is given out after all others', () => {
  for (const owner of [0, 2001]) {
    const selections = new Selections();
    const first = selections.take(owner);
    selections.delete(first);
    const others = owner === 0 ? ROOT_SELECTIONS : SELECTIONS - ROOT_SELECTIONS;
    const next = Array.from({ length: others }, () => {
      const taken = selections.take(owner);
      selections.delete(taken);
      return taken;
    });
    assert.equal(next.indexOf(first), others - 1);
  }
});

test("users and root share none, and together have all; the one too many is refused with the limit's number", () => {
  const selections = new Selections();
  const users = Array.from({ length: SELECTIONS - ROOT_SELECTIONS }, () => selections.take(2001));
  const root = Array.from({ length: ROOT_SELECTIONS }, () => selections.take(0));
  const all = [...users, ...root].sort((a, b) => a - b);
  assert.deepEqual(
    all,
    Array.from({ length: SELECTIONS }, (_, index) => index + 1),
  );
  assert.throws(() => selections.take(2001), { code: 2200003, message: /all 120 mark values/ });
  assert.throws(() => selections.take(0), { code: 2200003, message: /all 7 mark values/ });
  selections.delete(5);
  assert.equal(selections.take(2002), 5);
});

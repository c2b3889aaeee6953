import assert from 'node:assert/strict';
import test from 'node:test';
import {
  BYPASS_MARK,
  isOurPriority,
  isOurTable,
  LAN_TABLE,
  MARK_FIELD,
  PRIORITY,
  programName,
  programPrefix,
  SELECTION_FIELD,
  SELECTIONS,
  SLOTS,
  STEP,
  selectionMark,
  slotNumbers,
} from '../../../src/host/numbers.js';

const slots = Array.from({ length: SLOTS }, (_, slot) => slotNumbers(slot));

test('no two slots share a link name, a table or a priority', () => {
  assert.equal(new Set(slots.map(({ link }) => link)).size, SLOTS);
  const tables = slots.flatMap((each) => [each.explicitTable, each.defaultTable, each.loopbackTable]);
  assert.equal(new Set(tables).size, 3 * SLOTS);
  // A ladder has either routes of its own or answers of a refused family at the same place.
  const steps = [...new Set([0, ...Object.values(STEP)])];
  const priorities = slots.flatMap(({ ladder }) => steps.map((step) => ladder + step));
  assert.equal(new Set(priorities).size, steps.length * SLOTS);
});

test('every table and priority is recognised as ours, and lies between the shared rules', () => {
  for (const { explicitTable, defaultTable, loopbackTable, ladder } of slots) {
    for (const table of [explicitTable, defaultTable, loopbackTable, LAN_TABLE]) assert.ok(isOurTable(table));
    assert.ok(ladder >= PRIORITY.ladders && ladder + Math.max(...Object.values(STEP)) < PRIORITY.end);
    assert.ok(isOurPriority(ladder));
  }
  for (const priority of Object.values(PRIORITY)) assert.ok(isOurPriority(priority));
});

test("the system's own tables and priorities are not ours", () => {
  for (const table of [0, 253, 254, 255, 49999, LAN_TABLE + 1]) assert.ok(!isOurTable(table), String(table));
  for (const priority of [0, 9899, 30001, 32766, 32767]) assert.ok(!isOurPriority(priority), String(priority));
});

test('a link name fits IFNAMSIZ', () => {
  for (const { link } of slots) assert.ok(link.length <= 15);
});

test('marks fill the field, apart from the bypass bit, without overlap', () => {
  assert.equal((BYPASS_MARK | SELECTION_FIELD) >>> 0, MARK_FIELD);
  assert.equal(BYPASS_MARK & SELECTION_FIELD, 0);
  const marks = Array.from({ length: SELECTIONS }, (_, index) => selectionMark(index + 1));
  assert.equal(new Set(marks).size, SELECTIONS);
  for (const mark of marks) {
    assert.equal(mark & SELECTION_FIELD, mark);
    assert.notEqual(mark, 0);
  }
});

test('a program name has at most 15 characters, is unique to slot and namespace, and begins with the prefix', () => {
  const namespaces = [1n, 4026531840n, 4294967295n];
  const names = namespaces.flatMap((inode) => [0, 1, 35, 36, SLOTS - 1].map((slot) => programName(inode, slot)));
  assert.equal(new Set(names).size, names.length);
  for (const name of names) assert.ok(name.length <= 15, name);
  assert.ok(programName(4026531840n, 7).startsWith(programPrefix(4026531840n)));
  assert.equal(new Set(namespaces.map(programPrefix)).size, namespaces.length);
  for (const inode of namespaces) assert.equal(programPrefix(inode).length, 12);
});

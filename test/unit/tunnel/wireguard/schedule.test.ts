import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Schedule, type Timed } from '../../../../src/tunnel/wireguard/schedule.js';

class Entry implements Timed {
  dueMs = Number.POSITIVE_INFINITY;
  keyMs = Number.POSITIVE_INFINITY;
  place = -1;
}

/** Sets, delays or stops the timer of one entry, or removes it. As timers do: only an earlier time is told to the schedule. */
const operation = fc.record({
  entry: fc.nat({ max: 19 }),
  kind: fc.constantFrom('set', 'set', 'set', 'stop', 'remove', 'look'),
  ms: fc.nat({ max: 50 }),
});

test('nextMs is the earliest due time of all, whatever was set, delayed, stopped and removed', () => {
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 200, size: 'max' }), (operations) => {
      const schedule = new Schedule<Entry>();
      const entries = Array.from({ length: 20 }, () => new Entry());
      for (const { entry: index, kind, ms } of operations) {
        const entry = entries[index] as Entry;
        if (kind === 'set') {
          entry.dueMs = ms;
          schedule.set(entry, ms);
        } else if (kind !== 'look') {
          entry.dueMs = Number.POSITIVE_INFINITY;
          if (kind === 'remove') schedule.remove(entry);
        }
        const earliest = Math.min(...entries.map((each) => each.dueMs));
        if (kind === 'look') assert.equal(schedule.nextMs, earliest);
        if (kind === 'look') assert.equal(schedule.firstDue(ms)?.dueMs, earliest <= ms ? earliest : undefined);
      }
      assert.equal(schedule.nextMs, Math.min(...entries.map((each) => each.dueMs)));
    }),
    { numRuns: 500 },
  );
});

test('entries come out in the order of their times', () => {
  const schedule = new Schedule<Entry>();
  const times = Array.from({ length: 1000 }, (_, index) => Math.imul(index, 0x9e3779b1) >>> 0);
  for (const ms of times) {
    const entry = new Entry();
    entry.dueMs = ms;
    schedule.set(entry, ms);
  }
  const seen: number[] = [];
  for (let first = schedule.firstDue(2 ** 32); first; first = schedule.firstDue(2 ** 32)) {
    seen.push(first.dueMs);
    first.dueMs = Number.POSITIVE_INFINITY;
  }
  assert.deepEqual(
    seen,
    times.sort((a, b) => a - b),
  );
  assert.equal(schedule.nextMs, Number.POSITIVE_INFINITY);
});

test('an entry whose timers have stopped is let go of, and can come back', () => {
  const schedule = new Schedule<Entry>();
  const entry = new Entry();
  entry.dueMs = 5;
  schedule.set(entry, 5);
  entry.dueMs = Number.POSITIVE_INFINITY;
  assert.equal(schedule.nextMs, Number.POSITIVE_INFINITY);
  assert.equal(entry.place, -1);
  entry.dueMs = 9;
  schedule.set(entry, 9);
  assert.equal(schedule.nextMs, 9);
});

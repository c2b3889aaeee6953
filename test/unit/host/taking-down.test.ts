import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EVERY_PART, type Part, type TakeBack, takeDown } from '../../../src/host/taking-down.js';

/** In the order in which a VPN comes down. */
const ALL = [...EVERY_PART];

function recorder(failing: ReadonlySet<Part> = new Set()): { takeBack: TakeBack; taken: Part[] } {
  const taken: Part[] = [];
  const entries = ALL.map((part): [Part, () => void] => [
    part,
    () => {
      taken.push(part);
      if (failing.has(part)) throw new Error(part);
    },
  ]);
  return { takeBack: Object.fromEntries(entries) as TakeBack, taken };
}

test('what stands comes down in one order, however much of it there is', async () => {
  for (let count = 0; count <= ALL.length; count++) {
    const begun = ALL.filter((_, index) => (index * 7) % ALL.length < count);
    const { takeBack, taken } = recorder();
    assert.deepEqual(await takeDown(takeBack, new Set(begun.toReversed())), []);
    assert.deepEqual(taken, begun);
  }
});

test('the vNIC goes before the firewall that knows its addresses, and the lock that goes by its marks', () => {
  const places = (['link', 'sockets', 'rules', 'egressLock', 'firewall'] as const).map((part) => ALL.indexOf(part));
  assert.deepEqual(
    places,
    places.toSorted((a, b) => a - b),
  );
});

test('a part that fails keeps no other from going', async () => {
  const { takeBack, taken } = recorder(new Set<Part>(['link', 'rules']));
  const errors = await takeDown(takeBack, EVERY_PART);
  assert.deepEqual(
    errors.map(({ message }) => message),
    ['link', 'rules'],
  );
  assert.deepEqual(taken, ALL);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ReplayWindow, WINDOW } from '../../../../src/tunnel/wireguard/replay-window.js';

/** REJECT_AFTER_MESSAGES. */
const LIMIT = 2n ** 64n - 2n ** 13n - 1n;

/** The same by the definition: a set of all counters, and the greatest. */
class NaiveWindow {
  readonly #seen = new Set<bigint>();
  #greatest = 0n;

  accept(counter: bigint): boolean {
    if (counter >= LIMIT || this.#seen.has(counter)) return false;
    if (counter + BigInt(WINDOW) < this.#greatest) return false;
    this.#seen.add(counter);
    if (counter > this.#greatest) this.#greatest = counter;
    return true;
  }
}

const halves = (counter: bigint): [number, number] => [Number(counter & 0xffff_ffffn), Number(counter >> 32n)];

function accept(window: ReplayWindow, counter: bigint): boolean {
  const [low, high] = halves(counter);
  const isFresh = window.isFresh(low, high);
  assert.equal(window.isFresh(low, high), isFresh, 'asking changes nothing');
  assert.equal(window.accept(low, high), isFresh, `isFresh() and accept() agree on ${counter}`);
  return isFresh;
}

const near = (base: bigint, spread: bigint): fc.Arbitrary<bigint> =>
  fc
    .bigInt({ min: base - spread, max: base + spread })
    .map((counter) => (counter < 0n ? -counter : counter > 2n ** 64n - 1n ? 2n ** 64n - 1n : counter));

for (const [name, base] of [
  ['0', 0n],
  ['2^13', 2n ** 13n],
  ['2^31', 2n ** 31n],
  ['2^32', 2n ** 32n],
  ['2^53', 2n ** 53n],
  ['2^63', 2n ** 63n],
  ['2^64', LIMIT],
] as const) {
  test(`counters near ${name} are taken and refused as by a set of all of them`, () => {
    const counters = fc.oneof(near(base, 40n), near(base, 9000n), near(base, 100_000n));
    fc.assert(
      fc.property(fc.array(counters, { maxLength: 200, size: 'max' }), (sequence) => {
        const [window, naive] = [new ReplayWindow(), new NaiveWindow()];
        for (const counter of sequence) assert.equal(accept(window, counter), naive.accept(counter), `${counter}`);
      }),
      { numRuns: 60 },
    );
  });
}

test('any sequence of any counters is taken and refused as by a set of all of them', () => {
  const bases = fc.constantFrom(0n, 2n ** 13n, 2n ** 32n, 2n ** 45n, 2n ** 53n, 2n ** 63n, LIMIT);
  const counter = fc.oneof(
    bases.chain((base) => near(base, 9000n)),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  );
  fc.assert(
    fc.property(fc.array(counter, { maxLength: 100, size: 'max' }), (sequence) => {
      const [window, naive] = [new ReplayWindow(), new NaiveWindow()];
      for (const each of sequence) assert.equal(accept(window, each), naive.accept(each), `${each}`);
    }),
  );
});

test('a window that is full from its far end to its near one refuses all of it again', () => {
  for (const base of [0n, 17n, 2n ** 32n - 5000n, 2n ** 53n - 5000n]) {
    const window = new ReplayWindow();
    const last = base + BigInt(WINDOW);
    for (let counter = base; counter <= last; counter++) assert.equal(accept(window, counter), true);
    for (let counter = base; counter <= last; counter++) assert.equal(accept(window, counter), false);
    assert.equal(accept(window, last + 1n), true);
  }
});

test('in the whole window order does not matter', () => {
  const window = new ReplayWindow();
  const greatest = 2n ** 32n + 4000n;
  assert.equal(accept(window, greatest), true);
  for (let behind = WINDOW; behind > 0; behind--) assert.equal(accept(window, greatest - BigInt(behind)), true);
  assert.equal(accept(window, greatest - BigInt(WINDOW) - 1n), false);
});

test('after a jump nothing of before is remembered as seen, and nothing in between', () => {
  for (const jump of [32n, 8159n, 8160n, 8191n, 8192n, 8193n, 2n ** 32n, 2n ** 32n + 8192n, 2n ** 53n]) {
    const window = new ReplayWindow();
    for (let counter = 0n; counter < 64n; counter++) accept(window, counter);
    assert.equal(accept(window, 63n + jump), true);
    const oldest = 63n + jump - BigInt(WINDOW);
    for (let counter = oldest > 64n ? oldest : 64n; counter < 63n + jump; counter += 31n) {
      assert.equal(accept(window, counter), true, `${counter} after a jump by ${jump}`);
    }
  }
});

test('the last counter is the one before REJECT_AFTER_MESSAGES', () => {
  const window = new ReplayWindow();
  assert.equal(accept(window, LIMIT), false);
  assert.equal(accept(window, 2n ** 64n - 1n), false);
  assert.equal(accept(window, LIMIT - 1n), true);
  assert.equal(accept(window, LIMIT - 1n), false);
  assert.equal(accept(window, LIMIT - 2n), true);
});

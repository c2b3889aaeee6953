/** Restoring, on a clock that only moves when told. */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { Clock } from '../../../src/host/debounce.js';
import { Restorer, type RestorerSettings } from '../../../src/host/restorer.js';

class FakeClock implements Clock {
  #nowMs = 1_000_000;
  #timers: { atMs: number; work: () => void }[] = [];

  nowMs(): number {
    return this.#nowMs;
  }

  after(ms: number, work: () => void): () => void {
    const timer = { atMs: this.#nowMs + ms, work };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  /** Runs what falls due, in order, and what follows from it. */
  async advance(ms: number): Promise<void> {
    const end = this.#nowMs + ms;
    for (;;) {
      const [next] = this.#timers.filter(({ atMs }) => atMs <= end).sort((a, b) => a.atMs - b.atMs);
      if (!next) break;
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      this.#timers = this.#timers.filter((other) => other !== next);
      next.work();
      await settled();
    }
    this.#nowMs = end;
    await settled();
  }
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function rig(settings: Partial<RestorerSettings> = {}) {
  const clock = new FakeClock();
  const startMs = clock.nowMs();
  const restores: number[] = [];
  const contested: string[][] = [];
  const failures: unknown[] = [];
  const restorer = new Restorer(
    {
      restore: () => {
        restores.push(clock.nowMs() - startMs);
        return settings.restore?.() ?? Promise.resolve(true);
      },
      onContested: (what) => contested.push([...what]),
      onFailed: (error) => failures.push(error),
    },
    clock,
  );
  return { clock, restores, contested, failures, restorer };
}

test('many changes at once cost one restore, well within half a second', async () => {
  const { clock, restores, restorer } = rig();
  for (let count = 0; count < 1000; count++) restorer.changed([`rule ${count}`]);
  await clock.advance(20);
  restorer.changed(['rule 1']);
  await clock.advance(10_000);
  assert.deepEqual(restores, [70]);
});

test('changes that do not end are answered after a quarter of a second', async () => {
  const { clock, restores, restorer } = rig();
  for (let count = 0; count < 60; count++) {
    restorer.changed(['rule 1']);
    await clock.advance(10);
  }
  assert.equal(restores[0], 250);
});

test('no second has more than two restores, and what came in between is not forgotten', async () => {
  const { clock, restores, restorer } = rig({ restore: () => Promise.resolve(false) });
  for (let count = 0; count < 2000; count++) {
    restorer.changed(['rule 1']);
    await clock.advance(10);
  }
  assert.ok(restores.length >= 38, `${restores.length} in 20 s`);
  for (const [index, atMs] of restores.entries()) {
    const third = restores[index + 2];
    assert.ok(third === undefined || third - atMs >= 1000, `three within a second from ${atMs}`);
  }
  const before = restores.length;
  restorer.changed(['rule 2']);
  await clock.advance(2000);
  assert.ok(restores.length > before);
});

test('a fight is told once, with what it is about, and fought less and less often', async () => {
  const { clock, restores, contested, restorer } = rig();
  for (let count = 0; count < 600; count++) {
    restorer.changed(['nft table vpnd']);
    await clock.advance(100);
  }
  assert.deepEqual(contested, [['nft table vpnd']]);
  const gaps = restores.map((atMs, index) => atMs - (restores[index - 1] ?? atMs)).slice(1);
  const last = gaps.slice(-3);
  assert.ok(
    last.every((gap) => gap >= 8000 && gap <= 8300),
    gaps.join(),
  );
  assert.ok(
    gaps.every((gap, index) => index < 6 || gap >= Math.min(8000, gaps[index - 1] ?? 0) - 250),
    gaps.join(),
  );
});

test('when it was calm for a while a change is answered at once again, and another fight is told again', async () => {
  const { clock, restores, contested, restorer } = rig();
  const fight = async (): Promise<void> => {
    for (let count = 0; count < 100; count++) {
      restorer.changed(['rule 1']);
      await clock.advance(100);
    }
  };
  await fight();
  await clock.advance(60_000);
  const before = restores.length;
  restorer.changed(['rule 2']);
  await clock.advance(50);
  assert.equal(restores.length, before + 1);
  await clock.advance(60_000);
  await fight();
  assert.deepEqual(contested, [['rule 1'], ['rule 1']]);
});

test('changes now and then are no fight', async () => {
  const { clock, contested, restores, restorer } = rig();
  for (let count = 0; count < 50; count++) {
    restorer.changed(['rule 1']);
    await clock.advance(3000);
  }
  assert.deepEqual([contested, restores.length], [[], 50]);
});

test('finding nothing to put right is no fight', async () => {
  const { clock, contested, restorer } = rig({ restore: () => Promise.resolve(false) });
  for (let count = 0; count < 300; count++) {
    restorer.changed(['notifications']);
    await clock.advance(100);
  }
  assert.deepEqual(contested, []);
});

test('a change that comes while a restore is under way is followed by another', async () => {
  let finish: (value: boolean) => void = () => undefined;
  const { clock, restores, restorer } = rig({ restore: () => new Promise((resolve) => (finish = resolve)) });
  restorer.changed(['rule 1']);
  await clock.advance(50);
  restorer.changed(['rule 2']);
  await clock.advance(5000);
  assert.equal(restores.length, 1, 'not two at once');
  finish(true);
  await settled();
  await clock.advance(50);
  assert.equal(restores.length, 2);
});

test('a restore that fails is told and tried again, less and less often, and is no fight', async () => {
  let isBroken = true;
  const { clock, restores, failures, contested, restorer } = rig({
    restore: () => (isBroken ? Promise.reject(new Error('EPERM')) : Promise.resolve(true)),
  });
  restorer.changed(['rule 1']);
  await clock.advance(60_000);
  assert.equal(failures.length, restores.length);
  assert.ok(restores.length >= 8 && restores.length <= 14, `${restores.length} in a minute`);
  assert.deepEqual(contested, []);
  isBroken = false;
  await clock.advance(10_000);
  const done = restores.length;
  await clock.advance(60_000);
  assert.equal(restores.length, done);
});

test('after the end nothing is restored', async () => {
  const { clock, restores, restorer } = rig();
  restorer.changed(['rule 1']);
  restorer.close();
  restorer.changed(['rule 2']);
  await clock.advance(10_000);
  assert.deepEqual(restores, []);
});

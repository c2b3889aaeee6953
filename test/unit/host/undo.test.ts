import assert from 'node:assert/strict';
import test from 'node:test';
import { UndoStack } from '../../../src/host/undo.js';

test('unwind() runs the last step first and waits for each', async () => {
  const undo = new UndoStack();
  const done: string[] = [];
  undo.push(() => void done.push('first'));
  undo.push(async () => {
    await new Promise((resolve) => setImmediate(resolve));
    done.push('second');
  });
  undo.push(() => void done.push('third'));
  assert.deepEqual(await undo.unwind(), []);
  assert.deepEqual(done, ['third', 'second', 'first']);
});

test('a step that fails keeps no other from running; all errors come back, in the order they happened', async () => {
  const undo = new UndoStack();
  const done: string[] = [];
  undo.push(() => void done.push('first'));
  undo.push(() => Promise.reject(new Error('rejected')));
  undo.push(() => void done.push('second'));
  undo.push(() => {
    throw new Error('thrown');
  });
  const errors = await undo.unwind();
  assert.deepEqual(
    errors.map((error) => error.message),
    ['thrown', 'rejected'],
  );
  assert.deepEqual(done, ['second', 'first']);
});

test('what has been unwound is not undone twice', async () => {
  const undo = new UndoStack();
  let runs = 0;
  undo.push(() => void runs++);
  await undo.unwind();
  await undo.unwind();
  assert.equal(runs, 1);
});

test('a step pushed while unwinding is undone too', async () => {
  const undo = new UndoStack();
  const done: string[] = [];
  undo.push(() => {
    done.push('outer');
    undo.push(() => void done.push('inner'));
  });
  assert.deepEqual(await undo.unwind(), []);
  assert.deepEqual(done, ['outer', 'inner']);
});

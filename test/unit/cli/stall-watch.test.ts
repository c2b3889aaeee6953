import assert from 'node:assert/strict';
import test from 'node:test';
import { StallWatch } from '../../../src/cli/stall-watch.js';

const KEY = new Uint8Array(32).fill(7);
const NAME = Buffer.from(KEY).toString('base64');

/** In which of the samples, of [sent, received] each, the peer is found not to answer. */
function stalls(...samples: [sent: number, received: number][]): number[] {
  const watch = new StallWatch();
  return samples.flatMap(([sentBytes, receivedBytes], index) =>
    watch.sample([{ publicKey: KEY, sentBytes, receivedBytes }]).has(NAME) ? [index] : [],
  );
}

test('a peer that gets something in three intervals and says nothing does not answer', () => {
  assert.deepEqual(stalls([0, 0], [148, 0], [296, 0], [444, 0], [592, 0], [740, 0], [888, 0]), [3, 6]);
  assert.deepEqual(stalls([5000, 900], [5148, 900], [5296, 900], [5444, 900]), [3]);
});

test('a peer to which nothing goes is idle', () => {
  assert.deepEqual(stalls([9, 9], [9, 9], [9, 9], [9, 9], [9, 9]), []);
  assert.deepEqual(stalls([0, 0], [148, 0], [148, 0], [296, 0], [444, 0], [444, 0]), []);
});

test('a peer that answers now and then is there, as long as data goes to it alone', () => {
  assert.deepEqual(stalls([0, 0], [148, 0], [900, 0], [1800, 32], [2700, 32], [3600, 64], [4500, 64]), []);
});

test('counters that begin anew with a new peer of the same key count from there', () => {
  assert.deepEqual(stalls([500, 500], [148, 0], [296, 0], [444, 0], [592, 0]), [4]);
  const watch = new StallWatch();
  const sample = (sentBytes: number) => watch.sample([{ publicKey: KEY, sentBytes, receivedBytes: 0 }]).size;
  for (const sent of [0, 148, 296]) sample(sent);
  watch.sample([]);
  assert.equal(sample(444), 0, 'the peer was away in between');
});

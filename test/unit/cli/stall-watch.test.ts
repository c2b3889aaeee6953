import assert from 'node:assert/strict';
import test from 'node:test';
import { SAMPLE_MS, StallWatch } from '../../../src/cli/stall-watch.js';

const KEY = new Uint8Array(32).fill(7);
const NAME = Buffer.from(KEY).toString('base64');

type Sample = [sent: number, received: number, handshake?: number];

/** In which of the samples the peer is found not to answer. Default of the handshake: there has been one. */
function stalls(...samples: Sample[]): number[] {
  const watch = new StallWatch();
  return samples.flatMap(([sentBytes, receivedBytes, lastHandshakeMs = 1], index) =>
    watch.sample([{ publicKey: KEY, sentBytes, receivedBytes, lastHandshakeMs }]).has(NAME) ? [index] : [],
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

test('a peer that we hear, but that never hears us, does not answer: no handshake is completed', () => {
  // It begins a handshake again and again; what we answer is lost.
  const samples = Array.from({ length: 8 }, (_, index): Sample => [index * 240, index * 148, 0]);
  assert.deepEqual(stalls(...samples), [3, 6]);
});

test('a peer that we hear, but that hears us no more, does not answer from when its session has ended', () => {
  const samples = Array.from({ length: 40 }, (_, index): Sample => [index * 240, index * 148, 1]);
  const [first = 0, second] = stalls(...samples);
  assert.ok(first * SAMPLE_MS > 180_000 && first * SAMPLE_MS <= 180_000 + 4 * SAMPLE_MS, String(first));
  assert.equal(second, first + 3);
});

test('a peer that shakes hands in time is there, and so is one that comes back from a long pause', () => {
  const busy = Array.from({ length: 80 }, (_, index): Sample => [index * 240, index * 148, 1 + Math.floor(index / 20)]);
  assert.deepEqual(stalls(...busy), []);
  const idle = Array.from({ length: 60 }, (): Sample => [9, 9, 1]);
  assert.deepEqual(stalls(...idle, [157, 9, 1], [400, 200, 2], [600, 400, 2], [800, 600, 2], [900, 700, 2]), []);
});

test('counters that begin anew with a new peer of the same key count from there', () => {
  assert.deepEqual(stalls([500, 500], [148, 0], [296, 0], [444, 0], [592, 0]), [4]);
  const watch = new StallWatch();
  const sample = (sentBytes: number) =>
    watch.sample([{ publicKey: KEY, sentBytes, receivedBytes: 0, lastHandshakeMs: 1 }]).size;
  for (const sent of [0, 148, 296]) sample(sent);
  watch.sample([]);
  assert.equal(sample(444), 0, 'the peer was away in between');
});

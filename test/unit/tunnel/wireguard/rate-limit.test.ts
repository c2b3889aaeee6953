import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Endpoint } from '../../../../src/tunnel/wireguard/endpoint.js';
import { MAX_SOURCES, SourceLimiter, TokenBucket } from '../../../../src/tunnel/wireguard/rate-limit.js';

const allowed = (limiter: SourceLimiter, address: string, nowMs: number, attempts: number): number => {
  const endpoint = Endpoint.of(address, 1);
  return Array.from({ length: attempts }, () => limiter.allow(endpoint, nowMs)).filter(Boolean).length;
};

const ipv4 = (index: number): string =>
  `${(index >>> 24) & 255}.${(index >>> 16) & 255}.${(index >>> 8) & 255}.${index & 255}`;

test('a bucket gives what is in it, fills by the time, and never over its rim', () => {
  const bucket = new TokenBucket(10, 3);
  assert.deepEqual(
    [0, 0, 0, 0].map((at) => bucket.take(at)),
    [true, true, true, false],
  );
  assert.equal(bucket.take(99), false);
  assert.equal(bucket.take(100), true);
  assert.equal(bucket.take(100), false);
  assert.equal(bucket.tokens(1e9), 3);
});

test('a reserve is left to those who need not leave it', () => {
  const bucket = new TokenBucket(1, 5);
  assert.deepEqual(
    [1, 2, 3, 4].map(() => bucket.take(0, 2)),
    [true, true, true, false],
  );
  assert.deepEqual(
    [1, 2, 3].map(() => bucket.take(0)),
    [true, true, false],
  );
});

test('a clock that goes back takes nothing away', () => {
  const bucket = new TokenBucket(1000, 5);
  assert.equal(bucket.take(1000), true);
  assert.equal(bucket.take(0), true);
  assert.equal(bucket.tokens(0), 3);
  assert.equal(bucket.tokens(1001), 4);
});

test('a source gets 5 handshakes at once and 20 a second', () => {
  const limiter = new SourceLimiter();
  assert.equal(allowed(limiter, '192.0.2.1', 0, 100), 5);
  let more = 0;
  for (let ms = 1; ms <= 10_000; ms++) more += allowed(limiter, '192.0.2.1', ms, 1);
  assert.equal(more, 200);
});

test('IPv4 addresses are one source each, of IPv6 all in a /64 are one', () => {
  const limiter = new SourceLimiter();
  assert.equal(allowed(limiter, '192.0.2.1', 0, 9), 5);
  assert.equal(allowed(limiter, '192.0.2.2', 0, 9), 5);
  assert.equal(allowed(limiter, '2001:db8::1', 0, 9), 5);
  assert.equal(allowed(limiter, '2001:db8::ffff:ffff:ffff:ffff', 0, 9), 0);
  assert.equal(allowed(limiter, '2001:db8:0:1::1', 0, 9), 5);
});

test('the table does not grow beyond its limit, and forgets sources that are at rest', () => {
  const limiter = new SourceLimiter();
  let admitted = 0;
  for (let index = 0; index < 100_000; index++) admitted += allowed(limiter, ipv4(index), 0, 1);
  assert.equal(admitted, MAX_SOURCES);
  assert.equal(limiter.size, MAX_SOURCES);
  assert.equal(allowed(limiter, '2001:db8::1', 249, 1), 0);
  assert.equal(allowed(limiter, '2001:db8::1', 250, 1), 1);
  for (let index = 0; index < MAX_SOURCES; index++) allowed(limiter, '2001:db8::1', 1000 + index * 1000, 1);
  for (let index = 0; index < MAX_SOURCES; index++) allowed(limiter, ipv4(index), 1e9 + index * 1000, 1);
  assert.ok(limiter.size < 10, `${limiter.size}`);
});

test('a source that is busy is not forgotten, so that it cannot begin anew', () => {
  const limiter = new SourceLimiter();
  let admitted = 0;
  for (let ms = 0; ms < 1000; ms++) {
    admitted += allowed(limiter, '192.0.2.1', ms, 3);
    allowed(limiter, ipv4(ms), ms, 1);
  }
  assert.ok(admitted <= 25, `${admitted}`);
});

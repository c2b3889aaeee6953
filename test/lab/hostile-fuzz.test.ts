/**
 * Random byte streams with random descriptors at random places, for some seconds: whatever comes of them, the service is
 * afterwards as it was. The seed is printed; `VPN_FUZZ_SEED` runs the same streams again.
 *
 *   app: vpnd ◄── raw connections of an allowed user (2001) and of a stranger (4001)
 */
import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { libc } from '../../src/kernel/ffi.js';
import { requireRoot } from './lib/prerequisites.js';
import { udpSocketIn } from './lib/raw-client.js';
import { CALLER, CONFIG, STRANGER, target } from './lib/unharmed.js';

const DURATION_MS = 15_000;

/** mulberry32: small, and the same everywhere. */
function randomFrom(seed: number) {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
  const below = (limit: number): number => next() % limit;
  const pick = <T>(list: readonly T[]): T => list[below(list.length)] as T;
  return { next, below, pick };
}
type Random = ReturnType<typeof randomFrom>;

const METHODS = ['hello', 'setUp', 'protect', 'destroy', 'status', 'subscribe', 'nope', '__proto__'];
const VALUES = [
  '0',
  '-1',
  '1e999',
  'null',
  'true',
  '""',
  '"\\ud800"',
  '[]',
  '{}',
  '[[[]]]',
  '{"__proto__":{}}',
  '9'.repeat(400),
];

function request({ below, pick }: Random): string {
  const fields = [
    `"jsonrpc":${below(20) === 0 ? pick(VALUES) : '"2.0"'}`,
    `"id":${below(5) === 0 ? pick(VALUES) : below(1000)}`,
    `"method":${below(10) === 0 ? pick(VALUES) : JSON.stringify(pick(METHODS))}`,
    `"params":${pick(['{}', '{}', JSON.stringify({ config: CONFIG }), '{"config":{}}', pick(VALUES)])}`,
  ];
  if (below(2) === 0) fields.push(`"fds":${below(6) === 0 ? pick(VALUES) : below(4)}`);
  return `{${fields.filter(() => below(30) > 0).join(',')}}`;
}

/** Requests, mostly well formed, then damaged or not. */
function stream(random: Random): Buffer {
  const { below, next } = random;
  const hello = below(4) > 0 ? '{"jsonrpc":"2.0","id":1,"method":"hello","params":{"protocol":1}}\n' : '';
  const lines = Array.from({ length: below(12) }, () => `${request(random)}\n`);
  let bytes: Buffer = Buffer.from(hello + lines.join(''));
  for (let damage = below(4) === 0 ? below(4) + 1 : 0; damage > 0 && bytes.length > 0; damage--) {
    const at = below(bytes.length);
    if (below(3) === 0) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + below(40))]);
    else bytes[at] = next() & 0xff;
  }
  return below(20) === 0 ? Buffer.concat([bytes, Buffer.alloc(below(200_000), 0x61)]) : bytes;
}

test('random streams of bytes and descriptors do the service no harm', { timeout: 240_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const seed = Number(process.env.VPN_FUZZ_SEED ?? Date.now() & 0x7fffffff);
  t.diagnostic(`VPN_FUZZ_SEED=${seed}`);
  const { app, vpnd, connect, unharmed } = await target(t);
  const [mine, theirs] = connect(CALLER).mailbox();
  const descriptors = [udpSocketIn(app), theirs, openSync('/dev/null', 'r'), openSync('/', 'r')];

  const one = async (number: number): Promise<void> => {
    const random = randomFrom(seed + number);
    const { below, pick } = random;
    const client = connect(pick([CALLER, CALLER, STRANGER]), { isDeaf: below(20) === 0 });
    let rest = stream(random);
    while (rest.length > 0) {
      const size = below(3) === 0 ? 1 + below(rest.length) : rest.length;
      const fds = Array.from({ length: below(3) === 0 ? pick([1, 1, 1, 2, 3, 9, 253]) : 0 }, () => pick(descriptors));
      if (!(await client.send(rest.subarray(0, size), fds))) break;
      rest = rest.subarray(size);
    }
    const end = below(4);
    if (end === 0) client.halfClose();
    else if (end === 1) await Promise.race([client.ended, delay(20)]);
    if (end > 0) client.close();
  };

  const deadline = Date.now() + DURATION_MS;
  let streams = 0;
  while (Date.now() < deadline) {
    for (let turn = 0; turn < 40; turn++) await Promise.all(Array.from({ length: 4 }, () => one(streams++)));
    assert.ok(vpnd.process.running, `vpnd ended\n${vpnd.log().slice(-2000)}`);
    await unharmed();
  }
  t.diagnostic(`${streams} streams`);
  closeSync(mine);
  for (const fd of descriptors) libc.close(fd);
  await unharmed();
});

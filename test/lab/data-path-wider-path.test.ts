/**
 * A path that has been narrow and is not any more, as when a laptop has left a hotel: hosts and tunnel as in lib/plain-tunnel.ts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ALL_ARRIVED, sendSegments } from './lib/datagrams.js';
import { startPlainPair } from './lib/plain-tunnel.js';
import { requireRoot } from './lib/prerequisites.js';
import { INSIDE, OUTSIDE } from './lib/two-hosts.js';

const SEGMENTS = { segmentBytes: 1300, count: 40, sends: 10 };
const DATAGRAMS = SEGMENTS.count * SEGMENTS.sends;
/** More than go alone before they are tried together again. */
const MOST_SENDS = 30;

test('when a path has become wide enough again, datagrams go in batches again', { timeout: 120_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const { here, there } = await startPlainPair(t);
  const sendsFor = async () => {
    const before = (await here.status()).counters;
    assert.deepEqual(await sendSegments(here.host, there.host, INSIDE.IPv4.there, SEGMENTS), ALL_ARRIVED);
    const after = (await here.status()).counters;
    return after.socketWrites - before.socketWrites;
  };
  assert.ok((await sendsFor()) < DATAGRAMS / 10);
  const route = `${OUTSIDE.IPv4.there} dev eth0`;
  await here.host.ip(`route add ${route} mtu 1280`);
  assert.ok((await sendsFor()) >= DATAGRAMS, 'one by one');
  await here.host.ip(`route del ${route}`);
  for (let sends = 0; (await sendsFor()) >= DATAGRAMS / 10; sends++) {
    assert.ok(sends < MOST_SENDS, 'they go one by one for ever');
  }
});

/**
 * A path that does not take the tunnel's datagrams in one piece: the kernel refuses batches of them (EMSGSIZE, before Linux 6.9
 * EINVAL), they are sent one by one and leave in fragments. Hosts and tunnel as in lib/plain-tunnel.ts, with a route of 1280
 * bytes from `here` to `there`.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ALL_ARRIVED, sendDatagrams, sendSegments } from './lib/datagrams.js';
import { FAMILIES, startPlainPair } from './lib/plain-tunnel.js';
import { requireRoot } from './lib/prerequisites.js';
import { receiveTransfers, transfer } from './lib/transfer.js';
import { INSIDE, OUTSIDE } from './lib/two-hosts.js';

const MEGABYTE = 1 << 20;
const PATH_MTU = 1280;

for (const outside of FAMILIES) {
  test(`a path of ${PATH_MTU} bytes over ${outside}: nothing is lost, and what fits still goes in batches`, {
    timeout: 120_000,
  }, async (t) => {
    if (!requireRoot(t)) return;
    const { here, there } = await startPlainPair(t, { outside });
    const to = OUTSIDE[outside].there;
    const small = { segmentBytes: 1000, count: 40, sends: 10 };
    const large = { segmentBytes: 1300, count: 40, sends: 10 };
    assert.deepEqual(await sendSegments(here.host, there.host, INSIDE.IPv4.there, large), ALL_ARRIVED);
    await here.host.ip(`route add ${to} dev eth0 mtu ${PATH_MTU}`);

    const before = (await here.status()).counters;
    // The first batch that is refused, too.
    assert.deepEqual(await sendSegments(here.host, there.host, INSIDE.IPv4.there, large), ALL_ARRIVED);
    const alone = (await here.status()).counters;
    assert.equal(alone.unsent, 0);
    const writes = alone.socketWrites - before.socketWrites;
    assert.ok(writes >= 400 && writes <= 405, `one by one, and refused once: ${writes} sends for 400 datagrams`);

    for (const family of FAMILIES) {
      assert.deepEqual(await sendSegments(here.host, there.host, INSIDE[family].there, small), ALL_ARRIVED);
    }
    const together = (await here.status()).counters;
    assert.ok(together.datagramsOut - alone.datagramsOut >= 800);
    assert.ok(together.socketWrites - alone.socketWrites < 200, 'what fits goes in batches');

    for (const family of FAMILIES) {
      await receiveTransfers(there.host, INSIDE[family].there);
      await receiveTransfers(here.host, INSIDE[family].here);
      await transfer(here.host, INSIDE[family].there, 4 * MEGABYTE);
      await transfer(there.host, INSIDE[family].here, 4 * MEGABYTE);
      const sizes = Array.from({ length: 300 }, (_, index) => 1072 + index);
      assert.deepEqual(await sendDatagrams(here.host, there.host, INSIDE[family].there, sizes), ALL_ARRIVED);
    }
    assert.equal((await here.status()).counters.unsent, 0);
  });
}

/**
 * The data path carries what it is given, whole and in order, with segmentation offload at both ends, at one, and at none. Where an
 * end has no offload its kernel verifies every checksum of every packet. Hosts and tunnel as in lib/plain-tunnel.ts, and once
 * more with WireGuard in place of a protocol that does nothing.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { ALL_ARRIVED, sendDatagrams, sendSegments } from './lib/datagrams.js';
import type { LabHost } from './lib/host.js';
import { Lab } from './lib/lab.js';
import { startOurTunnel } from './lib/our-tunnel.js';
import { checksumErrors, FAMILIES, type PlainPair, type PlainPairOptions, startPlainPair } from './lib/plain-tunnel.js';
import { requireRoot } from './lib/prerequisites.js';
import { receiveTransfers, transfer } from './lib/transfer.js';
import { INSIDE, OUTSIDE } from './lib/two-hosts.js';
import { eventually } from './lib/vpn-lab.js';
import { wireGuardKeys } from './lib/wireguard-go.js';

const MEGABYTE = 1 << 20;
const MTU = 1420;
const HEADERS = { IPv4: 28, IPv6: 48 } as const;
const MODES = [
  { here: true, there: true, name: 'offload at both ends' },
  { here: true, there: false, name: 'offload at one end' },
  { here: false, there: false, name: 'no offload' },
] as const;

interface Ends {
  here: LabHost;
  there: LabHost;
}

function hosts({ here, there }: PlainPair): Ends {
  return { here: here.host, there: there.host };
}

/** Both ways, both families, one after the other and then all at once. */
async function transferAll({ here, there }: Ends, megabytes: number): Promise<void> {
  const ways = FAMILIES.flatMap((family) => [
    { from: here, to: there, address: INSIDE[family].there },
    { from: there, to: here, address: INSIDE[family].here },
  ]);
  for (const { to, address } of ways) await receiveTransfers(to, address);
  for (const { from, address } of ways) await transfer(from, address, megabytes * MEGABYTE);
  await Promise.all(ways.map(({ from, address }) => transfer(from, address, megabytes * MEGABYTE)));
}

async function assertNoChecksumErrors({ here, there }: Ends): Promise<void> {
  for (const host of [here, there]) assert.deepEqual(await checksumErrors(host), {}, host.name);
}

for (const mode of MODES) {
  const options: PlainPairOptions = { here: { offload: mode.here }, there: { offload: mode.there } };

  test(`TCP with ${mode.name}: every byte arrives, both ways, both families, and no kernel finds a wrong checksum`, {
    timeout: 180_000,
  }, async (t) => {
    if (!requireRoot(t)) return;
    const pair = await startPlainPair(t, options);
    await transferAll(hosts(pair), 24);
    await assertNoChecksumErrors(hosts(pair));
    for (const end of [pair.here, pair.there]) {
      const { counters, offload } = await end.status();
      const side = end === pair.here ? mode.here : mode.there;
      assert.deepEqual([offload.vnetHeader, offload.tcp, offload.socket], [side, side, true]);
      const { packetsOut, packetsIn, tunReads, tunWrites, datagramsOut, datagramsIn, socketReads, socketWrites } =
        counters;
      t.diagnostic(
        `${end.host.name}: ${packetsOut} packets in ${tunReads} reads, ${packetsIn} in ${tunWrites} writes; ` +
          `${datagramsOut} datagrams in ${socketWrites} sends, ${datagramsIn} in ${socketReads} receives`,
      );
      assert.equal(counters.unroutable + counters.unsent + counters.undelivered, 0);
      assert.equal(packetsOut, datagramsOut);
      assert.equal(packetsIn, datagramsIn);
      if (side) assert.ok(packetsOut > 3 * tunReads && packetsIn > 3 * tunWrites, 'packets are carried many at a time');
      else assert.deepEqual([packetsOut, packetsIn], [tunReads, tunWrites]);
      assert.ok(datagramsOut > 2 * socketWrites && datagramsIn > 2 * socketReads, 'and so are datagrams');
    }
    let [sent, come]: number[][] = [[], []];
    // The last word of a connection may still be under way.
    const isAllThere = async () => {
      const [{ counters: one }, { counters: other }] = [await pair.here.status(), await pair.there.status()];
      sent = [one.packetsOut, one.bytesOut, other.packetsOut, other.bytesOut];
      come = [other.packetsIn, other.bytesIn, one.packetsIn, one.bytesIn];
      return isDeepStrictEqual(sent, come) || undefined;
    };
    await eventually('what was sent', isAllThere).catch(() => undefined);
    assert.deepEqual(come, sent, 'nothing was lost between them');
  });

  test(`UDP with ${mode.name}: a datagram of every size from 0 on, in order, and fragments`, {
    timeout: 180_000,
  }, async (t) => {
    if (!requireRoot(t)) return;
    const ends = hosts(await startPlainPair(t, options));
    for (const family of FAMILIES) {
      const most = MTU - HEADERS[family];
      const sizes = Array.from({ length: most + 1 }, (_, size) => size);
      assert.deepEqual(await sendDatagrams(ends.here, ends.there, INSIDE[family].there, sizes), ALL_ARRIVED);
      assert.deepEqual(await sendDatagrams(ends.there, ends.here, INSIDE[family].here, sizes), ALL_ARRIVED);
      // Many of one size, which may be joined, then of sizes that change; and what does not fit into one packet.
      const runs = [1, 27, 28, 29, 999, 1000, most].flatMap((size) => new Array<number>(70).fill(size));
      assert.deepEqual(await sendDatagrams(ends.here, ends.there, INSIDE[family].there, runs), ALL_ARRIVED);
      const large = [most + 1, 4000, 20_000, 65_000];
      assert.deepEqual(await sendDatagrams(ends.here, ends.there, INSIDE[family].there, large), ALL_ARRIVED);
      assert.deepEqual(await sendDatagrams(ends.there, ends.here, INSIDE[family].here, large), ALL_ARRIVED);
    }
    await assertNoChecksumErrors(ends);
  });

  test(`UDP sent in segments with ${mode.name} arrives as single datagrams, in order`, {
    timeout: 240_000,
  }, async (t) => {
    if (!requireRoot(t)) return;
    const pair = await startPlainPair(t, options);
    const ends = hosts(pair);
    for (const family of FAMILIES) {
      for (const [segmentBytes, count] of [
        [1300, 40],
        [101, 60],
        [1, 30],
      ] as const) {
        const segments = { segmentBytes, count, sends: 15 };
        assert.deepEqual(await sendSegments(ends.here, ends.there, INSIDE[family].there, segments), ALL_ARRIVED);
        assert.deepEqual(await sendSegments(ends.there, ends.here, INSIDE[family].here, segments), ALL_ARRIVED);
      }
    }
    await assertNoChecksumErrors(ends);
    const { counters, offload } = await pair.here.status();
    if (offload.udp) assert.ok(counters.packetsOut > 3 * counters.tunReads, 'the kernel gave them in one piece');
  });
}

for (const overhead of [1, 3, 64]) {
  test(`A protocol with ${overhead} bytes around a packet: nothing depends on alignment`, {
    timeout: 120_000,
  }, async (t) => {
    if (!requireRoot(t)) return;
    const pair = await startPlainPair(t, { here: { overhead }, there: { overhead, offload: false }, outside: 'IPv6' });
    await transferAll(hosts(pair), 4);
    await assertNoChecksumErrors(hosts(pair));
  });
}

test('TCP with an MTU of every kind: odd, the smallest, large', { timeout: 300_000 }, async (t) => {
  if (!requireRoot(t)) return;
  for (const mtu of [1281, 1280, 9001]) {
    const pair = await startPlainPair(t, { mtu, there: { offload: false } });
    await transferAll(hosts(pair), 4);
    await assertNoChecksumErrors(hosts(pair));
    await pair.lab.close();
  }
});

async function wireGuardPair(t: TestContext, mode: (typeof MODES)[number]): Promise<Ends> {
  const lab = await Lab.create();
  t.after(() => lab.close());
  const [here, there] = await Promise.all([lab.host('here'), lab.host('there')]);
  await lab.link(here, 'eth0', ['192.0.2.1/24'], there, 'eth0', ['192.0.2.2/24']);
  const keys = { here: wireGuardKeys(), there: wireGuardKeys() };
  const ends = { here, there };
  const start = (side: 'here' | 'there', far: 'here' | 'there') =>
    startOurTunnel(ends[side], 'wg0', {
      keys: keys[side],
      listenPort: 51_000,
      mtu: MTU,
      offload: mode[side],
      addresses: [`${INSIDE.IPv4[side]}/24`, `${INSIDE.IPv6[side]}/64`],
      peers: [
        {
          publicKey: keys[far].publicKey,
          allowedIps: [`${INSIDE.IPv4[far]}/32`, `${INSIDE.IPv6[far]}/128`],
          endpoint: `${OUTSIDE.IPv4[far]}:51000`,
        },
      ],
    });
  await Promise.all([start('here', 'there'), start('there', 'here')]);
  return ends;
}

for (const mode of MODES) {
  test(`WireGuard with ${mode.name}: TCP and UDP of every size arrive whole, and no kernel finds a wrong checksum`, {
    timeout: 180_000,
  }, async (t) => {
    if (!requireRoot(t)) return;
    const ends = await wireGuardPair(t, mode);
    // The first packets wait for the handshake.
    await ends.here.run('ping', ['-n', '-c3', '-i0.1', '-W15', INSIDE.IPv4.there]);
    await transferAll(ends, 16);
    for (const family of FAMILIES) {
      const sizes = Array.from({ length: MTU - HEADERS[family] + 1 }, (_, size) => size);
      assert.deepEqual(await sendDatagrams(ends.here, ends.there, INSIDE[family].there, sizes), ALL_ARRIVED);
      const segments = { segmentBytes: 1299, count: 40, sends: 15 };
      assert.deepEqual(await sendSegments(ends.there, ends.here, INSIDE[family].here, segments), ALL_ARRIVED);
    }
    await assertNoChecksumErrors(ends);
  });
}

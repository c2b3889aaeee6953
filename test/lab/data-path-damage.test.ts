/**
 * What is damaged between the sender's kernel and the receiver's is found by the receiver's kernel, although it looks at no
 * checksum of packets that it gets joined: so such packets must not be joined. The protocol of one end changes a bit of each
 * so-manyth packet. Hosts and tunnel as in lib/plain-tunnel.ts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sendDatagrams, sendSegments } from './lib/datagrams.js';
import type { Fault } from './lib/plain-protocol.js';
import { FAMILIES, kernelCounters, startPlainPair } from './lib/plain-tunnel.js';
import { requireRoot } from './lib/prerequisites.js';
import { receiveTransfers, transfer } from './lib/transfer.js';
import { INSIDE } from './lib/two-hosts.js';

const BYTES = 12 << 20;
const TRANSPORT = { IPv4: 20, IPv6: 40 } as const;

for (const family of FAMILIES) {
  const at = TRANSPORT[family];
  const places: [string, number, string][] = [
    ['the source port', at, 'TcpInCsumErrors'],
    ['the sequence number', at + 5, 'TcpInCsumErrors'],
    ['the acknowledgement', at + 11, 'TcpInCsumErrors'],
    ['the window', at + 15, 'TcpInCsumErrors'],
    ['the checksum', at + 17, 'TcpInCsumErrors'],
    ['the time stamp', at + 25, 'TcpInCsumErrors'],
    ['the first byte of content', at + 32, 'TcpInCsumErrors'],
    ['the last byte of content', -1, 'TcpInCsumErrors'],
    ...(family === 'IPv4'
      ? ([
          ['the identification', 5, 'IpInHdrErrors'],
          ['the time to live', 8, 'IpInHdrErrors'],
          ["the header's checksum", 11, 'IpInHdrErrors'],
        ] as [string, number, string][])
      : []),
  ];

  test(`TCP over ${family}: damage anywhere is found, packet for packet, and never reaches the application`, {
    timeout: 240_000,
  }, async (t) => {
    if (!requireRoot(t)) return;
    const { here, there } = await startPlainPair(t);
    const address = INSIDE[family].there;
    await receiveTransfers(there.host, address);
    for (const [index, [what, byte, counter]] of places.entries()) {
      const fault: Fault = { in: 'open', what: 'flip', every: 90 + index, at: byte, fromBytes: 1000 };
      const before = { kernel: await kernelCounters(there.host), faults: (await there.call({ ask: 'counts' })).faults };
      await there.call({ ask: 'fault', fault });
      await transfer(here.host, address, BYTES);
      await there.call({ ask: 'fault' });
      const faults = (await there.call({ ask: 'counts' })).faults - before.faults;
      const found = ((await kernelCounters(there.host))[counter] ?? 0) - (before.kernel[counter] ?? 0);
      assert.ok(faults > 20, `${faults} packets damaged`);
      assert.equal(found, faults, `${what}: ${found} of ${faults} damaged packets are found`);
    }
    const { counters } = await there.status();
    assert.ok(counters.packetsIn > 3 * counters.tunWrites, 'packets were joined all the while');
  });

  test(`UDP over ${family}: a damaged datagram is missing, the others arrive as they were sent`, {
    timeout: 300_000,
  }, async (t) => {
    if (!requireRoot(t)) return;
    const { here, there } = await startPlainPair(t);
    const address = INSIDE[family].there;
    const counter = family === 'IPv4' ? 'UdpInCsumErrors' : 'Udp6InCsumErrors';
    for (const byte of [at + 1, at + 7, at + 8, -1]) {
      const before = { kernel: await kernelCounters(there.host), faults: (await there.call({ ask: 'counts' })).faults };
      await there.call({ ask: 'fault', fault: { in: 'open', what: 'flip', every: 17, at: byte, fromBytes: 500 } });
      const segments = { segmentBytes: 1200, count: 40, sends: 10 };
      const joined = await sendSegments(here.host, there.host, address, segments, 'damaged');
      const sizes = [500, 900, 901, 902, ...new Array(100).fill(1000)];
      const alone = await sendDatagrams(here.host, there.host, address, sizes, 'damaged');
      await there.call({ ask: 'fault' });
      const faults = (await there.call({ ask: 'counts' })).faults - before.faults;
      const found = ((await kernelCounters(there.host))[counter] ?? 0) - (before.kernel[counter] ?? 0);
      for (const { wrong, inOrder, twice } of [joined, alone]) {
        assert.deepEqual({ wrong, inOrder, twice }, { wrong: 0, inOrder: true, twice: 0 });
      }
      assert.deepEqual([joined.missing.length + alone.missing.length, found], [faults, faults], `byte ${byte}`);
      assert.ok(faults > 20);
    }
  });
}

test('damage before sealing and loss in either direction: the stream is right in the end', {
  timeout: 300_000,
}, async (t) => {
  if (!requireRoot(t)) return;
  const { here, there } = await startPlainPair(t);
  for (const family of FAMILIES) {
    await receiveTransfers(there.host, INSIDE[family].there);
    for (const [end, fault] of [
      [here, { in: 'seal', what: 'flip', every: 101, at: 100, fromBytes: 200 }],
      [here, { in: 'seal', what: 'drop', every: 103 }],
      [here, { in: 'open', what: 'drop', every: 53 }],
      [there, { in: 'open', what: 'drop', every: 107 }],
    ] as const) {
      await end.call({ ask: 'fault', fault });
      await transfer(here.host, INSIDE[family].there, BYTES);
      await end.call({ ask: 'fault' });
    }
  }
});

/**
 * What the kernel itself makes of super-packets, compared with what the tunnel makes of them: it forwards them from a TUN with a
 * vnet header to one without, and so has to cut them.
 *
 *   write ──► in0 (10.9.0.1, fd09::1) ── the kernel forwards and cuts ── out0 (10.9.0.2, fd09::2) ──► read
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { Coalescer, RUN_BYTES } from '../../src/tunnel/coalescer.js';
import { Segmenter } from '../../src/tunnel/segmenter.js';
import {
  ACK,
  CWR,
  ECE,
  FIN,
  type PacketFields,
  PSH,
  payloadOf,
  type SuperPacket,
  segmentsOf,
  superPacketOf,
  unfinishedPacketOf,
} from '../unit/tunnel/lib/packets.js';
import { Lab } from './lib/lab.js';
import { requireRoot } from './lib/prerequisites.js';
import type { TunPairAnswer } from './lib/tun-pair.js';

const TIMESTAMP = Uint8Array.from([1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8]);

/** What the kernel makes of one write. */
type Forward = (bytes: Buffer) => Promise<Buffer[]>;

async function forwarder(t: TestContext): Promise<Forward> {
  const lab = await Lab.create();
  t.after(() => lab.close());
  const host = await lab.host('one');
  await host.sysctl('net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1');
  const pair = host.spawnNode('dist/test/lab/lib/tun-pair.js');
  await pair.waitFor(/^ready$/m);
  await host.ip('link set out0 txqueuelen 10000', 'link set out0 mtu 9000');
  await host.configure('in0', ['10.9.0.254/24', 'fd09::fe/64']);
  await host.configure('out0', []);
  await host.ip('route add 10.9.0.2 dev out0', 'route add fd09::2 dev out0');
  let number = 0;
  return async (bytes) => {
    pair.write(`${bytes.toString('hex')}\n`);
    const [text] = await pair.waitFor(new RegExp(`^\\{"number":${++number},.*\\}$`, 'm'));
    const { written, packets } = JSON.parse(text) as TunPairAnswer;
    assert.equal(written, 'ok');
    return packets.map((packet) => Buffer.from(packet, 'hex'));
  };
}

function cut({ header, packet }: SuperPacket): Buffer[] {
  const memory = new Uint8Array(66_048);
  memory.set(header, 502);
  memory.set(packet, 512);
  const segmenter = new Segmenter(memory);
  assert.equal(segmenter.begin(502, 512, packet.length), true);
  const packets: Buffer[] = [];
  while (segmenter.next()) packets.push(Buffer.from(memory.slice(segmenter.at, segmenter.at + segmenter.length)));
  return packets;
}

/** What is written to the TUN when these packets come one after the other. */
function join(packets: readonly Buffer[]): Buffer[] {
  const memory = new Uint8Array(2 * RUN_BYTES);
  const written: Buffer[] = [];
  const coalescer = new Coalescer(memory, { runs: [0, RUN_BYTES] }, { vnetHeader: true, udp: true }, (at, length) => {
    written.push(Buffer.from(memory.slice(at, at + length)));
  });
  for (const packet of packets) {
    memory.set(packet, coalescer.place(packet.length));
    coalescer.add(packet.length);
  }
  coalescer.flush();
  return written;
}

const hex = (packets: readonly Buffer[]) => packets.map((packet) => packet.toString('hex'));
/** One router on. */
const forwarded = (fields: Partial<PacketFields>): Partial<PacketFields> => ({ ...fields, ttl: 63 });

const SAMPLES: [string, Partial<PacketFields>, number][] = ([4, 6] as const).flatMap((version) =>
  (
    [
      ['TCP', { payload: payloadOf(5001) }, 1368],
      ['TCP with PSH', { payload: payloadOf(5000), flags: ACK | PSH }, 1000],
      ['TCP with FIN and PSH', { payload: payloadOf(5000), flags: ACK | FIN | PSH }, 1000],
      ['TCP with CWR and ECE', { payload: payloadOf(5000), flags: ACK | CWR | ECE }, 1000],
      ['TCP with options', { payload: payloadOf(5000), options: TIMESTAMP }, 1356],
      ['TCP with all options', { payload: payloadOf(500), options: payloadOf(40, 5) }, 99],
      ['TCP whose sequence begins again', { payload: payloadOf(5000), sequence: 0xffffff00 }, 1000],
      ['TCP whose identification begins again', { payload: payloadOf(5000), id: 0xfffe }, 1000],
      ['64 KiB of TCP', { payload: payloadOf(65_400) }, 1400],
      ['TCP in tiny pieces', { payload: payloadOf(500) }, 7],
      ['UDP', { protocol: 'udp', payload: payloadOf(5001) }, 1200],
      ['UDP in odd pieces', { protocol: 'udp', payload: payloadOf(5000) }, 333],
    ] as [string, Partial<PacketFields>, number][]
  ).map(([what, fields, bytes]): [string, Partial<PacketFields>, number] => [
    `${what}, IPv${version}`,
    { ...fields, version },
    bytes,
  ]),
);

test('The tunnel cuts super-packets into the very bytes that the kernel cuts them into', {
  timeout: 120_000,
}, async (t) => {
  if (!requireRoot(t)) return;
  const forward = await forwarder(t);
  for (const [what, fields, segmentBytes] of SAMPLES) {
    const { header, packet } = superPacketOf(fields, segmentBytes);
    const packets = await forward(Buffer.concat([header, packet]));
    assert.ok(packets.length > 1, what);
    assert.deepEqual(hex(cut(superPacketOf(forwarded(fields), segmentBytes))), hex(packets), what);
  }
  for (const version of [4, 6] as const) {
    for (const protocol of ['tcp', 'udp'] as const) {
      const fields = { version, protocol, payload: payloadOf(777) };
      const { header, packet } = unfinishedPacketOf(fields);
      const packets = await forward(Buffer.concat([header, packet]));
      assert.deepEqual(hex(cut(unfinishedPacketOf(forwarded(fields)))), hex(packets));
    }
  }
});

test('What the tunnel joins, the kernel cuts into the very packets that came', { timeout: 120_000 }, async (t) => {
  if (!requireRoot(t)) return;
  const forward = await forwarder(t);
  for (const [what, fields, segmentBytes] of SAMPLES) {
    const written = join(segmentsOf(fields, segmentBytes));
    const packets: Buffer[] = [];
    for (const bytes of written) packets.push(...(await forward(bytes)));
    assert.deepEqual(hex(packets), hex(segmentsOf(forwarded(fields), segmentBytes)), what);
    t.diagnostic(`${what}: ${packets.length} packets in ${written.length} writes`);
  }
  // Headers that the kernel would refuse, or take for others, would show as packets that are missing.
  const mixed = [1, 2, 3].flatMap((sourcePort) =>
    [4, 6].flatMap((version) =>
      segmentsOf({ sourcePort, version: version as 4 | 6, payload: payloadOf(4000), flags: ACK | PSH }, 1300),
    ),
  );
  const packets: Buffer[] = [];
  for (const bytes of join(mixed)) packets.push(...(await forward(bytes)));
  assert.deepEqual(
    hex(packets).map((each) => each.slice(-200)),
    hex(mixed).map((each) => each.slice(-200)),
  );
});

/**
 * Joining packets: whatever comes, what is written stands for exactly the packets that came, in their order. What was written is
 * taken apart by lib/packets.ts, which makes each packet anew from its fields; what the kernel makes of it is compared in
 * test/lab/kernel-segments.test.ts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { sumBlocksIn, wasmMemory } from '../../../src/tunnel/checksum-simd.js';
import { Coalescer, RUN_BYTES } from '../../../src/tunnel/coalescer.js';
import { Segmenter } from '../../../src/tunnel/segmenter.js';
import {
  ACK,
  CWR,
  ECE,
  FIN,
  fieldsOf,
  type PacketFields,
  PSH,
  packetOf,
  parsePacket,
  payloadOf,
  RST,
  repair,
  SYN,
  segmentsOf,
  superPacketOf,
  transportAt,
  URG,
} from './lib/packets.js';

const GUARD_BYTES = 256;
const GUARD = 0x5a;
const [FIRST, SECOND] = [GUARD_BYTES, 2 * GUARD_BYTES + RUN_BYTES];
const VNET_BYTES = 10;
/** One for all: each would reserve gigabytes of addresses. */
const vectors = wasmMemory(3 * GUARD_BYTES + 2 * RUN_BYTES);
const sumBlocks = sumBlocksIn(vectors);

/** A coalescer in memory that nobody else writes to, and what it has written. */
class Joined {
  readonly written: Buffer[] = [];
  readonly #memory = new Uint8Array(vectors.buffer).fill(GUARD);
  readonly #coalescer: Coalescer;
  readonly #vnetBytes: number;

  constructor({ vnetHeader = true, udp = true } = {}) {
    this.#vnetBytes = vnetHeader ? VNET_BYTES : 0;
    const places = { runs: [FIRST, SECOND] as const };
    const write = (at: number, length: number) => {
      this.written.push(Buffer.from(this.#memory.slice(at, at + length)));
    };
    this.#coalescer = new Coalescer(this.#memory, places, { vnetHeader, udp }, write, sumBlocks);
  }

  /** As one comes out of a datagram that is larger by `overhead`. */
  add(packet: Uint8Array, overhead = 32): this {
    this.#memory.set(packet, this.#place(packet.length + overhead));
    this.#coalescer.add(packet.length);
    return this;
  }

  /** One that turned out not to be authentic, after all of it was written. */
  discard(bytes: number): this {
    const at = this.#place(bytes);
    this.#memory.fill(0xee, at, at + bytes);
    this.#coalescer.discard();
    return this;
  }

  flush(): this {
    this.#coalescer.flush();
    for (const start of [0, FIRST + RUN_BYTES, SECOND + RUN_BYTES]) {
      const guard = this.#memory.subarray(start, start + GUARD_BYTES);
      assert.ok(
        guard.every((byte) => byte === GUARD),
        `memory at ${start} is not the coalescer's`,
      );
    }
    return this;
  }

  /** The packets that each write stands for. */
  get runs(): Buffer[][] {
    return this.written.map((bytes) => {
      const packet = bytes.subarray(this.#vnetBytes);
      return this.#vnetBytes === 0 ? [packet] : segmentsIn(bytes.subarray(0, VNET_BYTES), packet);
    });
  }

  #place(bytes: number): number {
    const at = this.#coalescer.place(bytes);
    const isInside = [FIRST, SECOND].some((start) => at >= start && at + bytes <= start + RUN_BYTES);
    assert.ok(isInside, `${bytes} bytes at ${at}`);
    return at;
  }
}

/** Checks the header by making what the kernel would have sent with it. */
function segmentsIn(header: Buffer, packet: Buffer): Buffer[] {
  if (header[1] === 0) {
    assert.deepEqual(header, Buffer.alloc(VNET_BYTES), 'a packet alone says nothing: the kernel verifies it');
    return [packet];
  }
  const fields = parsePacket(packet);
  const segmentBytes = header.readUInt16LE(4);
  assert.ok(segmentBytes < fields.payload.length, 'more than one');
  const expected = superPacketOf(fields, segmentBytes);
  assert.equal(header.toString('hex'), expected.header.toString('hex'));
  assert.equal(packet.toString('hex'), expected.packet.toString('hex'));
  return segmentsOf(fields, segmentBytes);
}

function joined(packets: readonly Uint8Array[], options?: { vnetHeader?: boolean; udp?: boolean }): Joined {
  const all = new Joined(options);
  for (const packet of packets) all.add(packet);
  return all.flush();
}

const hex = (packets: readonly Uint8Array[]) => packets.map((packet) => Buffer.from(packet).toString('hex'));

/** How many packets each write stands for; all of them together are those that came. */
function counts(packets: readonly Uint8Array[], options?: { vnetHeader?: boolean; udp?: boolean }): number[] {
  const { runs } = joined(packets, options);
  assert.deepEqual(hex(runs.flat()), hex(packets));
  return runs.map((run) => run.length);
}

const KINDS = ([4, 6] as const).flatMap((version) =>
  (['tcp', 'udp'] as const).map((protocol): Pick<PacketFields, 'version' | 'protocol'> => ({ version, protocol })),
);
const TIMESTAMP = Uint8Array.from([1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8]);
const SIZE = 700;

/** Packet `index` of a flow. */
function nth(index: number, given: Partial<PacketFields> = {}, size = SIZE): Buffer {
  const { sequence, id } = fieldsOf(given);
  const payload = payloadOf(size, index + 1);
  const next = { sequence: (sequence + index * size) % 2 ** 32, id: (id + index) % 2 ** 16 };
  return packetOf({ payload, ...given, ...next });
}

for (const kind of KINDS) {
  const name = `${kind.protocol.toUpperCase()} over IPv${kind.version}`;
  const headers = kind.protocol === 'tcp' ? 20 : 8;

  test(`${name}: packets that follow one another are written as one`, () => {
    assert.deepEqual(counts([0, 1, 2, 3].map((index) => nth(index, kind))), [4]);
    assert.deepEqual(counts([nth(0, kind)]), [1]);
    assert.deepEqual(counts([]), []);
  });

  test(`${name}: a shorter packet is the last of its run, a longer one begins the next`, () => {
    const shorter = nth(2, { ...kind, payload: payloadOf(SIZE - 1) });
    assert.deepEqual(counts([nth(0, kind), nth(1, kind), shorter]), [3]);
    const sequence = fieldsOf({}).sequence - 1;
    const after = [nth(3, { ...kind, sequence }), nth(4, { ...kind, sequence })];
    assert.deepEqual(counts([nth(0, kind), nth(1, kind), shorter, ...after]), [3, 2]);
    const longer = nth(2, { ...kind, payload: payloadOf(SIZE + 1) });
    assert.deepEqual(counts([nth(0, kind), nth(1, kind), longer]), [2, 1]);
  });

  test(`${name}: any payload and size comes back, wherever the end of a run falls`, () => {
    const size = fc.oneof(fc.integer({ min: 1, max: 1500 }), fc.integer({ min: 1, max: 120 }));
    const options = fc.integer({ min: 0, max: 10 }).map((words) => payloadOf(words * 4, words));
    const length = fc.integer({ min: 1, max: 9000 });
    fc.assert(
      fc.property(size, length, options, fc.nat(), (segmentBytes, bytes, tcpOptions, seed) => {
        const fields = { ...kind, options: tcpOptions, payload: payloadOf(bytes, seed), sequence: 2 ** 32 - 3000 };
        counts(segmentsOf(fields, segmentBytes));
      }),
      { numRuns: 150 },
    );
  });

  test(`${name}: what the segmenter has cut is joined to the same super-packet again`, () => {
    const bytes = fc.integer({ min: 101, max: 60_000 });
    const segment = fc.integer({ min: 100, max: 1500 });
    fc.assert(
      fc.property(bytes, segment, fc.nat(10), (payloadBytes, segmentBytes, words) => {
        const options = payloadOf(words * 4);
        const limit = kind.protocol === 'udp' ? 64 * segmentBytes : payloadBytes;
        const payload = payloadOf(Math.max(segmentBytes + 1, Math.min(payloadBytes, limit)));
        const { header, packet } = superPacketOf({ ...kind, options, payload }, segmentBytes);
        const memory = new Uint8Array(70_000);
        memory.set(header, 502);
        memory.set(packet, 512);
        const segmenter = new Segmenter(memory);
        segmenter.begin(502, 512, packet.length);
        const all = new Joined();
        while (segmenter.next()) all.add(memory.subarray(segmenter.at, segmenter.at + segmenter.length), 0);
        assert.deepEqual(hex(all.flush().written), hex([Buffer.concat([header, packet])]));
      }),
      { numRuns: 60 },
    );
  });

  test(`${name}: a packet that is damaged in any byte is not joined, and stays as it is`, () => {
    const at = kind.version === 4 ? 20 : 40;
    const bytes = at + headers + 100;
    for (const index of [0, 1, 3]) {
      for (let byte = 0; byte < bytes; byte++) {
        const packets = [0, 1, 2, 3].map((each) => nth(each, kind, 100));
        const damaged = packets[index] as Buffer;
        damaged[byte] = (damaged[byte] as number) ^ 0x10;
        const { runs } = joined(packets);
        const what = `byte ${byte} of packet ${index}`;
        assert.deepEqual(hex(runs.flat()), hex(packets), what);
        assert.equal(runs.find((run) => run.some((each) => each.equals(damaged)))?.length, 1, what);
      }
    }
  });

  test(`${name}: a run ends before 64 KiB`, () => {
    for (const size of [1, 2, 3].map((less) => 1400 - less)) {
      const packets = Array.from({ length: 100 }, (_, index) => nth(index, kind, size));
      const { written, runs } = joined(packets);
      assert.deepEqual(hex(runs.flat()), hex(packets));
      assert.equal(runs.length, 3);
      for (const bytes of written) assert.ok(bytes.length <= VNET_BYTES + 65_535);
      assert.ok((written[0]?.length ?? 0) > 65_535 - 1500, 'and not long before');
    }
  });

  test(`${name}: the largest packets there are`, () => {
    const most = 65_535 - (kind.version === 4 ? 20 : 40) - headers;
    assert.deepEqual(counts([nth(0, kind, most), nth(1, kind, most), nth(2, kind, 100)]), [1, 1, 1]);
    const half = most >> 1;
    const second = (bytes: number) => nth(1, { ...kind, sequence: fieldsOf({}).sequence + half - bytes }, bytes);
    assert.deepEqual(counts([nth(0, kind, half), second(half - 32)]), [2]);
    assert.deepEqual(counts([nth(0, kind, half), second(most - half + 1)]), [1, 1]);
  });

  test(`${name}: what is discarded in between leaves no trace, at any size`, () => {
    for (const bytes of [0, 1, 31, 32, 60, 700, 1500, 60_000]) {
      const all = new Joined().discard(bytes);
      for (let index = 0; index < 4; index++) all.add(nth(index, kind)).discard(bytes);
      const { runs } = all.flush();
      assert.deepEqual(hex(runs.flat()), hex([0, 1, 2, 3].map((index) => nth(index, kind))));
      if (bytes <= 1500)
        assert.deepEqual(
          runs.map((run) => run.length),
          [4],
        );
    }
  });

  test(`${name}: without a vnet header every packet is written as it came`, () => {
    const packets = [0, 1, 2, 3].map((index) => nth(index, kind));
    const { written } = joined(packets, { vnetHeader: false });
    assert.deepEqual(hex(written), hex(packets));
  });
}

/** Each packet is right in itself, and the third is another one's. */
function assertApart(common: Partial<PacketFields>, different: Partial<PacketFields>, expected = [2, 1, 1]): void {
  const packets = [0, 1, 2, 3].map((index) => nth(index, index === 2 ? { ...common, ...different } : common));
  assert.deepEqual(counts(packets), expected, JSON.stringify(different));
}

const ANY: Partial<PacketFields>[] = [
  { trafficClass: 1 },
  { trafficClass: 0x80 },
  { trafficClass: 3 },
  { ttl: 63 },
  { source: 3 },
  { destination: 3 },
  { sourcePort: 4001 },
  { destinationPort: 5001 },
];
const OF_IPV4: Partial<PacketFields>[] = [
  { fragment: 0 },
  { fragment: 0xc000 },
  { fragment: 0x6000 },
  { fragment: 0x4001 },
];
const OF_IPV6: Partial<PacketFields>[] = [{ flowLabel: 0xabcdf }, { flowLabel: 0x2bcde }];
const OF_TCP: Partial<PacketFields>[] = [
  { acknowledgement: 78 },
  { acknowledgement: 77 + 2 ** 31 },
  { window: 502 },
  { reserved: 1 },
  { options: Uint8Array.from([1, 1, 1, 1]) },
  ...[FIN, SYN, RST, URG, ECE, CWR, PSH | FIN].map((flag) => ({ flags: ACK | flag })),
  { flags: 0 },
  { flags: PSH },
];

for (const kind of KINDS) {
  const { version, protocol } = kind;
  const differences = [...ANY, ...(version === 4 ? OF_IPV4 : OF_IPV6), ...(protocol === 'tcp' ? OF_TCP : [])];
  const other = protocol === 'tcp' ? 'udp' : 'tcp';

  test(`${protocol.toUpperCase()} over IPv${version}: a packet that differs in one field is not joined`, () => {
    for (const different of [...differences, { protocol: other } as const]) assertApart(kind, different);
    assertApart(kind, { version: version === 4 ? 6 : 4 });
    if (version === 6) assertApart(kind, { hopByHopBytes: 8 });
    else assertApart(kind, { ipOptions: Uint8Array.from([1, 1, 1, 0]) });
  });
}

for (const version of [4, 6] as const) {
  test(`TCP over IPv${version}: options that differ in one byte are not joined`, () => {
    for (let index = 0; index < TIMESTAMP.length; index++) {
      const options = TIMESTAMP.slice();
      options[index] = (options[index] as number) ^ 1;
      assertApart({ version, options: TIMESTAMP }, { options });
    }
  });

  test(`TCP over IPv${version}: only the next sequence number follows`, () => {
    const from = (sequence: number) =>
      packetOf({ version, sequence: sequence % 2 ** 32, payload: payloadOf(SIZE), id: 1 });
    for (const base of [5000, 2 ** 32 - SIZE, 2 ** 32 - 1]) {
      for (const wrong of [-SIZE, -1, 0, SIZE - 1, SIZE + 1, 2 * SIZE, 2 ** 31]) {
        const packets = [from(base), from(base + wrong + 2 ** 32)];
        assert.equal(joined(packets).runs.length, 2, `${base} and ${wrong}`);
      }
      assert.equal(joined([from(base), from(base + SIZE)]).runs.length, 1);
    }
  });

  test(`TCP over IPv${version}: PSH ends a run, and the run says PSH`, () => {
    const pushed = (index: number, ...which: number[]) =>
      nth(index, { version, ...(which.includes(index) && { flags: ACK | PSH }) });
    assert.deepEqual(counts([0, 1, 2, 3].map((index) => pushed(index, 3))), [4]);
    assert.deepEqual(counts([0, 1, 2, 3].map((index) => pushed(index, 1))), [2, 2]);
    assert.deepEqual(counts([0, 1, 2, 3].map((index) => pushed(index, 0))), [1, 3]);
    assert.deepEqual(counts([0, 1, 2, 3].map((index) => pushed(index, 0, 1, 2, 3))), [1, 1, 1, 1]);
  });

  test(`TCP over IPv${version}: packets without payload stay alone and in their place`, () => {
    const empty = packetOf({ version, sequence: 1_000_000 + 2 * SIZE });
    assert.deepEqual(counts([nth(0, { version }), nth(1, { version }), empty, nth(2, { version })]), [2, 1, 1]);
    assert.deepEqual(counts([empty, empty]), [1, 1]);
  });

  test(`UDP over IPv${version}: no more than 64 datagrams are one`, () => {
    const packets = Array.from({ length: 150 }, (_, index) => nth(index, { version, protocol: 'udp' }, 100));
    assert.deepEqual(counts(packets), [64, 64, 22]);
  });

  test(`UDP over IPv${version}: datagrams whose checksum nobody made stay alone`, () => {
    const without = (index: number) => {
      const packet = nth(index, { version, protocol: 'udp' });
      packet.writeUInt16BE(0, version === 4 ? 26 : 46);
      return packet;
    };
    const kind = { version, protocol: 'udp' } as const;
    assert.deepEqual(counts([without(0), without(1)]), [1, 1]);
    assert.deepEqual(counts([nth(0, kind), without(1), nth(2, kind), nth(3, kind)]), [1, 1, 2]);
  });

  test(`UDP over IPv${version}: where the kernel cannot take it joined, it is not; TCP is`, () => {
    const udp = [0, 1, 2].map((index) => nth(index, { version, protocol: 'udp' }));
    const tcp = [0, 1, 2].map((index) => nth(index, { version }));
    assert.deepEqual(counts([...udp, ...tcp], { udp: false }), [1, 1, 1, 3]);
  });

  test(`UDP over IPv${version}: a length field that says something else stays alone`, () => {
    for (const wrong of [0, 7, 8 + SIZE - 1, 8 + SIZE + 1, 0xffff]) {
      const packets = [0, 1, 2].map((index) => nth(index, { version, protocol: 'udp' }));
      (packets[1] as Buffer).writeUInt16BE(wrong, version === 4 ? 24 : 44);
      assert.deepEqual(counts(packets), [1, 1, 1], `${wrong}`);
    }
  });

  test(`IPv${version}: a length field that says something else stays alone`, () => {
    for (const protocol of ['tcp', 'udp'] as const) {
      for (const change of [-1, 1, 8, -SIZE]) {
        for (const which of [0, 1]) {
          const packets = [0, 1, 2].map((index) => nth(index, { version, protocol }));
          const packet = packets[which] as Buffer;
          const at = version === 4 ? 2 : 4;
          packet.writeUInt16BE(packet.readUInt16BE(at) + change, at);
          repair(packet, { version, protocol });
          const { runs } = joined(packets);
          assert.deepEqual(hex(runs.flat()), hex(packets));
          assert.ok(runs.every((run) => run.length === 1 || !run.some((each) => each.equals(packet))));
        }
      }
    }
  });
}

test('fragments stay alone, the first of them too', () => {
  for (const protocol of ['tcp', 'udp'] as const) {
    for (const fragment of [0x2000, 0x0001, 0x2001, 0x1fff, 0x6000]) {
      assert.deepEqual(counts([0, 1, 2].map((index) => nth(index, { protocol, fragment }))), [1, 1, 1]);
    }
  }
});

test('packets with IPv4 options or IPv6 extension headers stay alone', () => {
  for (const protocol of ['tcp', 'udp'] as const) {
    for (const given of [{ ipOptions: new Uint8Array(4).fill(1) }, { version: 6, hopByHopBytes: 8 }] as const) {
      assert.deepEqual(counts([0, 1, 2].map((index) => nth(index, { protocol, ...given }))), [1, 1, 1]);
    }
  }
});

test('a wrong checksum in the IPv4 header keeps a packet alone, though its contents are right', () => {
  for (const which of [0, 1]) {
    const packets = [nth(0), nth(1)];
    const packet = packets[which] as Buffer;
    packet.writeUInt16BE(packet.readUInt16BE(10) ^ 1, 10);
    assert.deepEqual(counts(packets), [1, 1]);
  }
});

test('other protocols, and what is no packet at all, are handed on', () => {
  const icmp = packetOf({ payload: payloadOf(100) });
  icmp[9] = 1;
  const odd = [icmp, icmp, ...[1, 2, 19, 20, 27, 28, 39, 40, 47, 48].map((bytes) => Buffer.from(payloadOf(bytes)))];
  for (const first of [0x45, 0x60, 0x46, 0x00, 0xff]) {
    const packets = odd.map((packet) => Buffer.concat([Buffer.from([first]), packet.subarray(1)]));
    assert.deepEqual(
      counts(packets),
      packets.map(() => 1),
    );
  }
  for (const kind of KINDS) {
    const whole = nth(0, kind);
    for (let length = 1; length < 70; length++) assert.deepEqual(counts([whole.subarray(0, length), whole]), [1, 1]);
  }
});

test('a TCP data offset that is none keeps a packet alone, whatever its checksum says', () => {
  for (const version of [4, 6] as const) {
    for (const words of [0, 4, 15]) {
      // As if what is before, or missing from, the payload were so.
      const payload = new Uint8Array(60);
      const packets = [0, 1].map((index) => {
        const sequence = 1_000_000 + index * (60 + 20 - words * 4);
        const packet = packetOf({ version, payload, sequence, id: index });
        packet[transportAt(fieldsOf({ version })) + 12] = words * 16;
        return repair(packet, { version });
      });
      assert.deepEqual(hex(joined(packets).runs.flat()), hex(packets));
      if (words < 5) assert.equal(joined(packets).written.length, 2);
    }
  }
});

/**
 * The second packet is written over the end of the first, which with so little payload is its header; each field of it that is
 * then compared with the first packet's is compared with its own. It is of another protocol and between other hosts, and every
 * sum comes out right.
 */
test('a packet is compared with the header of the run, not with what has been written over it', () => {
  const word = (value: number) => Buffer.from([value >> 8, value & 255]);
  /** In ones' complement. */
  const add = (...values: number[]) => values.reduce((sum, each) => (sum + each) % 0xffff, 0);
  const minus = (value: number) => 0xffff - (value % 0xffff);
  const start = 0x4500 + 36;
  const half = minus(start) % 2 === 0 ? minus(start) / 2 : (minus(start) + 0xffff) / 2;
  const [id, df] = [0x1234, 0x4000];

  // Identification, flags, life and protocol, checksum: what must also be its two addresses, and half of what is missing.
  const repeated = Buffer.concat([id, df, 0x4500, add(half, minus(add(id, df, 0x4500)))].map(word));
  const tail = [repeated.subarray(0, 4), word(16), word(0), payloadOf(8, 9)];
  const second = Buffer.concat([word(0x4500), word(36), repeated, repeated, ...tail]);
  const seen = { protocol: 'udp' } as const;
  const checksum = second.readUInt16BE(10);
  repair(second, seen);
  assert.equal(second.readUInt16BE(10), checksum, 'the header is right as it is');

  const number = minus(add(start, df, start, half));
  const first = packetOf({ protocol: 'udp', trafficClass: 0, fragment: df, id: number, payload: payloadOf(8) });
  const addresses = add(half, minus(start));
  first.set([...word(0), ...word(addresses), ...word(0), ...word(0)], 12);
  repair(first, seen);
  assert.deepEqual(
    hex(joined([first, second]).written),
    hex([first, second].map((each) => Buffer.concat([Buffer.alloc(10), each]))),
  );
});

test('IPv4 packets that may be fragmented are joined only when they are numbered one after the other', () => {
  const pair = (fragment: number, id: number) => {
    const first = packetOf({ version: 4, payload: payloadOf(SIZE), fragment, id: 0xffff });
    const { sequence } = fieldsOf({});
    return joined([first, packetOf({ version: 4, payload: payloadOf(SIZE), sequence: sequence + SIZE, fragment, id })]);
  };
  const runs = (fragment: number, id: number) => pair(fragment, id).runs.map((run) => run.length);
  assert.deepEqual(runs(0, 0), [2]);
  assert.deepEqual(runs(0, 1), [1, 1]);
  assert.deepEqual(runs(0x4000, 1), [2], 'may not be fragmented');
});

test('flows that are mixed keep their order and their bytes, whatever comes in between', () => {
  const flow = fc.record({
    version: fc.constantFrom(4 as const, 6 as const),
    protocol: fc.constantFrom('tcp' as const, 'tcp' as const, 'udp' as const),
    options: fc.constantFrom(new Uint8Array(0), TIMESTAMP),
  });
  const size = fc.oneof(
    fc.constantFrom(0, 1, 2, 100, 1399, 1400),
    fc.integer({ min: 0, max: 3000 }),
    fc.integer({ min: 20_000, max: 65_000 }),
  );
  const change = fc.oneof(
    { arbitrary: fc.constant({}), weight: 12 },
    { arbitrary: fc.constantFrom(...ANY, ...OF_IPV4, ...OF_IPV6, ...OF_TCP), weight: 1 },
    { arbitrary: fc.constantFrom({ sequence: 7 }, { flags: ACK | PSH }, { fragment: 0x2000 }), weight: 1 },
  );
  const step = fc.oneof(
    {
      arbitrary: fc.tuple(fc.constant('add' as const), fc.nat(2), fc.integer({ min: 1, max: 12 }), size, change),
      weight: 8,
    },
    { arbitrary: fc.tuple(fc.constant('damage' as const), fc.nat(2), fc.nat(5000), size, fc.constant({})), weight: 2 },
    { arbitrary: fc.tuple(fc.constant('discard' as const), fc.nat(2), fc.nat(5000), size, fc.constant({})), weight: 2 },
    { arbitrary: fc.tuple(fc.constant('flush' as const), fc.nat(2), fc.nat(5000), size, fc.constant({})), weight: 1 },
  );
  const flows = fc.array(flow, { minLength: 3, maxLength: 3 });
  fc.assert(
    fc.property(flows, fc.array(step, { minLength: 1, maxLength: 25 }), fc.boolean(), (chosen, steps, udp) => {
      const all = new Joined({ udp });
      const expected: Buffer[] = [];
      const next = [2 ** 32 - 5000, 1, 9_000_000];
      const ids = [0xfffa, 0, 77];
      const add = (which: number, bytes: number, different: Partial<PacketFields>, damageAt?: number) => {
        const headers = fieldsOf(chosen[which] ?? {}).version === 4 ? 60 : 80;
        const payload = payloadOf(Math.min(bytes, 65_535 - headers), expected.length);
        const sequence = next[which] ?? 0;
        const id = (ids[which] ?? 0) % 2 ** 16;
        // Flows of their own, since each numbers its packets: where none may be a fragment a run is numbered anew.
        const packet = packetOf({ ...chosen[which], sourcePort: which + 1, sequence, id, payload, ...different });
        if (damageAt !== undefined)
          packet[damageAt % packet.length] = (packet[damageAt % packet.length] as number) ^ 0x21;
        next[which] = (sequence + payload.length) % 2 ** 32;
        ids[which] = id + 1;
        expected.push(packet);
        all.add(packet, expected.length % 3 === 0 ? 0 : 32);
      };
      for (const [what, which, number, bytes, different] of steps) {
        if (what === 'add') for (let count = 0; count < number; count++) add(which, bytes, different);
        else if (what === 'damage') add(which, bytes, different, number);
        else if (what === 'discard') all.discard(bytes);
        else all.flush();
      }
      assert.deepEqual(hex(all.flush().runs.flat()), hex(expected));
    }),
    { numRuns: 150 },
  );
});

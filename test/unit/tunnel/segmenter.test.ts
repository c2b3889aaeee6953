/**
 * Cutting super-packets, compared with packets that lib/packets.ts makes one by one from the fields they must have. What the
 * kernel itself makes of the same super-packets is compared in test/lab/kernel-segments.test.ts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { sumBlocksIn, wasmMemory } from '../../../src/tunnel/checksum-simd.js';
import { Segmenter } from '../../../src/tunnel/segmenter.js';
import {
  ACK,
  CWR,
  ECE,
  FIN,
  type PacketFields,
  PSH,
  packetOf,
  payloadOf,
  type SuperPacket,
  segmentsOf,
  superPacketOf,
  URG,
  unfinishedPacketOf,
} from './lib/packets.js';

/** In front of the packet, as in the data path; further in front and behind there is nothing that may change. */
const GUARD_BYTES = 512;
const GUARD = 0x5a;
/** One for all: each would reserve gigabytes of addresses. */
const vectors = wasmMemory(65_536 + 2 * GUARD_BYTES + 16);
const sumBlocks = sumBlocksIn(vectors);

interface Cut {
  taken: boolean;
  packets: Buffer[];
}

/** `at`: where the packet is put, beyond the guard; any alignment. */
function cut({ header, packet }: SuperPacket, at = 0): Cut {
  const start = GUARD_BYTES + at;
  const memory = new Uint8Array(vectors.buffer).fill(GUARD, 0, start + packet.length + GUARD_BYTES);
  const headerAt = start - header.length;
  memory.set(header, headerAt);
  memory.set(packet, start);
  const segmenter = new Segmenter(memory, sumBlocks);
  const taken = segmenter.begin(headerAt, start, packet.length);
  const packets: Buffer[] = [];
  while (taken && segmenter.next()) {
    assert.ok(segmenter.at >= start && segmenter.at + segmenter.length <= start + packet.length, 'inside the packet');
    packets.push(Buffer.from(memory.slice(segmenter.at, segmenter.at + segmenter.length)));
    assert.ok(packets.length <= packet.length + 1, 'it ends');
  }
  assert.ok(
    memory.subarray(0, headerAt).every((byte) => byte === GUARD),
    'nothing in front changes',
  );
  assert.ok(
    memory.subarray(start + packet.length, start + packet.length + GUARD_BYTES).every((byte) => byte === GUARD),
    'nothing behind changes',
  );
  return { taken, packets };
}

function assertCut(given: Partial<PacketFields>, segmentBytes: number, at = 0): void {
  const { taken, packets } = cut(superPacketOf(given, segmentBytes), at);
  assert.equal(taken, true);
  const expected = segmentsOf(given, segmentBytes);
  assert.equal(packets.length, expected.length);
  for (const [index, packet] of packets.entries()) {
    assert.equal(packet.toString('hex'), expected[index]?.toString('hex'), `packet ${index} of ${packets.length}`);
  }
}

const TIMESTAMP = Uint8Array.from([1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8]);
const ALL_OPTIONS = payloadOf(40, 3);

/** What Linux 6.18 forwards when these are written to a TUN: see test/lab/kernel-segments.test.ts. IP header, transport, payload. */
const GOLDEN = {
  'TCP with FIN, PSH, CWR and time stamps over IPv4; the identification and the sequence begin again': {
    super: `01013400030014001000
            4502003cffff40003f0627a60a0900010a090002
            0fa01388fffffffd0000004d809901f514430000 0101080a0000000900000008 6162636465666768`,
    packets: `45020037ffff40003f0627ab0a0900010a090002
              0fa01388fffffffd0000004d809001f5784a0000 0101080a0000000900000008 616263
              45020037000040003f0627ab0a0900010a090002
              0fa01388000000000000004d801001f572c50000 0101080a0000000900000008 646566
              45020036000140003f0627ab0a0900010a090002
              0fa01388000000030000004d801901f5d5b70000 0101080a0000000900000008 6768`,
  },
  'TCP with PSH over IPv6': {
    super: `01043c00040028001000
            600abcde001c063ffd090000000000000000000000000001fd090000000000000000000000000002
            0fa01388fffffffd0000004d501801f5fa380000 6162636465666768`,
    packets: `600abcde0018063ffd090000000000000000000000000001fd090000000000000000000000000002
              0fa01388fffffffd0000004d501001f5cb8b0000 61626364
              600abcde0018063ffd090000000000000000000000000001fd090000000000000000000000000002
              0fa01388000000010000004d501801f5c3780000 65666768`,
  },
  'UDP over IPv4': {
    super: `01051c00050014000600
            45000024123440003f1115810a0900010a090002 0fa0138800101436 6162636465666768`,
    packets: `45000021123440003f1115840a0900010a090002 0fa01388000d9ed0 6162636465
              4500001f123540003f1115850a0900010a090002 0fa01388000bfa33 666768`,
  },
};

for (const [what, golden] of Object.entries(GOLDEN)) {
  test(`golden: ${what}`, () => {
    const bytes = Buffer.from(golden.super.replace(/\s/g, ''), 'hex');
    const { packets } = cut({ header: bytes.subarray(0, 10), packet: bytes.subarray(10) });
    assert.equal(Buffer.concat(packets).toString('hex'), golden.packets.replace(/\s/g, ''));
  });
}

for (const version of [4, 6] as const) {
  const tcp = (fields: Partial<PacketFields>): Partial<PacketFields> => ({ version, ...fields });
  const udp = (fields: Partial<PacketFields>): Partial<PacketFields> => ({ version, protocol: 'udp', ...fields });

  test(`TCP over IPv${version}: flags, options, a payload that the segments divide and one that they do not`, () => {
    for (const flags of [
      ACK,
      ACK | PSH,
      ACK | FIN,
      ACK | FIN | PSH,
      ACK | CWR,
      ACK | CWR | ECE | PSH,
      ACK | URG | PSH,
    ]) {
      for (const options of [new Uint8Array(0), TIMESTAMP, ALL_OPTIONS]) {
        for (const bytes of [1, 2, 1399, 1400, 1401, 2800, 5001]) {
          assertCut(tcp({ flags, options, payload: payloadOf(bytes), reserved: 1, urgent: 5 }), 1400);
        }
      }
    }
  });

  test(`TCP over IPv${version}: 64 KiB, and the sequence number goes on behind 2^32`, () => {
    const headers = version === 4 ? 40 : 60;
    const payload = payloadOf(65_535 - headers);
    assertCut(tcp({ payload, sequence: 0xffffff00 }), 1368);
    assertCut(tcp({ payload, sequence: 0xffffffff }), 88);
  });

  test(`TCP over IPv${version}: segments of odd and of tiny size, wherever the packet is`, () => {
    for (const segmentBytes of [1, 2, 3, 5, 7, 13, 99, 537, 1399]) {
      for (let at = 0; at < 8; at++) assertCut(tcp({ payload: payloadOf(3000), flags: ACK | PSH }), segmentBytes, at);
    }
  });

  test(`UDP over IPv${version}: datagrams of a size, the last shorter`, () => {
    for (const segmentBytes of [1, 2, 9, 1199, 1200]) {
      for (const bytes of [1, 1200, 1201, 3000]) {
        assertCut(udp({ payload: payloadOf(bytes) }), segmentBytes);
      }
    }
  });

  test(`UDP over IPv${version}: a checksum that comes out as zero is sent as ones`, () => {
    const at = version === 4 ? 26 : 46;
    const zeros = Buffer.concat([payloadOf(100), Buffer.alloc(2)]);
    // What is missing to a whole sum is put into the payload.
    const missing = packetOf(udp({ payload: zeros })).subarray(at, at + 2);
    const payload = Buffer.concat([payloadOf(100), missing]);
    const fields = udp({ payload: Buffer.concat([payload, payload]) });
    const { packets } = cut(superPacketOf(fields, 102));
    assert.deepEqual(
      packets.map((each) => each.readUInt16BE(at)),
      [0xffff, 0xffff],
    );
    assertCut(fields, 102);
  });

  test(`A packet over IPv${version} with an unfinished checksum and nothing to cut gets its checksum`, () => {
    for (const protocol of ['tcp', 'udp'] as const) {
      for (let bytes = 0; bytes < 70; bytes++) {
        for (let at = 0; at < 4; at++) {
          const fields = { version, protocol, payload: payloadOf(bytes) };
          const { taken, packets } = cut(unfinishedPacketOf(fields), at);
          assert.equal(taken, true);
          assert.deepEqual(packets, [packetOf(fields)]);
        }
      }
    }
  });
}

test("IPv4's identification counts up, and begins again behind 65535", () => {
  for (const id of [0, 0xfffe, 0xffff]) assertCut({ id, payload: payloadOf(5000) }, 700);
});

test('IPv4 options and IPv6 extension headers are repeated in every packet', () => {
  for (const bytes of [4, 8, 40]) assertCut({ ipOptions: payloadOf(bytes, 5), payload: payloadOf(900) }, 400);
  for (const hopByHopBytes of [8, 64]) assertCut({ version: 6, hopByHopBytes, payload: payloadOf(900) }, 400);
  const ipOptions = payloadOf(40, 5);
  assertCut({ protocol: 'udp', ipOptions, payload: payloadOf(900) }, 400);
});

test('any super-packet comes out as the packets that it stands for', () => {
  const options = fc.integer({ min: 0, max: 10 }).map((words) => payloadOf(words * 4, words));
  const fields = fc.record({
    version: fc.constantFrom(4 as const, 6 as const),
    protocol: fc.constantFrom('tcp' as const, 'udp' as const),
    payload: fc.tuple(fc.integer({ min: 1, max: 9000 }), fc.nat(1000)).map(([bytes, seed]) => payloadOf(bytes, seed)),
    trafficClass: fc.nat(255),
    ttl: fc.nat(255),
    id: fc.nat(0xffff),
    fragment: fc.constantFrom(0, 0x4000),
    flowLabel: fc.nat(0xfffff),
    sequence: fc.nat(0xffffffff),
    acknowledgement: fc.nat(0xffffffff),
    reserved: fc.nat(15),
    flags: fc.nat(255),
    window: fc.nat(0xffff),
    urgent: fc.nat(0xffff),
    options,
  });
  fc.assert(
    fc.property(fields, fc.integer({ min: 1, max: 2000 }), fc.nat(7), (given, segmentBytes, at) => {
      assertCut(given, segmentBytes, at);
    }),
  );
});

test('a super-packet that says it has CWR is cut like any other', () => {
  const given = { flags: ACK | CWR, payload: payloadOf(900) };
  const { header, packet } = superPacketOf(given, 400);
  header[1] = (header[1] as number) | 0x80;
  assert.deepEqual(cut({ header, packet }).packets, segmentsOf(given, 400));
});

test('a checksum left to do that comes out as zero is sent as ones', () => {
  for (const version of [4, 6] as const) {
    const at = version === 4 ? 26 : 46;
    const given = { version, protocol: 'udp' } as const;
    const missing = packetOf({ ...given, payload: Buffer.alloc(2) }).subarray(at, at + 2);
    const { packets } = cut(unfinishedPacketOf({ ...given, payload: missing }));
    assert.equal(packets[0]?.readUInt16BE(at), 0xffff);
  }
});

test('a packet whose header says nothing is handed on as it is', () => {
  const packet = Buffer.from(payloadOf(99));
  for (const flags of [0, 2]) {
    const header = Buffer.from([flags, 0, 99, 99, 99, 99, 99, 99, 99, 99]);
    assert.deepEqual(cut({ header, packet }), { taken: true, packets: [packet] });
  }
});

test('one segmenter is used for one packet after the other, of every kind', () => {
  const memory = new Uint8Array(20_000);
  const segmenter = new Segmenter(memory);
  const take = ({ header, packet }: SuperPacket) => {
    memory.set(header, 502);
    memory.set(packet, 512);
    assert.equal(segmenter.begin(502, 512, packet.length), true);
    const packets: Buffer[] = [];
    while (segmenter.next()) packets.push(Buffer.from(memory.slice(segmenter.at, segmenter.at + segmenter.length)));
    assert.equal(segmenter.next(), false, 'the end stays the end');
    return packets;
  };
  for (let round = 0; round < 3; round++) {
    for (const version of [4, 6] as const) {
      for (const protocol of ['tcp', 'udp'] as const) {
        const fields = { version, protocol, payload: payloadOf(3000), options: TIMESTAMP };
        assert.deepEqual(take(superPacketOf(fields, 1000)), segmentsOf(fields, 1000));
        assert.deepEqual(take(unfinishedPacketOf(fields)), [packetOf(fields)]);
      }
    }
  }
});

/** Who takes what no kernel sends must not be led outside of the packet by it. */
test('headers with any content lead nowhere outside of the packet, and the end comes', () => {
  const u16 = fc.oneof(fc.nat(0xffff), fc.nat(120), fc.constantFrom(0, 1, 20, 40, 0xfffe, 0xffff));
  const header = fc
    .tuple(fc.nat(255), fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 4, 5, 0x81)), u16, u16, u16, u16)
    .map(([flags, type, ...fields]) => {
      const bytes = Buffer.from([flags, type, 0, 0, 0, 0, 0, 0, 0, 0]);
      for (const [index, field] of fields.entries()) bytes.writeUInt16LE(field, 2 + 2 * index);
      return bytes;
    });
  const ordinary = fc
    .tuple(fc.constantFrom(4 as const, 6 as const), fc.constantFrom('tcp' as const, 'udp' as const), fc.nat(600))
    .map(([version, protocol, bytes]) => packetOf({ version, protocol, payload: payloadOf(bytes) }));
  const packet = fc.oneof(ordinary, fc.uint8Array({ minLength: 1, maxLength: 400 }).map(Buffer.from));
  fc.assert(
    fc.property(header, packet, fc.nat(3), (anyHeader, anyPacket, at) => {
      const { taken, packets } = cut({ header: anyHeader, packet: anyPacket }, at);
      if (!taken) return;
      const bytes = packets.reduce((sum, each) => sum + each.length, 0);
      assert.ok(packets.length >= 1 && bytes >= anyPacket.length, 'nothing is left out');
    }),
    { numRuns: 2000 },
  );
});

test('a super-packet that is cut short anywhere in its headers is refused', () => {
  for (const version of [4, 6] as const) {
    for (const protocol of ['tcp', 'udp'] as const) {
      const whole = superPacketOf({ version, protocol, payload: payloadOf(500), options: TIMESTAMP }, 100);
      const headers = whole.packet.length - 500;
      for (let length = 1; length < headers; length++) {
        const packet = whole.packet.subarray(0, length);
        assert.deepEqual(cut({ header: whole.header, packet }), { taken: false, packets: [] }, `${length} bytes`);
      }
    }
  }
});

test('what no virtio_net_hdr says is refused', () => {
  const right = superPacketOf({ payload: payloadOf(500) }, 100);
  const wrong: [string, (header: Buffer) => void][] = [
    ['segments of no bytes', (header) => header.writeUInt16LE(0, 4)],
    ['UDP fragmentation offload', (header) => header.writeUInt8(3, 1)],
    ['an unknown type', (header) => header.writeUInt8(6, 1)],
    ['a transport header inside of the IP header', (header) => header.writeUInt16LE(19, 6)],
    ['a transport header behind the packet', (header) => header.writeUInt16LE(right.packet.length, 6)],
    ['a transport header 64 KiB on', (header) => header.writeUInt16LE(0xffff, 6)],
    ['a transport header so far on that all headers are longer than any', (header) => header.writeUInt16LE(250, 6)],
  ];
  for (const [what, change] of wrong) {
    const header = Buffer.from(right.header);
    change(header);
    assert.deepEqual(cut({ header, packet: right.packet }), { taken: false, packets: [] }, what);
  }
  const short = Buffer.from(right.packet);
  short[32] = 0x40;
  assert.equal(cut({ header: right.header, packet: short }).taken, false, 'a TCP header of 16 bytes');
  for (const [start, offset] of [
    [right.packet.length - 1, 0],
    [0, right.packet.length - 1],
    [0xffff, 0xffff],
  ] as const) {
    const header = Buffer.alloc(10);
    header[0] = 1;
    header.writeUInt16LE(start, 6);
    header.writeUInt16LE(offset, 8);
    assert.equal(cut({ header, packet: right.packet }).taken, false, `a checksum at ${start} + ${offset}`);
  }
});

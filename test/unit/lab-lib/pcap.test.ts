/** The lab's pcap reader: frames written by hand after RFC 791, 8200, 768, 9293 and 826, one of each kind. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { diffState } from '../../lab/lib/canonical-state.js';
import { parsePcap } from '../../lab/lib/pcap.js';

const ETHERNET = 1;
const RAW = 101;
const MACS = '020000000001 020000000002';
const UDP4 = '45000020 00004000 40110000 c0000202 c6336402  cafe 0035 000c0000 68697868';
const TCP6 =
  '60000000 001c 06 40 20010db8000100000000000000000002 20010db800000000000f000000000010 0050 1f90 00000001 00000000 5018 ffff 0000 0000 6162636465666768';

function file(linkType: number, ...frames: string[]): Buffer {
  const header = Buffer.alloc(24);
  header.writeUInt32LE(0xa1b2c3d4, 0);
  header.writeUInt32LE(linkType, 20);
  const records = frames.map((text) => {
    const frame = Buffer.from(text.replaceAll(' ', ''), 'hex');
    const record = Buffer.alloc(16);
    record.writeUInt32LE(2, 0);
    record.writeUInt32LE(500_000, 4);
    record.writeUInt32LE(frame.length, 8);
    record.writeUInt32LE(frame.length, 12);
    return Buffer.concat([record, frame]);
  });
  return Buffer.concat([header, ...records]);
}

test('parsePcap() reads UDP over IPv4 in Ethernet, padding not counted', () => {
  const [packet] = parsePcap(file(ETHERNET, `${MACS} 0800 ${UDP4} 000000000000`));
  assert.ok(packet);
  const { payload, ...rest } = packet;
  assert.deepEqual(rest, {
    timeMs: 2500,
    station: '02:00:00:00:00:02',
    family: 1,
    protocol: 'udp',
    source: '192.0.2.2',
    destination: '198.51.100.2',
    sourcePort: 0xcafe,
    destinationPort: 53,
    hopLimit: 64,
    tcpFlags: undefined,
    icmpType: undefined,
    length: 32,
  });
  assert.equal(Buffer.from(payload).toString(), 'hixh');
});

test('parsePcap() reads TCP over IPv6 from a TUN, behind a hop-by-hop header too', () => {
  const hopByHop = TCP6.replace('001c 06', '0024 00').replace('0010 0050', '0010 06 00 000000000000 0050');
  for (const packet of parsePcap(file(RAW, TCP6, hopByHop))) {
    assert.equal(packet.protocol, 'tcp');
    assert.equal(packet.source, '2001:db8:1::2');
    assert.equal(packet.destination, '2001:db8::f:0:0:10');
    assert.equal(packet.sourcePort, 80);
    assert.equal(packet.destinationPort, 8080);
    assert.equal(packet.tcpFlags, 0x18);
    assert.equal(packet.hopLimit, 64);
    assert.equal(Buffer.from(packet.payload).toString(), 'abcdefgh');
  }
});

test('parsePcap() reads ARP and names what it does not know by number', () => {
  const arp = `ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 c0000202 000000000000 c0000201`;
  const [request, other] = parsePcap(file(ETHERNET, arp, `${MACS} 88b5 00`));
  assert.equal(request?.protocol, 'arp');
  assert.equal(request?.source, '192.0.2.2');
  assert.equal(request?.destination, '192.0.2.1');
  assert.equal(other?.protocol, String(0x88b5));
});

test('parsePcap() tells types of ICMPv6 behind a router alert option, and IGMP', () => {
  const mldReport =
    '60000000 0024 00 01 fe80000000000000000000000000000a ff020000000000000000000000000016 3a00050200000100 8f00 0000 0000 0001 0400 0000 ff0200000000000000000001ff00000a';
  const igmp = '46c00028 00004000 01020000 c0000202 e0000016 94040000 2200 0000 0000 0001 0400 0000 e00000fb';
  const [listener, membership] = parsePcap(file(RAW, mldReport, igmp));
  assert.deepEqual([listener?.protocol, listener?.icmpType, listener?.hopLimit], ['icmpv6', 143, 1]);
  assert.deepEqual([membership?.protocol, membership?.destination, membership?.hopLimit], ['igmp', '224.0.0.22', 1]);
});

test('parsePcap() gives a later fragment no ports and stops before a record cut short', () => {
  const fragment = UDP4.replace('00004000', '00000001');
  const bytes = file(RAW, fragment, UDP4);
  const packets = parsePcap(bytes.subarray(0, bytes.length - 1));
  assert.equal(packets.length, 1);
  assert.equal(packets[0]?.sourcePort, undefined);
  assert.throws(() => parsePcap(Buffer.alloc(24)), /no little-endian pcap/);
  assert.deepEqual(parsePcap(Buffer.alloc(0)), []);
});

test('diffState() prints what went and what came, repeated lines counted', () => {
  assert.deepEqual(diffState('a\nb\nb', 'b\nc'), ['- a', '- b', '+ c']);
  assert.deepEqual(diffState('a\nb', 'b\na'), ['~ the same lines in another order']);
  assert.deepEqual(diffState('a', 'a'), []);
});

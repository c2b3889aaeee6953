/** The attackers' frames, read by the lab's pcap reader. That a kernel accepts their checksums is tested in policy-lab.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  arpRequest,
  echoRequestFrame,
  neighbourSolicitation,
  routerAdvertisement,
  TCP_SYN,
  tcpFrame,
  udpFrame,
} from '../../lab/lib/attackers/frames.js';
import { discoveryTarget } from '../../lab/lib/leak-check.js';
import { parsePcap } from '../../lab/lib/pcap.js';

const MAC = '02:00:00:00:00:01';
const STATIONS = { from: MAC, to: '02:00:00:00:00:02' };

function parse(hex: string) {
  const frame = Buffer.from(hex, 'hex');
  const file = Buffer.alloc(40);
  file.writeUInt32LE(0xa1b2c3d4, 0);
  file.writeUInt32LE(1, 20);
  file.writeUInt32LE(frame.length, 32);
  file.writeUInt32LE(frame.length, 36);
  const [packet] = parsePcap(Buffer.concat([file, frame]));
  assert.ok(packet);
  assert.equal(packet.station, MAC);
  return packet;
}

for (const [source, destination] of [
  ['203.0.113.10', '10.9.0.2'],
  ['2001:db8:f::10', 'fd09::2'],
] as const) {
  test(`a frame to ${destination} has the source, ports, flags and length that were asked for`, () => {
    const flow = { source, destination, sourcePort: 7, destinationPort: 40000 };
    const udp = parse(udpFrame(STATIONS, flow, 'odd'));
    const { source: from, destination: to, sourcePort, destinationPort } = udp;
    assert.deepEqual({ source: from, destination: to, sourcePort, destinationPort }, flow);
    assert.equal(Buffer.from(udp.payload).toString(), 'odd');
    const tcp = parse(tcpFrame(STATIONS, flow, TCP_SYN));
    assert.deepEqual([tcp.tcpFlags, tcp.destinationPort, tcp.payload.length], [2, 40000, 0]);
    const ping = parse(echoRequestFrame(STATIONS, flow));
    assert.deepEqual([ping.icmpType, ping.destination], [source.includes(':') ? 128 : 8, destination]);
  });
}

test('ARP and neighbour discovery name their target and come from one hop away', () => {
  assert.equal(discoveryTarget(parse(arpRequest(MAC, '192.168.50.66', '10.9.0.2'))), '10.9.0.2');
  const group = parse(neighbourSolicitation(MAC, 'fd50::66', 'fd09::a:b:2'));
  assert.equal(discoveryTarget(group), 'fd09::a:b:2');
  assert.deepEqual([group.destination, group.hopLimit], ['ff02::1:ff0b:2', 255]);
  const advertisement = parse(routerAdvertisement(MAC, 'fe80::bad', '2001:db8:bad::'));
  assert.deepEqual([advertisement.icmpType, advertisement.hopLimit], [134, 255]);
});

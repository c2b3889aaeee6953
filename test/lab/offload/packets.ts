/** IP packets with a virtio_net_hdr before them, as a holder of a TUN writes them; in hexadecimal. */
import { VNET_HEADER_BYTES } from '../../../src/kernel/tun-offload.js';
import { addressBytes } from '../../../src/model/address.js';
import { type Flow, tcpFrame, udpFrame } from '../lib/attackers/frames.js';

export interface VnetHeader {
  flags?: number;
  type?: number;
  headerLength?: number;
  segmentBytes?: number;
  checksumStart?: number;
  checksumOffset?: number;
}

const STATIONS = { from: '02:00:00:00:00:01', to: '02:00:00:00:00:02' };
const ETHERNET_HEADER_BYTES = 14;
const UDP_HEADER_BYTES = 8;
const UDP_CHECKSUM_AT = 6;
const [IPPROTO_UDP, NEEDS_CSUM, GSO_UDP_L4] = [17, 1, 5];

export function vnetHeader(fields: VnetHeader = {}): Buffer {
  const { flags = 0, type = 0, headerLength = 0, segmentBytes = 0, checksumStart = 0, checksumOffset = 0 } = fields;
  const header = Buffer.alloc(VNET_HEADER_BYTES);
  header.set([flags, type]);
  [headerLength, segmentBytes, checksumStart, checksumOffset].forEach((field, index) => {
    header.writeUInt16LE(field, 2 + 2 * index);
  });
  return header;
}

/** Complete, with every checksum right. */
export function udpPacket(flow: Flow, payload: string): Buffer {
  return Buffer.from(udpFrame(STATIONS, flow, payload), 'hex').subarray(ETHERNET_HEADER_BYTES);
}

export function tcpPacket(flow: Flow, flags: number, payload: string): Buffer {
  return Buffer.from(tcpFrame(STATIONS, flow, flags, payload), 'hex').subarray(ETHERNET_HEADER_BYTES);
}

export function ipHeaderBytes({ source }: Flow): number {
  return source.includes(':') ? 40 : 20;
}

/** What goes before a UDP packet that stands for many of `segmentBytes` each. */
export function udpSuperHeader(flow: Flow, segmentBytes: number): VnetHeader {
  const checksumStart = ipHeaderBytes(flow);
  return {
    flags: NEEDS_CSUM,
    type: GSO_UDP_L4,
    headerLength: checksumStart + UDP_HEADER_BYTES,
    segmentBytes,
    checksumStart,
    checksumOffset: UDP_CHECKSUM_AT,
  };
}

/** As udpPacket, but with the sum of the pseudo-header in place of the checksum: the rest is the kernel's. */
export function unfinishedUdpPacket(flow: Flow, payload: string): Buffer {
  const packet = Buffer.from(udpPacket(flow, payload));
  const at = ipHeaderBytes(flow);
  const pseudo = Buffer.alloc(4);
  pseudo.writeUInt16BE(IPPROTO_UDP, 0);
  pseudo.writeUInt16BE(packet.length - at, 2);
  const covered = Buffer.concat([addressBytes(flow.source), addressBytes(flow.destination), pseudo]);
  let sum = 0;
  for (let index = 0; index < covered.length; index += 2) sum += covered.readUInt16BE(index);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  packet.writeUInt16BE(sum, at + UDP_CHECKSUM_AT);
  return packet;
}

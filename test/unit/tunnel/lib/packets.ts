/**
 * IP packets with TCP or UDP, made and cut by the definition (RFC 791, 8200, 9293, 768, 1071): slow, obvious, and sharing nothing
 * with what is tested against it. Every checksum is right unless a test changes it afterwards.
 */
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
  VNET_HEADER_BYTES,
} from '../../../../src/kernel/tun-offload.js';

export const FIN = 0x01;
export const SYN = 0x02;
export const RST = 0x04;
export const PSH = 0x08;
export const ACK = 0x10;
export const URG = 0x20;
export const ECE = 0x40;
export const CWR = 0x80;

export interface PacketFields {
  version: 4 | 6;
  protocol: 'tcp' | 'udp';
  payload: Uint8Array;
  /** Type of service or traffic class. */
  trafficClass: number;
  ttl: number;
  /** Last byte of the address. */
  source: number;
  destination: number;
  sourcePort: number;
  destinationPort: number;
  /** IPv4 only. */
  id: number;
  /** The 16 bits of flags and fragment offset. IPv4 only. */
  fragment: number;
  /** IPv4 only; a multiple of 4. */
  ipOptions: Uint8Array;
  /** IPv6 only. */
  flowLabel: number;
  /** IPv6 only: bytes of hop-by-hop options, a multiple of 8; none: no such header. */
  hopByHopBytes: number;
  /** TCP only, down to options, a multiple of 4. */
  sequence: number;
  acknowledgement: number;
  /** The four bits behind the data offset. */
  reserved: number;
  flags: number;
  window: number;
  urgent: number;
  options: Uint8Array;
}

const ORDINARY: PacketFields = {
  version: 4,
  protocol: 'tcp',
  payload: new Uint8Array(0),
  trafficClass: 0,
  ttl: 64,
  source: 1,
  destination: 2,
  sourcePort: 4000,
  destinationPort: 5000,
  id: 0x1234,
  fragment: 0x4000,
  ipOptions: new Uint8Array(0),
  flowLabel: 0xabcde,
  hopByHopBytes: 0,
  sequence: 1_000_000,
  acknowledgement: 77,
  reserved: 0,
  flags: ACK,
  window: 501,
  urgent: 0,
  options: new Uint8Array(0),
};

export function fieldsOf(given: Partial<PacketFields>): PacketFields {
  return { ...ORDINARY, ...given };
}

/** RFC 1071, byte by byte. */
export function internetChecksum(bytes: Uint8Array): number {
  let sum = 0;
  bytes.forEach((byte, index) => {
    sum += index % 2 === 0 ? byte * 256 : byte;
  });
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  return 0xffff - sum;
}

/** The whole packet, with every checksum right. */
export function packetOf(given: Partial<PacketFields>): Buffer {
  const fields = fieldsOf(given);
  const body = transportOf(fields);
  const at = checksumAt(fields);
  const checksum = internetChecksum(Buffer.concat([pseudoHeader(fields, body.length), body]));
  // RFC 768: a computed zero is sent as ones.
  body.writeUInt16BE(fields.protocol === 'udp' && checksum === 0 ? 0xffff : checksum, at);
  return Buffer.concat([networkOf(fields, body.length), body]);
}

export interface SuperPacket {
  header: Buffer;
  packet: Buffer;
}

/** As the kernel gives it: in place of the transport checksum the sum of the pseudo-header, not inverted. */
export function superPacketOf(given: Partial<PacketFields>, segmentBytes: number): SuperPacket {
  const fields = fieldsOf(given);
  const type = {
    tcp: fields.version === 4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6,
    udp: VIRTIO_NET_HDR_GSO_UDP_L4,
  };
  const { header, packet } = unfinishedPacketOf(fields);
  header[1] = type[fields.protocol];
  header.writeUInt16LE(packet.length - fields.payload.length, 2);
  header.writeUInt16LE(segmentBytes, 4);
  return { header, packet };
}

/** One packet whose checksum is left to do. */
export function unfinishedPacketOf(given: Partial<PacketFields>): SuperPacket {
  const fields = fieldsOf(given);
  const body = transportOf(fields);
  const network = networkOf(fields, body.length);
  body.writeUInt16BE(0xffff - internetChecksum(pseudoHeader(fields, body.length)), checksumAt(fields));
  const header = Buffer.alloc(VNET_HEADER_BYTES);
  header[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  header.writeUInt16LE(network.length, 6);
  header.writeUInt16LE(checksumAt(fields), 8);
  return { header, packet: Buffer.concat([network, body]) };
}

/** What a super-packet stands for: each packet made anew from the fields that it must have. */
export function segmentsOf(given: Partial<PacketFields>, segmentBytes: number): Buffer[] {
  const fields = fieldsOf(given);
  const count = Math.max(1, Math.ceil(fields.payload.length / segmentBytes));
  return Array.from({ length: count }, (_, index) => {
    const start = index * segmentBytes;
    const isLast = index === count - 1;
    const kept = 0xff & ~(isLast ? 0 : FIN | PSH) & ~(index === 0 ? 0 : CWR);
    return packetOf({
      ...fields,
      payload: fields.payload.subarray(start, start + segmentBytes),
      id: (fields.id + index) % 0x1_0000,
      sequence: (fields.sequence + start) % 0x1_0000_0000,
      flags: fields.flags & kept,
    });
  });
}

/** The fields of a packet with TCP or UDP and no IP options or extension headers. */
export function parsePacket(packet: Buffer): PacketFields {
  const version = packet.readUInt8(0) >> 4 === 4 ? 4 : 6;
  const protocol = packet.readUInt8(version === 4 ? 9 : 6) === 6 ? 'tcp' : 'udp';
  const at = version === 4 ? 20 : 40;
  const network =
    version === 4
      ? {
          trafficClass: packet.readUInt8(1),
          ttl: packet.readUInt8(8),
          id: packet.readUInt16BE(4),
          fragment: packet.readUInt16BE(6),
          source: packet.readUInt8(15),
          destination: packet.readUInt8(19),
        }
      : {
          trafficClass: (packet.readUInt16BE(0) >> 4) & 0xff,
          flowLabel: packet.readUInt32BE(0) & 0xfffff,
          ttl: packet.readUInt8(7),
          source: packet.readUInt8(23),
          destination: packet.readUInt8(39),
        };
  const ports = { sourcePort: packet.readUInt16BE(at), destinationPort: packet.readUInt16BE(at + 2) };
  if (protocol === 'udp')
    return fieldsOf({ version, protocol, ...network, ...ports, payload: packet.subarray(at + 8) });
  const end = at + (packet.readUInt8(at + 12) >> 4) * 4;
  return fieldsOf({
    version,
    protocol,
    ...network,
    ...ports,
    sequence: packet.readUInt32BE(at + 4),
    acknowledgement: packet.readUInt32BE(at + 8),
    reserved: packet.readUInt8(at + 12) & 15,
    flags: packet.readUInt8(at + 13),
    window: packet.readUInt16BE(at + 14),
    urgent: packet.readUInt16BE(at + 18),
    options: packet.subarray(at + 20, end),
    payload: packet.subarray(end),
  });
}

/** Makes the checksums right again of a packet that was made from such fields and then changed; as many bytes as there are count. */
export function repair(packet: Buffer, given: Partial<PacketFields>): Buffer {
  const fields = fieldsOf(given);
  const start = transportAt(fields);
  if (fields.version === 4) {
    packet.writeUInt16BE(0, 10);
    packet.writeUInt16BE(internetChecksum(packet.subarray(0, start)), 10);
  }
  const at = start + checksumAt(fields);
  packet.writeUInt16BE(0, at);
  const body = packet.subarray(start);
  packet.writeUInt16BE(internetChecksum(Buffer.concat([pseudoHeader(fields, body.length, packet), body])), at);
  return packet;
}

/** Where the transport header begins. */
export function transportAt(fields: Pick<PacketFields, 'version' | 'ipOptions' | 'hopByHopBytes'>): number {
  return fields.version === 4 ? 20 + fields.ipOptions.length : 40 + fields.hopByHopBytes;
}

/** Bytes that differ from their neighbours, and in each packet of a test from those of the others. */
export function payloadOf(bytes: number, seed = 1): Uint8Array {
  let state = (seed * 2_654_435_761) >>> 0;
  return Uint8Array.from({ length: bytes }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 24;
  });
}

function checksumAt({ protocol }: PacketFields): number {
  return protocol === 'tcp' ? 16 : 6;
}

function addresses({ version, source, destination }: PacketFields): [Buffer, Buffer] {
  const address = (last: number) =>
    Buffer.from(version === 4 ? [10, 9, 0, last] : [0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
  return [address(source), address(destination)];
}

/** `packet`: where the addresses are, if not those of the fields. */
function pseudoHeader(fields: PacketFields, bytes: number, packet?: Buffer): Buffer {
  const tail = Buffer.alloc(8);
  tail.writeUInt32BE(bytes, 0);
  tail.writeUInt32BE(fields.protocol === 'tcp' ? 6 : 17, 4);
  const [start, end] = fields.version === 4 ? [12, 20] : [8, 40];
  return Buffer.concat([...(packet ? [packet.subarray(start, end)] : addresses(fields)), tail]);
}

function networkOf(fields: PacketFields, bodyBytes: number): Buffer {
  const protocol = fields.protocol === 'tcp' ? 6 : 17;
  if (fields.version === 6) {
    const head = Buffer.alloc(8);
    head.writeUInt32BE((6 * 2 ** 28 + fields.trafficClass * 2 ** 20 + fields.flowLabel) >>> 0, 0);
    head.writeUInt16BE(fields.hopByHopBytes + bodyBytes, 4);
    head.set([fields.hopByHopBytes > 0 ? 0 : protocol, fields.ttl], 6);
    const hopByHop = Buffer.alloc(fields.hopByHopBytes);
    if (hopByHop.length > 0) hopByHop.set([protocol, hopByHop.length / 8 - 1, 1, hopByHop.length - 4]);
    return Buffer.concat([head, ...addresses(fields), hopByHop]);
  }
  const head = Buffer.alloc(12);
  const headerBytes = 20 + fields.ipOptions.length;
  head.set([0x40 + headerBytes / 4, fields.trafficClass]);
  head.writeUInt16BE(headerBytes + bodyBytes, 2);
  head.writeUInt16BE(fields.id, 4);
  head.writeUInt16BE(fields.fragment, 6);
  head.set([fields.ttl, protocol], 8);
  const network = Buffer.concat([head, ...addresses(fields), fields.ipOptions]);
  network.writeUInt16BE(internetChecksum(network), 10);
  return network;
}

function transportOf(fields: PacketFields): Buffer {
  const { protocol, payload, options } = fields;
  const head = Buffer.alloc(protocol === 'tcp' ? 20 : 8);
  head.writeUInt16BE(fields.sourcePort, 0);
  head.writeUInt16BE(fields.destinationPort, 2);
  if (protocol === 'udp') {
    head.writeUInt16BE(8 + payload.length, 4);
    return Buffer.concat([head, payload]);
  }
  head.writeUInt32BE(fields.sequence, 4);
  head.writeUInt32BE(fields.acknowledgement, 8);
  head.set([((20 + options.length) / 4) * 16 + fields.reserved, fields.flags], 12);
  head.writeUInt16BE(fields.window, 14);
  head.writeUInt16BE(fields.urgent, 18);
  return Buffer.concat([head, options, payload]);
}

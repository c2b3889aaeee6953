/**
 * Reads the classic pcap format (draft-ietf-opsawg-pcap) as tcpdump writes it, down to transport ports. Link types:
 * Ethernet, raw IP (TUN), and the two cooked forms of `-i any`. Does not reassemble fragments and verifies no checksum.
 */
import type { Family } from '../../../src/model/vpn-types.js';

export interface CapturedPacket {
  timeMs: number;
  /** Undefined for what is not IP. */
  family: Family | undefined;
  /** 'tcp', 'udp', 'icmp', 'icmpv6', 'igmp', 'arp', otherwise the protocol's or EtherType's number in decimal. */
  protocol: string;
  /** Addresses as Node writes them; for ARP sender and target. */
  source: string;
  destination: string;
  sourcePort: number | undefined;
  destinationPort: number | undefined;
  /** Who put the frame on the wire, as in `ip link`; undefined for links other than Ethernet. */
  station: string | undefined;
  /** TTL of IPv4. */
  hopLimit: number | undefined;
  /** Byte 13 of a TCP header (RFC 9293). */
  tcpFlags: number | undefined;
  /** Of 'icmp' and 'icmpv6'. */
  icmpType: number | undefined;
  /** Of the network-layer packet, in bytes, also when the capture has only its beginning. */
  length: number;
  /** What follows the transport header of TCP and UDP; for others what follows the IP header. As far as captured. */
  payload: Uint8Array;
}

const LINKTYPE_ETHERNET = 1;
const LINKTYPE_RAW = 101;
const LINKTYPE_LINUX_SLL = 113;
const LINKTYPE_LINUX_SLL2 = 276;
const GLOBAL_HEADER_BYTES = 24;
const RECORD_HEADER_BYTES = 16;
const IPV6_EXTENSIONS = new Set([0, 43, 60]);
const PROTOCOLS: Record<number, string> = { 1: 'icmp', 2: 'igmp', 6: 'tcp', 17: 'udp', 58: 'icmpv6' };

export function parsePcap(bytes: Uint8Array): CapturedPacket[] {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (file.length < GLOBAL_HEADER_BYTES) return [];
  const magic = file.readUInt32LE(0);
  if (magic !== 0xa1b2c3d4 && magic !== 0xa1b23c4d)
    throw new Error(`no little-endian pcap file: 0x${magic.toString(16)}`);
  const unitsPerMs = magic === 0xa1b23c4d ? 1e6 : 1e3;
  const linkType = file.readUInt32LE(20) & 0xffff;
  const packets: CapturedPacket[] = [];
  for (let offset = GLOBAL_HEADER_BYTES; offset + RECORD_HEADER_BYTES <= file.length; ) {
    const timeMs = file.readUInt32LE(offset) * 1000 + file.readUInt32LE(offset + 4) / unitsPerMs;
    const captured = file.readUInt32LE(offset + 8);
    const start = offset + RECORD_HEADER_BYTES;
    if (start + captured > file.length) break;
    packets.push({ timeMs, ...parseFrame(linkType, file.subarray(start, start + captured)) });
    offset = start + captured;
  }
  return packets;
}

type Parsed = Omit<CapturedPacket, 'timeMs'>;
type Network = Omit<Parsed, 'station'>;

/** One IP packet, as a TUN gives it. */
export function parsePacket(packet: Uint8Array): Parsed {
  return parseFrame(LINKTYPE_RAW, Buffer.from(packet.buffer, packet.byteOffset, packet.byteLength));
}

function parseFrame(linkType: number, frame: Buffer): Parsed {
  const isEthernet = linkType === LINKTYPE_ETHERNET;
  const station = isEthernet ? [...frame.subarray(6, 12)].map(hexByte).join(':') : undefined;
  return { station, ...parseLink(linkType, frame) };
}

function hexByte(byte: number): string {
  return byte.toString(16).padStart(2, '0');
}

function parseLink(linkType: number, frame: Buffer): Network {
  switch (linkType) {
    case LINKTYPE_ETHERNET:
      return parseNetwork(frame.readUInt16BE(12), frame.subarray(14));
    case LINKTYPE_LINUX_SLL:
      return parseNetwork(frame.readUInt16BE(14), frame.subarray(16));
    case LINKTYPE_LINUX_SLL2:
      return parseNetwork(frame.readUInt16BE(0), frame.subarray(20));
    case LINKTYPE_RAW:
      return (frame[0] ?? 0) >> 4 === 6 ? parseIpv6(frame) : parseIpv4(frame);
    default:
      throw new Error(`pcap link type ${linkType} is not known here`);
  }
}

function parseNetwork(etherType: number, packet: Buffer): Network {
  if (etherType === 0x0800) return parseIpv4(packet);
  if (etherType === 0x86dd) return parseIpv6(packet);
  const other = {
    family: undefined,
    sourcePort: undefined,
    destinationPort: undefined,
    hopLimit: undefined,
    tcpFlags: undefined,
    icmpType: undefined,
    length: packet.length,
    payload: packet,
  };
  if (etherType !== 0x0806) return { ...other, protocol: String(etherType), source: '', destination: '' };
  return { ...other, protocol: 'arp', source: ipv4(packet, 14), destination: ipv4(packet, 24) };
}

function parseIpv4(packet: Buffer): Network {
  const length = packet.readUInt16BE(2) || packet.length;
  const header = ((packet[0] ?? 0) & 15) * 4;
  const isFirstFragment = (packet.readUInt16BE(6) & 0x1fff) === 0;
  return {
    family: 1,
    source: ipv4(packet, 12),
    destination: ipv4(packet, 16),
    hopLimit: packet[8],
    length,
    ...parseTransport(packet[9] ?? 0, packet.subarray(header, length), isFirstFragment),
  };
}

function parseIpv6(packet: Buffer): Network {
  const length = 40 + packet.readUInt16BE(4);
  let next = packet[6] ?? 0;
  let offset = 40;
  while (IPV6_EXTENSIONS.has(next) && offset + 8 <= packet.length) {
    next = packet[offset] ?? 0;
    offset += 8 + (packet[offset + 1] ?? 0) * 8;
  }
  return {
    family: 2,
    source: ipv6(packet, 8),
    destination: ipv6(packet, 24),
    hopLimit: packet[7],
    length,
    ...parseTransport(next, packet.subarray(offset, length), true),
  };
}

function parseTransport(number: number, segment: Buffer, hasHeader: boolean) {
  const protocol = PROTOCOLS[number] ?? String(number);
  const isIcmp = protocol === 'icmp' || protocol === 'icmpv6';
  const none = { sourcePort: undefined, destinationPort: undefined, tcpFlags: undefined };
  const icmpType = isIcmp && hasHeader ? segment[0] : undefined;
  const headerBytes = protocol === 'udp' ? 8 : protocol === 'tcp' ? ((segment[12] ?? 0) >> 4) * 4 : 0;
  if (headerBytes === 0 || !hasHeader || segment.length < headerBytes) {
    return { protocol, ...none, icmpType, payload: segment };
  }
  return {
    protocol,
    sourcePort: segment.readUInt16BE(0),
    destinationPort: segment.readUInt16BE(2),
    tcpFlags: protocol === 'tcp' ? segment[13] : undefined,
    icmpType,
    payload: segment.subarray(headerBytes),
  };
}

function ipv4(packet: Buffer, offset: number): string {
  return packet.subarray(offset, offset + 4).join('.');
}

/** RFC 5952: lower case, the longest run of at least two zero groups shortened. */
export function ipv6(packet: Buffer, offset: number): string {
  const groups = Array.from({ length: 8 }, (_, index) => packet.readUInt16BE(offset + index * 2).toString(16));
  const text = groups.join(':');
  const runs = [...text.matchAll(/(?<![0-9a-f])0(?::0(?![0-9a-f]))+/g)].map((match) => match[0]);
  const longest = runs.reduce((best, run) => (run.length > best.length ? run : best), '');
  if (longest === '') return text;
  const at = text.search(new RegExp(`(?<![0-9a-f])${longest}(?![0-9a-f])`));
  return `${text.slice(0, at).replace(/:$/, '')}::${text.slice(at + longest.length).replace(/^:/, '')}`;
}

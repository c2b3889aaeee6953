/**
 * Ethernet frames that no honest host sends, in hexadecimal for the prober's `sendFrame`: ARP (RFC 826), neighbour discovery
 * (RFC 4861), and IP packets with any source and destination (RFC 791, 8200, 768, 9293), whole or in two fragments. No options.
 */
import { addressBytes } from '../../../../src/model/address.js';

/** Who sends and which station is to take it. */
export interface Stations {
  from: string;
  to: string;
}

export const BROADCAST = 'ff:ff:ff:ff:ff:ff';
const [ETHERTYPE_IPV4, ETHERTYPE_ARP, ETHERTYPE_IPV6] = [0x0800, 0x0806, 0x86dd];
const [IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMPV6] = [1, 6, 17, 58];
const IPPROTO_FRAGMENT = 44;
const ETHERNET_BYTES = 14;
const ALL_NODES = 'ff02::1';

/** "Who has `target`? Tell `source`." */
export function arpRequest(from: string, source: string, target: string): string {
  const head = [Buffer.from('0001080006040001', 'hex'), mac(from), addressBytes(source)];
  return ethernet({ from, to: BROADCAST }, ETHERTYPE_ARP, [...head, Buffer.alloc(6), addressBytes(target)]);
}

/** To the solicited-node group of the target, or to one station. */
export function neighbourSolicitation(from: string, source: string, target: string, to?: string): string {
  const group = Buffer.from(addressBytes(target)).subarray(13);
  const destination = `ff02::1:ff${group.toString('hex').replace(/^(..)/, '$1:')}`;
  const station = to ?? `33:33:ff:${[...group].map(hex).join(':')}`;
  const sourceLinkLayerAddress = Buffer.concat([Buffer.from([1, 1]), mac(from)]);
  const body = [Buffer.from([135, 0, 0, 0, 0, 0, 0, 0]), addressBytes(target), sourceLinkLayerAddress];
  return ip({ from, to: station }, { source, destination, hopLimit: 255 }, IPPROTO_ICMPV6, Buffer.concat(body));
}

/** A router that gives a prefix (on-link, autonomous) to everybody on the link. `source` is its link-local address. */
export function routerAdvertisement(from: string, source: string, prefix: string): string {
  const [lifetime, validSeconds] = [1800, 7200];
  const head = Buffer.alloc(16);
  head.writeUInt8(134, 0);
  head.writeUInt8(64, 4);
  head.writeUInt16BE(lifetime, 6);
  const information = Buffer.alloc(32);
  const onLinkAndAutonomous = 0xc0;
  information.set([3, 4, 64, onLinkAndAutonomous], 0);
  information.writeUInt32BE(validSeconds, 4);
  information.writeUInt32BE(validSeconds, 8);
  information.set(addressBytes(prefix), 16);
  const body = Buffer.concat([head, information, Buffer.from([1, 1]), mac(from)]);
  return ip({ from, to: '33:33:00:00:00:01' }, { source, destination: ALL_NODES, hopLimit: 255 }, IPPROTO_ICMPV6, body);
}

export interface Flow {
  source: string;
  destination: string;
  sourcePort: number;
  destinationPort: number;
}

export function udpFrame(stations: Stations, flow: Flow, payload = 'attack'): string {
  const head = Buffer.alloc(8);
  head.writeUInt16BE(flow.sourcePort, 0);
  head.writeUInt16BE(flow.destinationPort, 2);
  head.writeUInt16BE(8 + payload.length, 4);
  return ip(stations, flow, IPPROTO_UDP, Buffer.concat([head, Buffer.from(payload)]));
}

export const TCP_SYN = 0x02;
export const TCP_SYN_ACK = 0x12;
export const TCP_ACK = 0x10;

export function tcpFrame(stations: Stations, flow: Flow, flags: number, payload = ''): string {
  const head = Buffer.alloc(20);
  head.writeUInt16BE(flow.sourcePort, 0);
  head.writeUInt16BE(flow.destinationPort, 2);
  head.writeUInt32BE(1000, 4);
  head.writeUInt8(5 << 4, 12);
  head.writeUInt8(flags, 13);
  head.writeUInt16BE(64_000, 14);
  return ip(stations, flow, IPPROTO_TCP, Buffer.concat([head, Buffer.from(payload)]));
}

export function echoRequestFrame(stations: Stations, flow: Pick<Flow, 'source' | 'destination'>): string {
  const isIpv6 = flow.source.includes(':');
  const body = Buffer.from([isIpv6 ? 128 : 8, 0, 0, 0, 0x12, 0x34, 0, 1, ...Buffer.from('attack')]);
  return ip(stations, flow, isIpv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP, body);
}

/** `flow` is said to have sent a datagram that is too big (RFC 1191, RFC 8201), or that nobody wanted. */
export function errorFrame(
  stations: Stations,
  outer: Pick<Flow, 'source' | 'destination'>,
  flow: Flow,
  mtu?: number,
): string {
  const isIpv6 = flow.source.includes(':');
  const about = Buffer.from(udpFrame(stations, flow), 'hex').subarray(14);
  const [refused, tooBig] = isIpv6
    ? ([
        [1, 4],
        [2, 0],
      ] as const)
    : ([
        [3, 3],
        [3, 4],
      ] as const);
  const head = Buffer.from([...(mtu === undefined ? refused : tooBig), 0, 0, 0, 0, 0, 0]);
  head.writeUInt32BE(mtu ?? 0, 4);
  return ip(stations, outer, isIpv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP, Buffer.concat([head, about]));
}

/** A router says that `flow` has a shorter way by `gateway` (RFC 792; a redirect of IPv6 needs a link-local sender). */
export function redirectFrame(
  stations: Stations,
  outer: Pick<Flow, 'source' | 'destination'>,
  flow: Flow,
  gateway: string,
): string {
  const about = Buffer.from(udpFrame(stations, flow), 'hex').subarray(ETHERNET_BYTES);
  const redirectHost = Buffer.from([5, 1, 0, 0, ...addressBytes(gateway)]);
  return ip(stations, outer, IPPROTO_ICMP, Buffer.concat([redirectHost, about]));
}

/** What a host answers with a parameter problem (RFC 792, RFC 4443): an option that is too short; of IPv6 a header nobody knows. */
export function unreadableFrame(stations: Stations, flow: Flow): string {
  const experiment = 253;
  if (flow.source.includes(':')) return ip(stations, flow, experiment, Buffer.alloc(16));
  const frame = Buffer.from(udpFrame(stations, flow), 'hex');
  const body = ETHERNET_BYTES + 20;
  const head = Buffer.concat([frame.subarray(ETHERNET_BYTES, body), Buffer.from([7, 2, 0, 0])]);
  head.writeUInt8(0x46, 0);
  head.writeUInt16BE(head.length + frame.length - body, 2);
  head.writeUInt16BE(0, 10);
  head.writeUInt16BE(checksum(head), 10);
  return Buffer.concat([frame.subarray(0, ETHERNET_BYTES), head, frame.subarray(body)]).toString('hex');
}

/** What a TUN carries of a frame. */
export function packetOf(frame: string): string {
  return frame.slice(ETHERNET_BYTES * 2);
}

/** The same packet in two frames, cut `bytes` behind the IP header, a multiple of eight. */
export function fragmentsOf(frame: string, bytes: number, identification: number): [first: string, second: string] {
  const whole = Buffer.from(frame, 'hex');
  const isIpv6 = whole.readUInt16BE(12) === ETHERTYPE_IPV6;
  const body = ETHERNET_BYTES + (isIpv6 ? 40 : 20);
  const parts = [whole.subarray(body, body + bytes), whole.subarray(body + bytes)] as const;
  const [first, second] = parts.map((part, index) => {
    const head = Buffer.from(whole.subarray(0, body));
    const [offset, more] = [index * bytes, index === 0 ? 1 : 0];
    if (isIpv6) {
      const extension = Buffer.alloc(8);
      extension[0] = head[ETHERNET_BYTES + 6] ?? 0;
      extension.writeUInt16BE(offset | more, 2);
      extension.writeUInt32BE(identification, 4);
      head[ETHERNET_BYTES + 6] = IPPROTO_FRAGMENT;
      head.writeUInt16BE(8 + part.length, ETHERNET_BYTES + 4);
      return Buffer.concat([head, extension, part]).toString('hex');
    }
    head.writeUInt16BE(20 + part.length, ETHERNET_BYTES + 2);
    head.writeUInt16BE(identification, ETHERNET_BYTES + 4);
    head.writeUInt16BE((offset / 8) | (more << 13), ETHERNET_BYTES + 6);
    head.writeUInt16BE(0, ETHERNET_BYTES + 10);
    head.writeUInt16BE(checksum(head.subarray(ETHERNET_BYTES)), ETHERNET_BYTES + 10);
    return Buffer.concat([head, part]).toString('hex');
  });
  return [first ?? '', second ?? ''];
}

/** Where each protocol has its checksum. */
const CHECKSUM_AT: Record<number, number> = {
  [IPPROTO_ICMP]: 2,
  [IPPROTO_ICMPV6]: 2,
  [IPPROTO_UDP]: 6,
  [IPPROTO_TCP]: 16,
};

function ip(
  stations: Stations,
  { source, destination, hopLimit = 64 }: { source: string; destination: string; hopLimit?: number },
  protocol: number,
  body: Buffer,
): string {
  const [from, to] = [addressBytes(source), addressBytes(destination)];
  const pseudo = Buffer.alloc(8);
  pseudo.writeUInt32BE(body.length, 0);
  pseudo.writeUInt32BE(protocol, 4);
  const covered = protocol === IPPROTO_ICMP ? [body] : [from, to, pseudo, body];
  body.writeUInt16BE(checksum(Buffer.concat(covered)), CHECKSUM_AT[protocol] ?? 0);
  if (from.length === 16) {
    const head = Buffer.alloc(8);
    head.writeUInt8(6 << 4, 0);
    head.writeUInt16BE(body.length, 4);
    head.set([protocol, hopLimit], 6);
    return ethernet(stations, ETHERTYPE_IPV6, [head, from, to, body]);
  }
  const head = Buffer.alloc(20);
  head.writeUInt8(0x45, 0);
  head.writeUInt16BE(20 + body.length, 2);
  head.set([hopLimit, protocol], 8);
  head.set(from, 12);
  head.set(to, 16);
  head.writeUInt16BE(checksum(head), 10);
  return ethernet(stations, ETHERTYPE_IPV4, [head, body]);
}

function ethernet({ from, to }: Stations, etherType: number, parts: readonly Uint8Array[]): string {
  return Buffer.concat([mac(to), mac(from), Buffer.from([etherType >> 8, etherType & 255]), ...parts]).toString('hex');
}

/** RFC 1071. */
function checksum(data: Uint8Array): number {
  let sum = 0;
  for (let at = 0; at < data.length; at += 2) sum += ((data[at] ?? 0) << 8) | (data[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

function mac(text: string): Buffer {
  return Buffer.from(text.replaceAll(':', ''), 'hex');
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, '0');
}

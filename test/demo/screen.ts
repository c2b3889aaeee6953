/** What the demo prints: one screen of at most 100 columns. */
import { isAnswerToTunnel, isDiscovery } from '../lab/lib/departures.js';
import type { CapturedPacket } from '../lab/lib/pcap.js';
import { ADDRESSES } from '../lab/lib/standard-lab.js';

export const TUNNEL = {
  port: 51820,
  app: ['10.9.0.2/24', 'fd09::2/64'],
  server: ['10.9.0.1/24', 'fd09::1/64'],
} as const;

export const TOPOLOGY = `\
  app                                router                     server
  vpn-tunN 10.9.0.2, fd09::2 ═══════ UDP ${TUNNEL.port} tunnel ═══════ tun0 10.9.0.1, fd09::1
  eth0 ${ADDRESSES.app.ipv4} ──────────── 192.0.2.1  198.51.100.1 ────── eth0 ${ADDRESSES.server.ipv4}
       ${ADDRESSES.app.ipv6}                                      lo   ${ADDRESSES.internet.ipv4}, ${ADDRESSES.internet.ipv6}`;

/** What left by the physical link, sorted by what it is allowed to be. */
export interface Departures {
  tunnel: CapturedPacket[];
  /** ARP, neighbour discovery, multicast listener reports: how a link finds out who is on it; never the user's data. */
  link: CapturedPacket[];
  others: CapturedPacket[];
}

export function sortDepartures(packets: readonly CapturedPacket[]): Departures {
  const departures: Departures = { tunnel: [], link: [], others: [] };
  for (const packet of packets) departures[kind(packet)].push(packet);
  return departures;
}

function kind(packet: CapturedPacket): keyof Departures {
  if (isDiscovery(packet)) return 'link';
  const isTunnel =
    packet.protocol === 'udp' &&
    packet.source === ADDRESSES.app.ipv4 &&
    packet.destination === ADDRESSES.server.ipv4 &&
    packet.destinationPort === TUNNEL.port;
  // The kernel answers a datagram of the tunnel that comes when the app has closed its socket.
  return isTunnel || isAnswerToTunnel(packet) ? 'tunnel' : 'others';
}

export function describe(packet: CapturedPacket): string {
  const { protocol, source, sourcePort, destination, destinationPort, length } = packet;
  return `${protocol} ${source}:${sourcePort ?? ''} > ${destination}:${destinationPort ?? ''}, ${length} bytes`;
}

export function heading(text: string): string {
  return `\n── ${text} ${'─'.repeat(Math.max(0, 94 - text.length))}`;
}

/** One line a claim, with the evidence. */
export function claim(holds: boolean, text: string, evidence: string): string {
  return `  ${holds ? 'ok  ' : 'FAIL'} ${text.padEnd(46)} ${evidence}`;
}

export function indent(text: string): string {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => `  ${line.replace(/\s+/g, ' ').slice(0, 96)}`)
    .join('\n');
}

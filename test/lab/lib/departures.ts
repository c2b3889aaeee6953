/**
 * What left a host by its physical link, without what a link needs to find out who is on it: ARP, neighbour and router
 * discovery (RFC 4861), multicast listener reports (RFC 2710, RFC 3810); and without the kernel's answer to what a tunnel's far end
 * still sends to a socket that is gone, which `vpnctl leaks` lists as "unreachable".
 */
import type { LabHost } from './host.js';
import type { CapturedPacket } from './pcap.js';

const DESTINATION_UNREACHABLE = 3;
const UDP = 17;

export interface Departures {
  /** One line a packet: `udp 192.0.2.2 > 198.51.100.2:51821`. */
  peek(): Promise<string[]>;
  stop(): Promise<string[]>;
  packets(): Promise<CapturedPacket[]>;
}

export async function captureDepartures(host: LabHost, device = 'eth0'): Promise<Departures> {
  const [link] = await host.json('ip', ['-j', 'link', 'show', device]);
  const capture = await host.capture(device, ['ether', 'src', String(link?.address)]);
  const lines = (packets: CapturedPacket[]) => packets.filter((packet) => !isExpected(packet)).map(describe);
  return {
    peek: async () => lines(await capture.peek()),
    stop: async () => lines(await capture.stop()),
    packets: async () => (await capture.peek()).filter((packet) => !isExpected(packet)),
  };
}

function isExpected(packet: CapturedPacket): boolean {
  return isDiscovery(packet) || isAnswerToTunnel(packet);
}

/** ICMP that quotes a datagram from WireGuard's usual port or one of exits.ts, behind 8 bytes of its own and 20 of IPv4. */
export function isAnswerToTunnel({ protocol, payload }: CapturedPacket): boolean {
  if (protocol !== 'icmp' || payload[0] !== DESTINATION_UNREACHABLE || payload.length < 30) return false;
  const [isUdp, port] = [payload[8 + 9] === UDP, ((payload[8 + 20] ?? 0) << 8) | (payload[8 + 21] ?? 0)];
  return isUdp && port >= 51820 && port < 51900;
}

export function isDiscovery({ protocol, payload }: CapturedPacket): boolean {
  if (protocol === 'arp') return true;
  const type = payload[0] ?? 0;
  return protocol === 'icmpv6' && ((type >= 130 && type <= 136) || type === 143);
}

function describe({ protocol, source, destination, destinationPort }: CapturedPacket): string {
  return `${protocol} ${source} > ${destination}${destinationPort === undefined ? '' : `:${destinationPort}`}`;
}

/** The different ones, sorted. */
export function kinds(lines: readonly string[]): string[] {
  return [...new Set(lines)].sort();
}

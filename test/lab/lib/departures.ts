/**
 * What left a host by its physical link, without what a link needs to find out who is on it: ARP, neighbour and router
 * discovery (RFC 4861), multicast listener reports (RFC 2710, RFC 3810).
 */
import type { LabHost } from './host.js';
import type { CapturedPacket } from './pcap.js';

export interface Departures {
  /** One line a packet: `udp 192.0.2.2 > 198.51.100.2:51821`. */
  peek(): Promise<string[]>;
  stop(): Promise<string[]>;
  packets(): Promise<CapturedPacket[]>;
}

export async function captureDepartures(host: LabHost, device = 'eth0'): Promise<Departures> {
  const [link] = await host.json('ip', ['-j', 'link', 'show', device]);
  const capture = await host.capture(device, ['ether', 'src', String(link?.address)]);
  const lines = (packets: CapturedPacket[]) => packets.filter((packet) => !isDiscovery(packet)).map(describe);
  return {
    peek: async () => lines(await capture.peek()),
    stop: async () => lines(await capture.stop()),
    packets: async () => (await capture.peek()).filter((packet) => !isDiscovery(packet)),
  };
}

function isDiscovery({ protocol, payload }: CapturedPacket): boolean {
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

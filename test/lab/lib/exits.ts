/**
 * Far ends of VPNs. Each exit is a host of its own that has the same "internet" addresses as the standard lab's server and
 * says another name, so that every answer tells its path:
 *
 *   server ── UDP port 51820+N ── exitN   tunN 10.9.0.1/24, fd09::1/64 for N = 1, 10.10.0.1/24, fd0a::1/64 for N = 2, …
 *                                         lo   the server's and the internet's addresses
 */
import type { VpnConfig } from '../../../src/model/vpn-types.js';
import type { LabHost } from './host.js';
import { startPeer, startTunnelPeer } from './peers.js';
import { ADDRESSES, type StandardLab } from './standard-lab.js';
import type { VpnApp } from './vpn-app.js';

export interface Exit {
  name: string;
  host: LabHost;
  /** Where its tunnel ends: an address of the server and a UDP port. */
  address: string;
  port: number;
  /** Its own addresses in the tunnel. */
  ipv4: string;
  ipv6: string;
  /** Addresses for the vNIC of an app; as the exit's servers see them. */
  vnic: string[];
  client: { ipv4: string; ipv6: string };
}

/** Hosts that answer everywhere. */
export const PLACES = [
  ADDRESSES.internet.ipv4,
  ADDRESSES.internet.ipv6,
  ADDRESSES.server.ipv4,
  ADDRESSES.server.ipv6,
] as const;

/** `network`: whose addresses it uses, so that two exits can have the same ones. `more`: further addresses that answer. */
export async function startExit(
  { lab, server }: StandardLab,
  number: number,
  options: { network?: number; more?: readonly string[] } = {},
): Promise<Exit> {
  const { network = number, more = [] } = options;
  const name = `exit${number}`;
  const host = await lab.host(name);
  const [net4, net6] = [`10.${8 + network}.0`, `fd${(8 + network).toString(16).padStart(2, '0')}:`];
  const [ipv4, ipv6] = [`${net4}.1`, `${net6}:1`];
  const client = { ipv4: `${net4}.2`, ipv6: `${net6}:2` };
  const port = 51820 + number;
  const device = `tun${number}`;
  await startTunnelPeer(server, { port, device, addresses: [`${ipv4}/24`, `${ipv6}/64`], exit: host });
  const own = [...PLACES, ...more];
  await host.configure('lo', own.map(hostPrefix));
  await host.ip(`route add default dev ${device}`, `route add ::/0 dev ${device}`);
  await startServers(host, name, [...own, ipv4, ipv6]);
  const vnic = [`${client.ipv4}/24`, `${client.ipv6}/64`];
  return { name, host, address: ADDRESSES.server.ipv4, port, ipv4, ipv6, vnic, client };
}

/** whoami and DNS on each of these addresses, under this name. Bound one by one, so that answers come from where they were asked. */
export async function startServers(host: LabHost, name: string, addresses: readonly string[]): Promise<void> {
  const servers = addresses.flatMap((address) => [
    { kind: 'whoami' as const, name, port: 7, address },
    { kind: 'dns' as const, name, a: '192.0.2.99', address },
  ]);
  await startPeer(host, ...servers);
}

/** Sets a VPN up that leads to the exit. Returns the number of the TUN. */
export async function connect(app: VpnApp, exit: Exit, config: VpnConfig): Promise<number> {
  const fd = await app.call('setUp', config);
  await app.call('forward', fd, exit.address, exit.port);
  return fd;
}

function hostPrefix(address: string): string {
  return `${address}/${address.includes(':') ? 128 : 32}`;
}

/** Each place by TCP, by connected and by unconnected UDP. */
export const EVERYWHERE = PLACES.flatMap((address) => [
  { transport: 'tcp' as const, address },
  { transport: 'udp' as const, address },
  { transport: 'udp' as const, address, unconnected: true },
]);

/** What EVERYWHERE is answered by servers of this name that see this client. */
export function pathOf(name: string, client: Exit['client']): string[] {
  return EVERYWHERE.map(({ address }) => `${name} ${address.includes(':') ? client.ipv6 : client.ipv4}`);
}

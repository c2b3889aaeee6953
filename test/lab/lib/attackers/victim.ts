/**
 * Whom the attacks are for: a VPN of root's or of one user's, somebody whom it covers, somebody it leaves alone to show that the
 * attack is one, and a tunnel that attacks on routes do not end, because its client has a route to the far end, as most have.
 */
import type { Exit } from '../exits.js';
import { connect } from '../exits.js';
import type { DepartedPacket, Facts } from '../leak-check.js';
import { discoveryTarget } from '../leak-check.js';
import { POLICY_ADDRESSES, type PolicyLab } from '../policy-lab.js';
import { ADDRESSES } from '../standard-lab.js';
import { type VpnApp, vpnConfig } from '../vpn-app.js';
import { exitOf } from '../vpn-lab.js';

export interface Victim {
  whose: string;
  owner: number;
  covered: readonly number[];
  uncovered: number;
  /** What makes it so. */
  config: { blockedApplications?: string[] };
}

export const VICTIMS: readonly Victim[] = [
  { whose: "a user's VPN", owner: 2001, covered: [2001], uncovered: 2002, config: {} },
  { whose: "root's VPN", owner: 0, covered: [0, 2003], uncovered: 2002, config: { blockedApplications: ['uid:2002'] } },
];

/** Another address of the server's, for the far ends of tunnels. */
const ENDPOINT = '192.0.2.77';

export interface Tunnel {
  app: VpnApp;
  exit: Exit;
  fd: number;
  /** The vNIC's name. */
  device: string;
  /** What the test knows: the tunnel's datagrams, what is sent as the uncovered one, the kernel's search for neighbours. */
  facts: Facts;
}

type Config = Parameters<typeof vpnConfig>[1] & { addresses?: string[] };

/** The victim's VPN, with its tunnel to the exit of this number by way of ENDPOINT. */
export async function raise(
  lab: PolicyLab,
  victim: Pick<Victim, 'owner' | 'config'>,
  config: Config = {},
  number = 1,
): Promise<Tunnel> {
  const { router, server, app } = lab;
  const { addresses, ...more } = config;
  await server.ip(`address replace ${ENDPOINT}/32 dev lo`);
  await router.ip(`route replace ${ENDPOINT} via ${ADDRESSES.server.ipv4}`);
  await app.ip(`route replace ${ENDPOINT} via ${POLICY_ADDRESSES.router.ipv4} dev eth0`);
  const exit = exitOf(lab, number);
  const process = await lab.process(victim.owner);
  const fd = await connect(
    process,
    { ...exit, address: ENDPOINT },
    vpnConfig(addresses ?? exit.vnic, { ...victim.config, ...more }),
  );
  const device = await deviceOf(lab, exit);
  return {
    app: process,
    exit,
    fd,
    device,
    facts: { isProtected: isDatagramTo(ENDPOINT, exit), isUncovered: isSearch },
  };
}

async function deviceOf({ app }: PolicyLab, { client }: Exit): Promise<string> {
  const links = await app.json<{ ifname: string; addr_info: { local: string }[] }[]>('ip', ['-j', 'address', 'show']);
  const found = links.find(({ addr_info }) => addr_info.some(({ local }) => local === client.ipv4));
  if (!found) throw new Error(`no vNIC has ${client.ipv4}`);
  return found.ifname;
}

export function isDatagramTo(address: string, { port }: Exit): (packet: DepartedPacket) => boolean {
  return ({ protocol, destination, destinationPort }) =>
    protocol === 'udp' && destination === address && destinationPort === port;
}

/** Hosts on the link itself. A search for anybody else is a covered packet that was about to leave. */
const NEIGHBOURS = new Set<string>(Object.values(POLICY_ADDRESSES).flatMap(({ ipv4, ipv6 }) => [ipv4, ipv6]));
const ROUTER_SOLICITATION = 133;
const LISTENER_REPORT = 143;

/** The kernel looks for neighbours and joins groups whoever is covered. */
export function isSearch(packet: DepartedPacket): boolean {
  const target = discoveryTarget(packet);
  if (target !== undefined) return NEIGHBOURS.has(target) || target.startsWith('fe80:');
  return packet.icmpType === ROUTER_SOLICITATION || packet.icmpType === LISTENER_REPORT;
}

/** Searches for anybody else, which root's exceptions would explain. That somebody with this address asks, and is answered, is none. */
export function searchesFor(packets: readonly DepartedPacket[], address: string): DepartedPacket[] {
  return packets.filter((packet) => discoveryTarget(packet) === address && !isArpReply(packet));
}

const ARP_REPLY = 2;

/** The operation (RFC 826) is behind the two address types and lengths. */
export function isArpReply({ protocol, payload }: DepartedPacket): boolean {
  return protocol === 'arp' && payload[7] === ARP_REPLY;
}

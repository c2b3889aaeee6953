/**
 * Compares what left by physical links with the exceptions that the service admits to (`vpnctl leaks --json`): every packet
 * of covered traffic must match one of them. What a packet does not show (which socket it is from) the test tells, because
 * it made the traffic. Pure; policy-lab.ts captures.
 */
import { prefixContains } from '../../../src/model/address.js';
import type { LeakException } from '../../../src/model/leak-exception.js';
import { type CapturedPacket, ipv6 } from './pcap.js';

export type { LeakException };

export interface DepartedPacket extends CapturedPacket {
  link: string;
}

/** What the test knows about the traffic it made. */
export interface Facts {
  /** Of a user or an application that no VPN covers. Default: none. */
  isUncovered?: (packet: DepartedPacket) => boolean;
  /** From a socket that was protected. Default: none. */
  isProtected?: (packet: DepartedPacket) => boolean;
  /** An answer to what came in from outside. Default: none. */
  isInbound?: (packet: DepartedPacket) => boolean;
}

const TCP_RST = 0x04;

/** How each field is compared. Fields that describe no packet (whose, why) are not here. */
const COMPARISONS: { [K in keyof LeakException]?: (wanted: never, packet: DepartedPacket, facts: Facts) => boolean } = {
  family: (wanted: 4 | 6, { family, protocol }) => wanted === (protocol === 'arp' || family === 1 ? 4 : family && 6),
  protocol: (wanted: string, { protocol }) => wanted === protocol,
  icmpTypes: (wanted: number[], { icmpType }) => icmpType !== undefined && wanted.includes(icmpType),
  sourcePort: (wanted: number, { sourcePort }) => wanted === sourcePort,
  destinationPort: (wanted: number, { destinationPort }) => wanted === destinationPort,
  exceptDestinationPort: (unwanted: number, { destinationPort }) => unwanted !== destinationPort,
  destinations: (wanted: string[], { destination }) => wanted.some((prefix) => contains(prefix, destination)),
  links: (wanted: string[], { link }) => wanted.includes(link),
  hopLimit: (wanted: number, { hopLimit }) => wanted === hopLimit,
  tcpFlags: (_: 'rst', { tcpFlags }) => ((tcpFlags ?? 0) & TCP_RST) !== 0,
  socket: (wanted: LeakException['socket'], packet, facts) =>
    (wanted === 'protected' ? facts.isProtected : wanted === 'inbound' ? facts.isInbound : undefined)?.(packet) ??
    false,
  // What is forwarded the test tells as uncovered.
  from: () => false,
};
const OTHER_FIELDS = new Set(['kind', 'uid', 'lockdown', 'reason']);

/** The packets that no exception explains. Throws for an exception that would explain everything. */
export function unexplained(
  packets: readonly DepartedPacket[],
  exceptions: readonly LeakException[],
  facts: Facts = {},
): DepartedPacket[] {
  for (const exception of exceptions) refuseWide(exception);
  return packets.filter(
    (packet) =>
      !facts.isUncovered?.(packet) && !exceptions.some((exception) => isExplainedBy(packet, exception, facts)),
  );
}

/** Do all fields that the exception has match the packet? */
export function isExplainedBy(packet: DepartedPacket, exception: LeakException, facts: Facts = {}): boolean {
  return Object.entries(exception).every(([field, wanted]) => {
    if (OTHER_FIELDS.has(field) || wanted === undefined) return true;
    const compare = COMPARISONS[field as keyof LeakException];
    // A field that is not known here must not widen the exception.
    return compare?.(wanted as never, packet, facts) ?? false;
  });
}

/** A misspelt field, or none: either would make the check pass for the wrong reason. */
function refuseWide(exception: LeakException): void {
  const fields = Object.keys(exception).filter((field) => !OTHER_FIELDS.has(field));
  const unknown = fields.filter((field) => !(field in COMPARISONS));
  if (unknown.length > 0) throw new Error(`exception ${exception.kind} has unknown fields: ${unknown.join(', ')}`);
  if (fields.length === 0) throw new Error(`exception ${exception.kind} explains every packet`);
}

function contains(prefix: string, address: string): boolean {
  const [base = '', length] = prefix.split('/');
  if (address === '') return false;
  const bits = base.includes(':') ? 128 : 32;
  return prefixContains({ address: base, prefixLength: length === undefined ? bits : Number(length) }, address);
}

/** @example 'eth0 udp 192.168.50.2:40000 > 203.0.113.10:7' */
export function describePacket(packet: DepartedPacket): string {
  const { link, protocol, source, destination, sourcePort, destinationPort, icmpType, tcpFlags } = packet;
  const [from, to] = [portText(sourcePort), portText(destinationPort)];
  const type = icmpType === undefined ? '' : ` type ${icmpType}`;
  const flags = tcpFlags === undefined ? '' : ` flags ${tcpFlags.toString(16)}`;
  const target = discoveryTarget(packet);
  const about = protocol === 'icmpv6' && target !== undefined ? ` for ${target}` : '';
  return `${link} ${protocol} ${source}${from} > ${destination}${to}${type}${flags}${about}`;
}

function portText(port: number | undefined): string {
  return port === undefined ? '' : `:${port}`;
}

const NEIGHBOUR_SOLICITATION = 135;
const NEIGHBOUR_ADVERTISEMENT = 136;

/** Whom an ARP packet or a neighbour solicitation or advertisement (RFC 4861, 4.3 and 4.4) is about. */
export function discoveryTarget({ protocol, destination, icmpType, payload }: CapturedPacket): string | undefined {
  if (protocol === 'arp') return destination;
  if (icmpType !== NEIGHBOUR_SOLICITATION && icmpType !== NEIGHBOUR_ADVERTISEMENT) return undefined;
  return ipv6(Buffer.from(payload), 8);
}

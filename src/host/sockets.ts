/**
 * Which of the sockets that exist must end, so that no packet of covered traffic leaves outside the tunnel, and which must
 * live. Pure: a listing in, a choice out.
 */
import { type SocketEntry, TCP_ESTABLISHED, TCP_LISTEN, TCP_SYN_SENT } from '../kernel/inet-diag.js';
import type { Endpoint } from '../kernel/inet-socket.js';
import { isUnspecified, prefixContains } from '../model/address.js';
import type { Family } from '../model/vpn-types.js';
import { type Coverage, covers } from './coverage.js';

/** A connection as the nft set of those that came in has it. */
export interface Connection {
  readonly family: Family;
  readonly local: Endpoint;
  readonly remote: Endpoint;
}

/** Where a client's packets come from and go to. `protocol` of IP, by number. */
export interface Flow extends Pick<Connection, 'local' | 'remote'> {
  readonly protocol: number;
}

/** Below are system accounts (login.defs(5)). */
const FIRST_PERSONAL_UID = 1000;
/** The kernel never chooses a lower port by itself (ip_unprivileged_port_start). */
const FIRST_CHOSEN_PORT = 1024;
const DNS_PORT = 53;

/**
 * What has to end when a VPN comes up. Of TCP: connections of covered users and applications to where the VPN takes them, in
 * every state, orphans included, but for those that came in. Of UDP and raw IP: what is connected there; and UDP sockets
 * bound to one address of this host with a port that the kernel chose (WebRTC), wherever the VPN leads, because they would
 * answer what still comes in as if they were servers. A UDP socket bound to no address answers from the vNIC's, into the
 * tunnel.
 *
 * `entries` must be all sockets, with the origins of their ports. `ownAddresses` are those of this host: what stays inside it
 * is left alone.
 */
export function coveredOutbound(
  entries: readonly SocketEntry[],
  coverage: Coverage,
  ownAddresses: ReadonlySet<string>,
): SocketEntry[] {
  const cameIn = inboundTest(entries);
  const isOutside = ({ protocol, state, portOrigin, uid, family, local, remote }: SocketEntry): boolean => {
    if (coverage.addresses.has(local.address)) return false;
    // Also a local network's resolver or a stub: with its connection goes what conntrack knows of its translation.
    if (coverage.hasDns && remote.port === DNS_PORT && protocol !== 'raw') return true;
    if (isLoopback(local.address)) return false;
    if (protocol !== 'tcp' && state !== TCP_ESTABLISHED) {
      return (
        protocol === 'udp' && portOrigin === 'kernel' && (!isUnspecified(local.address) || isPersonal(coverage, uid))
      );
    }
    return !isOwn(remote.address, ownAddresses) && coverage.takes(family, remote.address);
  };
  const isChosen = (entry: SocketEntry): boolean =>
    entry.state !== TCP_LISTEN && covers(coverage, entry) && isOutside(entry) && !cameIn(entry);
  return withoutDoubles(entries, entries.filter(isChosen));
}

/**
 * A socket of no address answers from the one it was asked at, if it says so with each datagram (IP_PKTINFO, as QUIC libraries
 * do), so what still comes in would make it a server outside the tunnel. Services of the machine, whose clients know their
 * port, are spared.
 */
function isPersonal({ owner }: Coverage, uid: number | undefined): boolean {
  return owner !== 0 || (uid ?? FIRST_PERSONAL_UID) >= FIRST_PERSONAL_UID;
}

/** What has to end when a vNIC goes: whatever has one of its addresses, except TCP listeners, which nobody reaches then. */
export function fromAddresses(entries: readonly SocketEntry[], addresses: ReadonlySet<string>): SocketEntry[] {
  const chosen = entries.filter(({ state, local }) => state !== TCP_LISTEN && addresses.has(local.address));
  return withoutDoubles(entries, chosen);
}

/** TCP connections that others made to this host, in whatever state: SSH sessions above all. `entries` as above. */
export function inboundConnections(entries: readonly SocketEntry[], ownAddresses: ReadonlySet<string>): Connection[] {
  const cameIn = inboundTest(entries);
  return entries
    .filter((entry) => cameIn(entry) && !isOwn(entry.remote.address, ownAddresses))
    .map(({ family, local, remote }) => ({ family, local, remote }));
}

/**
 * Tells the TCP connections that came in. The kernel keeps no such bit. But a connection that came in got its port from its
 * listener and not by bind(2) of its own; the kernel chooses no port for an outgoing one that a listener has, nor one below
 * 1024. So a socket that took a listener's port by bind(2) (SO_REUSEADDR, hole punching) is not mistaken, and a session
 * outlives its server (sshd stopped).
 *
 * What it cannot see: a connection whose listener on a port above is gone counts as outgoing, as does one of a transparent
 * proxy, whose listener has another address and port. And a process that connects with SO_REUSEADDR and then listens on the
 * port it was given makes its own connection look as if it had come in.
 */
function inboundTest(entries: readonly SocketEntry[]): (entry: SocketEntry) => boolean {
  const listeners = new Map<number, SocketEntry[]>();
  for (const entry of entries) {
    if (entry.state !== TCP_LISTEN) continue;
    const others = listeners.get(entry.local.port);
    if (others) others.push(entry);
    else listeners.set(entry.local.port, [entry]);
  }
  return (entry) => {
    if (entry.protocol !== 'tcp' || entry.state === TCP_LISTEN || entry.state === TCP_SYN_SENT) return false;
    if (entry.portOrigin === 'bind') return false;
    if (entry.local.port < FIRST_CHOSEN_PORT) return true;
    return (listeners.get(entry.local.port) ?? []).some((listener) => isListenerOf(listener, entry));
  };
}

/** An accepted socket has the address family and the device of its listener. */
function isListenerOf(listener: SocketEntry, entry: SocketEntry): boolean {
  if (listener.isInet6 !== entry.isInet6) return false;
  if (listener.ifindex !== 0 && listener.ifindex !== entry.ifindex) return false;
  if (listener.local.address === entry.local.address) return true;
  if (!isUnspecified(listener.local.address)) return false;
  return listener.family === entry.family || !listener.isV6Only;
}

/**
 * Raw sockets are found by their addresses alone, and the first that takes packets from there is ended, whosever it is: one
 * with doubles is left to the rules and the lock, which do not let its packets out.
 */
function withoutDoubles(entries: readonly SocketEntry[], chosen: readonly SocketEntry[]): SocketEntry[] {
  const raw = entries.filter(({ protocol }) => protocol === 'raw');
  return chosen.filter((entry) => {
    return entry.protocol !== 'raw' || !raw.some((other) => other !== entry && takesPacketsOf(other, entry));
  });
}

function takesPacketsOf(other: SocketEntry, entry: SocketEntry): boolean {
  const fits = (its: Endpoint, own: Endpoint): boolean => isUnspecified(its.address) || its.address === own.address;
  return (
    other.isInet6 === entry.isInet6 &&
    other.rawProtocol === entry.rawProtocol &&
    (other.ifindex === 0 || other.ifindex === entry.ifindex) &&
    fits(other.local, entry.local) &&
    fits(other.remote, entry.remote)
  );
}

function isOwn(address: string, ownAddresses: ReadonlySet<string>): boolean {
  return isLoopback(address) || ownAddresses.has(address);
}

function isLoopback(address: string): boolean {
  return address === '::1' || prefixContains({ address: '127.0.0.0', prefixLength: 8 }, address);
}

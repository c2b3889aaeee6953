/**
 * What a tunnel protocol is to the data path (data-path.ts): it seals packets into datagrams and opens datagrams into packets,
 * in memory that it is given, and does nothing else: no I/O, no clock, no timers. WireGuard is one (wireguard/protocol.ts);
 * examples/own-protocol.ts is another.
 *
 * All positions are offsets into the arena. seal() and open() run hundreds of thousands of times a second: allocate nothing. The
 * thread never returns to its event loop, so timers and promises do not run in it: what has to happen later is tick()'s.
 */
import type { Arena } from '../kernel/arena.js';
import type { Endpoint } from './wireguard/endpoint.js';

/** Where datagrams go. The protocol may have more in it: a peer with its keys. */
export interface Destination {
  /** Undefined while nobody knows: nothing is sent. */
  endpoint: Endpoint | undefined;
}

export interface Outgoing {
  datagram: Uint8Array;
  endpoint: Endpoint;
}

export interface TunnelProtocol<D extends Destination = Destination> {
  /** Datagrams of its own (handshakes, keepalives, packets that waited); the data path sends and removes them. */
  readonly outbox: Outgoing[];
  /** When tick() is next wanted, in milliseconds of the clock that nowMs is of; Infinity: never. */
  readonly nextDeadlineMs: number;
  /** Who gets the IP packet at `from`; undefined: nobody, it is dropped. */
  route(from: number, length: number): D | undefined;
  /**
   * Writes the datagram for the IP packet of `length` bytes at `from` to `to`: at most MAX_OVERHEAD bytes longer. Returns its
   * length; 0: nothing to send now. May change nothing outside of it.
   */
  seal(destination: D, from: number, length: number, to: number, nowMs: number): number;
  /**
   * Writes the IP packet in the datagram of `length` bytes at `from` to `to`: no longer than the datagram. Returns its length; 0:
   * nothing to deliver, and what is at `to` is not looked at. `source` is where the sender's struct sockaddr_in6 is
   * (Endpoint.at, Endpoint.withLocalAt); who sent it is known only once it is authentic.
   */
  open(from: number, length: number, to: number, source: number, nowMs: number): number;
  tick(nowMs: number): void;
  /** What Tunnel.call() asks, and its answer: values that structuredClone takes. */
  call(request: unknown, nowMs: number): unknown;
  /** Zeroes keys. */
  close(): void;
}

/** A datagram is at most this much longer than its packet. */
export const MAX_OVERHEAD = 64;

export interface ProtocolContext {
  readonly arena: Arena;
  /** Of the vNIC. */
  readonly mtu: number;
  /** The time, of the clock that is told later: of this machine since it was started, suspension included. */
  readonly nowMs: number;
}

/** What the module of a protocol exports as `createProtocol`; `options` are those given to openTunnel(). */
export type CreateProtocol = (context: ProtocolContext, options: unknown) => TunnelProtocol;

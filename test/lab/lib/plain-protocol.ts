/**
 * The simplest protocol that openTunnel() can run, for tests of what carries it: a packet is a datagram with some bytes in front.
 * Nothing is encrypted. On request it does what a protocol must not do, or what networks do.
 *
 *   0x50 | zeros, `overhead` bytes in all | IP packet
 */
import type { CreateProtocol, Destination } from '../../../src/tunnel/protocol.js';
import { Endpoint } from '../../../src/tunnel/wireguard/endpoint.js';

/** Done to each packet whose number is a multiple of `every`. */
export interface Fault {
  in: 'seal' | 'open';
  /** `flip`: one bit of the packet is another; `drop`: it goes nowhere; `throw`: the protocol fails. */
  what: 'flip' | 'drop' | 'throw';
  every: number;
  /** For `flip`: which byte; below 0: from the end. */
  at?: number;
  /** Packets from this size on. Default 0. */
  fromBytes?: number;
}

export interface PlainOptions {
  /** Absent: who sends first. */
  peer?: { address: string; port: number };
  /** From 1 to 64. Default 16. */
  overhead?: number;
  fault?: Fault;
  /** createProtocol() throws. */
  refuse?: string;
  /** tick() is wanted after so many milliseconds, and throws. */
  failAfterMs?: number;
}

export type PlainRequest =
  | { ask: 'fault'; fault?: Fault | undefined }
  | { ask: 'counts' }
  | { ask: 'echo'; value: unknown }
  /** An answer that structuredClone does not take. */
  | { ask: 'function' }
  | { ask: 'throw' };

export interface PlainCounts {
  sealed: number;
  opened: number;
  /** Packets that something was done to. */
  faults: number;
  /** Datagrams that are none of ours. */
  foreign: number;
  closed: number;
}

const MAGIC = 0x50;

export const createProtocol: CreateProtocol = ({ arena: { memory, view }, nowMs: startMs }, given) => {
  const { peer, overhead = 16, refuse, failAfterMs, ...options } = given as PlainOptions;
  if (refuse !== undefined) throw new Error(refuse);
  let { fault } = options;
  const far: Destination = { endpoint: peer && Endpoint.of(peer.address, peer.port) };
  const counts: PlainCounts = { sealed: 0, opened: 0, faults: 0, foreign: 0, closed: 0 };

  /** What becomes of the packet at `at`: its length, or 0. */
  const suffer = (where: Fault['in'], number: number, at: number, length: number): number => {
    if (fault?.in !== where || number % fault.every !== 0 || length < (fault.fromBytes ?? 0)) return length;
    counts.faults++;
    if (fault.what === 'throw') throw new Error(`${where} fails`);
    if (fault.what === 'drop') return 0;
    const { at: byte = 0 } = fault;
    const place = at + (byte < 0 ? length + byte : byte);
    memory[place] = (memory[place] ?? 0) ^ 4;
    return length;
  };

  return {
    outbox: [],
    nextDeadlineMs: failAfterMs === undefined ? Number.POSITIVE_INFINITY : startMs + failAfterMs,
    tick: () => {
      throw new Error('tick fails');
    },
    route: () => far,
    seal: (_far, from, length, to) => {
      memory.copyWithin(to + overhead, from, from + length);
      memory.fill(0, to, to + overhead);
      memory[to] = MAGIC;
      const left = suffer('seal', ++counts.sealed, to + overhead, length);
      return left === 0 ? 0 : left + overhead;
    },
    open: (from, length, to, source) => {
      if (length <= overhead || memory[from] !== MAGIC) {
        counts.foreign++;
        return 0;
      }
      if (!far.endpoint?.isAt(view, source)) far.endpoint = Endpoint.at(memory, source);
      memory.copyWithin(to, from + overhead, from + length);
      return suffer('open', ++counts.opened, to, length - overhead);
    },
    call: (request) => {
      const asked = request as PlainRequest;
      if (asked.ask === 'fault') fault = asked.fault;
      if (asked.ask === 'throw') throw new Error('asked to throw');
      if (asked.ask === 'function') return () => 0;
      return asked.ask === 'echo' ? asked.value : counts;
    },
    close: () => {
      counts.closed++;
    },
  };
};

/** Floods from a host of the lab; the process is flood-process.ts. */
import type { LabHost } from '../lib/host.js';
import { encodeBytes } from '../lib/tunnel-end-protocol.js';
import type { Attack } from './wireguard-messages.js';

export interface FloodOrder {
  /** IPv4. */
  target: { address: string; port: number };
  attack: Attack;
  /** Default: each message once; otherwise they are sent in turn. */
  count?: number;
  perSecond: number;
  /**
   * `here`: one socket. `anywhere`: from addresses that are not the host's. Addresses: each in turn, which must be the host's; a
   * cookie that comes there is used.
   */
  from: 'here' | 'anywhere' | readonly string[];
}

export interface FloodReport {
  sent: number;
  seconds: number;
  /** Datagrams that came back; 0 for `anywhere`. */
  answers: number;
}

export interface Attacker {
  /** Settles when the first is on its way. */
  begin(order: FloodOrder): Promise<{ done: Promise<FloodReport> }>;
  /** The whole of it. */
  flood(order: FloodOrder): Promise<FloodReport>;
  /** Ends what it is at. */
  stop(): Promise<void>;
}

const PATIENCE_MS = 120_000;

export function startAttacker(host: LabHost): Attacker {
  const process = host.spawnNode('dist/test/lab/attackers/flood-process.js');
  let last = 0;
  const begin = async (order: FloodOrder) => {
    const number = ++last;
    process.write(`${encodeBytes({ number, ...order })}\n`);
    await process.waitFor(new RegExp(`^\\{"begun":${number}\\}$`, 'm'));
    const answer = process.waitFor(new RegExp(`^\\{"number":${number},.*$`, 'm'), PATIENCE_MS);
    const done = answer.then(([line]) => JSON.parse(line) as FloodReport);
    // Who stops it does not wait for it.
    done.catch(() => {});
    return { done };
  };
  const stop = async () => {
    await process.kill('SIGKILL');
  };
  return { begin, flood: async (order) => (await begin(order)).done, stop };
}

/**
 * Two hosts with a tunnel between them whose protocol does nothing (plain-protocol.ts); the processes are plain-end.ts.
 *
 *   here                                     there
 *   eth0 192.0.2.1/24 ────────────────────── eth0 192.0.2.2/24
 *        2001:db8:1::1/64                         2001:db8:1::2/64
 *   tun0 10.9.0.1/24, fd09::1/64 ═══ UDP ═══ tun0 10.9.0.2/24, fd09::2/64
 */
import type { TestContext } from 'node:test';
import type { TunnelStatus } from '../../../src/tunnel/tunnel-messages.js';
import type { LabHost } from './host.js';
import type { Lab } from './lab.js';
import type { PlainEndRequest, Resources } from './plain-end.js';
import type { PlainCounts, PlainOptions, PlainRequest } from './plain-protocol.js';
import type { LabProcess } from './process.js';
import { type Hosts, INSIDE, OUTSIDE, twoHosts } from './two-hosts.js';

export const FAMILIES = ['IPv4', 'IPv6'] as const;
export type Side = 'here' | 'there';
const SCRIPT = 'dist/test/lab/lib/plain-end.js';
const PORT = 52_000;

export interface PlainEndOptions extends PlainOptions {
  /** A TUN with a vnet header. Default true. */
  offload?: boolean;
  sendBufferBytes?: number;
}

export class PlainEnd {
  readonly host: LabHost;
  readonly process: LabProcess;
  #last = 0;

  constructor(host: LabHost) {
    this.host = host;
    this.process = host.spawnNode(SCRIPT);
  }

  async ask<T = unknown>(request: PlainEndRequest, timeoutMs?: number): Promise<T> {
    const number = ++this.#last;
    this.process.write(`${JSON.stringify({ number, ...request })}\n`);
    const [line] = await this.process.waitFor(new RegExp(`^\\{"number":${number}\\b.*\\}$`, 'm'), timeoutMs);
    const { value, error } = JSON.parse(line) as { value: T; error?: string };
    if (error !== undefined) throw new Error(error);
    return value;
  }

  /** Of the protocol. */
  call<T = PlainCounts>(request: PlainRequest): Promise<T> {
    return this.ask<T>({ command: 'call', request });
  }

  status(): Promise<TunnelStatus> {
    return this.ask({ command: 'status' });
  }

  resources(): Promise<Resources> {
    return this.ask({ command: 'resources' });
  }

  /** The message of the error the tunnel has ended with, or 'without an error'. */
  async ended(timeoutMs?: number): Promise<string> {
    const [, message = ''] = await this.process.waitFor(/^\{"ended":"(.*)"\}$/m, timeoutMs);
    return message;
  }
}

export interface PlainPair {
  lab: Lab;
  here: PlainEnd;
  there: PlainEnd;
}

export interface PlainPairOptions {
  here?: PlainEndOptions;
  there?: PlainEndOptions;
  /** Of both vNICs. Default 1420. */
  mtu?: number;
  outside?: keyof typeof OUTSIDE;
  /** With the outer addresses of two-hosts.ts. Default: those, with a cable between them. */
  hosts?: Hosts;
}

/** Both tunnels run, their links are up, and nothing has been sent. */
export async function startPlainPair(t: TestContext, options: PlainPairOptions = {}): Promise<PlainPair> {
  const { outside = 'IPv4', mtu = 1420 } = options;
  const { lab, here, there } = options.hosts ?? (await twoHosts(t));
  const start = async (host: LabHost, side: Side, far: Side): Promise<PlainEnd> => {
    const end = new PlainEnd(host);
    const { offload = true, sendBufferBytes, ...own } = options[side] ?? {};
    const plain = { peer: { address: OUTSIDE[outside][far], port: PORT }, ...own };
    await end.ask({ command: 'open', name: 'tun0', port: PORT, offload, sendBufferBytes });
    await host.ip(`link set tun0 mtu ${mtu}`, 'link set tun0 addrgenmode none');
    await end.ask({ command: 'start', mtu, options: plain });
    await host.configure('tun0', [`${INSIDE.IPv4[side]}/24`, `${INSIDE.IPv6[side]}/64`]);
    return end;
  };
  const [one, other] = await Promise.all([start(here, 'here', 'there'), start(there, 'there', 'here')]);
  return { lab, here: one, there: other };
}

/** What the kernel of the host has counted: fields of /proc/net/snmp, netstat and snmp6 by their names in nstat(8). */
export async function kernelCounters(host: LabHost): Promise<Record<string, number>> {
  const { stdout } = await host.run('nstat', ['-asz', '--json']);
  return (JSON.parse(stdout) as { kernel: Record<string, number> }).kernel;
}

/** Of TCP, UDP, ICMP and IP, of both families. */
export async function checksumErrors(host: LabHost): Promise<Record<string, number>> {
  const all = Object.entries(await kernelCounters(host));
  return Object.fromEntries(all.filter(([name, count]) => /Csum|InHdrErrors/.test(name) && count > 0));
}

/** iperf3: a server in one host, measurements by a client in another. */
import type { LabHost } from './host.js';
import type { LabProcess } from './process.js';
import { PROGRAMS, peerEnvironment } from './unpacked-peers.js';

export interface IperfOptions {
  /** Default 3. */
  seconds?: number;
  /** Default 1. */
  streams?: number;
  /** As fast as it can, with datagrams of so many bytes; TCP when absent. */
  udpBytes?: number;
  /** The server sends. */
  reverse?: boolean;
  port?: number;
}

export interface IperfResult {
  /** What arrived. */
  bitsPerSecond: number;
  bytes: number;
  seconds: number;
  /** TCP only, 0 for UDP. */
  retransmits: number;
  /** UDP only, 0 for TCP. */
  lostPercent: number;
}

const PORT = 5201;

/** Serves one measurement after another at the address. Returns when it listens. */
export async function startIperf(host: LabHost, address: string, port = PORT): Promise<LabProcess> {
  const args = ['--server', '--bind', address, '--port', String(port), '--forceflush'];
  const server = host.spawn(PROGRAMS.iperf3, args, { env: peerEnvironment() });
  await server.waitFor(/Server listening on/);
  return server;
}

export async function iperf(host: LabHost, server: string, options: IperfOptions = {}): Promise<IperfResult> {
  const { seconds = 3, streams = 1, udpBytes, reverse = false, port = PORT } = options;
  const udp = udpBytes === undefined ? [] : ['--udp', '--bitrate', '0', '--length', String(udpBytes)];
  const words = ['--client', server, '--port', String(port), '--time', String(seconds), '--parallel', String(streams)];
  const args = [...words, ...udp, ...(reverse ? ['--reverse'] : []), '--json'];
  const run = { env: peerEnvironment(), timeoutMs: (seconds + 300) * 1000, check: false };
  const { stdout } = await host.run(PROGRAMS.iperf3, args, run);
  const { error, end } = JSON.parse(stdout) as IperfOutput;
  if (error !== undefined || end === undefined) throw new Error(`iperf3 to ${server}: ${error}`);
  // For UDP `sum` has what was sent and how much of it was lost on the way.
  const { sum, sum_sent, sum_received } = end;
  if (udpBytes === undefined || sum === undefined) {
    const { bits_per_second: bitsPerSecond = 0, bytes = 0, seconds: took = 0 } = sum_received ?? {};
    return { bitsPerSecond, bytes, seconds: took, retransmits: sum_sent?.retransmits ?? 0, lostPercent: 0 };
  }
  const arrived = ((sum.packets ?? 0) - (sum.lost_packets ?? 0)) * udpBytes;
  const took = sum.seconds ?? 0;
  return {
    bitsPerSecond: (arrived * 8) / took,
    bytes: arrived,
    seconds: took,
    retransmits: 0,
    lostPercent: sum.lost_percent ?? 0,
  };
}

interface IperfSum {
  bits_per_second?: number;
  bytes?: number;
  seconds?: number;
  retransmits?: number;
  packets?: number;
  lost_packets?: number;
  lost_percent?: number;
}

interface IperfOutput {
  error?: string;
  end?: { sum?: IperfSum; sum_sent?: IperfSum; sum_received?: IperfSum };
}

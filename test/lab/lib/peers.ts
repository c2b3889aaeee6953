/**
 * Servers for the hosts of a lab. Each runs in one process (peer.ts) until the lab closes or `kill()`, and is ready when the
 * promise resolves.
 */
import type { LabHost } from './host.js';
import type { LabProcess } from './process.js';
import type { PeerSpecification } from './servers/specification.js';

const SCRIPT = 'dist/test/lab/lib/peer.js';

export async function startPeer(host: LabHost, ...servers: PeerSpecification[]): Promise<LabProcess> {
  const process = host.spawnNode(SCRIPT, [JSON.stringify(servers)]);
  await process.waitFor(/^ready$/m);
  return process;
}

export interface TunnelPeerOptions {
  /** UDP port for the tunnel datagrams. */
  port: number;
  /** Name of the TUN at the far end. */
  device: string;
  /** The far end's own addresses, such as `10.9.0.1/24`. */
  addresses: readonly string[];
  /** Where the far end is; default the same host, whose servers then see the tunnel's source addresses. */
  exit?: LabHost;
}

/** The VPN server's side: UDP datagrams become packets of a TUN in `exit`, and the other way round. */
export async function startTunnelPeer(host: LabHost, options: TunnelPeerOptions): Promise<LabProcess> {
  const { port, device, addresses, exit = host } = options;
  const moveTo = exit === host ? {} : { moveTo: exit.pid };
  const peer = await startPeer(host, { kind: 'tunnel', port, device, ...moveTo });
  await exit.ip(`link set ${device} addrgenmode none`);
  await exit.configure(device, addresses);
  return peer;
}

/**
 * The kinds of tunnel that are measured, all at once between the same two hosts:
 *
 *   left                                    right
 *   eth0  192.0.2.1/24 ──────────────────── eth0  192.0.2.2/24       plain veth
 *   wg0   10.7.0.1 ════════════════════════ wg0   10.7.0.2           wireguard-go
 *   ovpn0 10.8.0.1 ════════════════════════ ovpn0 10.8.0.2           OpenVPN
 *   our0  10.9.0.1 ════════════════════════ our0  10.9.0.2           this tunnel
 *   our1  10.11.0.1 ═══════════════════════ our1  10.11.0.2          this tunnel with wireguard-go's MTU
 */
import { tunnelMtu } from '../../src/cli/wireguard/mtu.js';
import type { LabHost } from '../../test/lab/lib/host.js';
import { startIperf } from '../../test/lab/lib/iperf3.js';
import type { Lab } from '../../test/lab/lib/lab.js';
import { startOpenVpn } from '../../test/lab/lib/openvpn.js';
import { startOurTunnel } from '../../test/lab/lib/our-tunnel.js';
import { startWireGuardGo, type WireGuardPeer, wireGuardKeys } from '../../test/lab/lib/wireguard-go.js';

export const KINDS = ['veth', 'wireguard-go', 'openvpn', 'this', 'this-1420'] as const;
export type Kind = (typeof KINDS)[number];

export const TITLES: Record<Kind, string> = {
  veth: 'plain veth',
  'wireguard-go': 'wireguard-go',
  openvpn: 'OpenVPN',
  this: 'this tunnel',
  'this-1420': 'this tunnel, MTU 1420',
};

/** Each kind of WireGuard has the MTU that it chooses itself for such a link; wireguard-go's is 1420. */
const OUR_MTU = tunnelMtu([1500], false);

export interface Tunnel {
  kind: Kind;
  left: LabHost;
  right: LabHost;
  /** Of `right`, through this tunnel. */
  target: string;
  /** On both sides. */
  device: string;
  /** The processes that carry packets; none for the veth. */
  pids: { left: number; right: number } | undefined;
  /** In order, so that profiles are written. */
  stop(): Promise<void>;
}

interface Hosts {
  left: LabHost;
  right: LabHost;
}

/** `nodeOptions` are for the ends of this tunnel. An iperf3 server listens at each target. */
export async function buildTunnels(
  lab: Lab,
  kinds: readonly Kind[],
  nodeOptions: readonly string[],
): Promise<Tunnel[]> {
  const [left, right] = await Promise.all([lab.host('left'), lab.host('right')]);
  await lab.link(left, 'eth0', ['192.0.2.1/24'], right, 'eth0', ['192.0.2.2/24']);
  const hosts = { left, right };
  const ours = (mtu: number): Start => {
    return (host, name, options) => startOurTunnel(host, name, { ...options, mtu, nodeOptions });
  };
  const build: Record<Kind, () => Promise<Omit<Tunnel, 'kind' | 'left' | 'right'>>> = {
    veth: async () => ({ target: '192.0.2.2', device: 'eth0', pids: undefined, stop: async () => {} }),
    'wireguard-go': () => wireGuard(hosts, 'wg0', 7, startWireGuardGo),
    openvpn: () => openVpn(hosts),
    this: () => wireGuard(hosts, 'our0', 9, ours(OUR_MTU)),
    'this-1420': () => wireGuard(hosts, 'our1', 11, ours(1420)),
  };
  const tunnels: Tunnel[] = [];
  for (const kind of kinds) {
    const tunnel = { kind, ...hosts, ...(await build[kind]()) };
    await startIperf(right, tunnel.target);
    tunnels.push(tunnel);
  }
  return tunnels;
}

type Start = (
  host: LabHost,
  name: string,
  options: { keys: ReturnType<typeof wireGuardKeys>; listenPort: number; addresses: string[]; peers: WireGuardPeer[] },
) => Promise<{ process: { pid: number }; stop(): Promise<void> }>;

async function wireGuard({ left, right }: Hosts, device: string, net: number, start: Start) {
  const [listenPort, leftKeys, rightKeys] = [51800 + net, wireGuardKeys(), wireGuardKeys()];
  const peer = (keys: typeof leftKeys, number: number): WireGuardPeer => ({
    publicKey: keys.publicKey,
    endpoint: `192.0.2.${number}:${listenPort}`,
    allowedIps: [`10.${net}.0.${number}/32`],
  });
  const onRight = await start(right, device, {
    keys: rightKeys,
    listenPort,
    addresses: [`10.${net}.0.2/24`],
    peers: [peer(leftKeys, 1)],
  });
  const onLeft = await start(left, device, {
    keys: leftKeys,
    listenPort,
    addresses: [`10.${net}.0.1/24`],
    peers: [peer(rightKeys, 2)],
  });
  const pids = { left: onLeft.process.pid, right: onRight.process.pid };
  const stop = async () => {
    await Promise.all([onLeft.stop(), onRight.stop()]);
  };
  return { target: `10.${net}.0.2`, device, pids, stop };
}

async function openVpn({ left, right }: Hosts) {
  const name = 'ovpn0';
  const { server, client } = await startOpenVpn(
    { host: right, name, ipv4: '10.8.0.2', ipv6: 'fd08::2', outside: '192.0.2.2', port: 1194 },
    { host: left, name, ipv4: '10.8.0.1', ipv6: 'fd08::1' },
  );
  const stop = async () => {
    await Promise.all([client.kill(), server.kill()]);
  };
  return { target: '10.8.0.2', device: name, pids: { left: client.pid, right: server.pid }, stop };
}

/** `vpnctl status`: what VPNs are up, as the service has it, and for the caller's own tunnels what their processes tell. */
import type { ServiceStatus, VpnStatus } from '../ipc/methods.js';
import { findTunnels } from './control.js';
import { type TunnelStatus, tunnelLines } from './tunnel-status.js';

export interface VpnWithTunnel extends VpnStatus {
  tunnel?: TunnelStatus;
}

export type StatusWithTunnels = Omit<ServiceStatus, 'vpns'> & { vpns: VpnWithTunnel[] };

/** The service's VPNs, with the tunnels of this user that answer. */
export async function withTunnels(status: ServiceStatus): Promise<StatusWithTunnels> {
  if (!status.vpns.some(({ isLegacy }) => isLegacy)) return status;
  const uid = process.geteuid?.();
  const found = await findTunnels();
  const vpns = status.vpns.map((vpn): VpnWithTunnel => {
    const own = vpn.uid === uid ? found.find((tunnel) => tunnel.status.link === vpn.link) : undefined;
    return own ? { ...vpn, tunnel: own.status } : vpn;
  });
  return { ...status, vpns };
}

/** As lines of text. */
export function statusLines({ vpns }: { vpns: readonly VpnWithTunnel[] }, nowMs: number): string[] {
  if (vpns.length === 0) return ['no VPN is up'];
  return vpns.flatMap((vpn) => [row(vpn), ...(vpn.tunnel ? linesOf(vpn.tunnel, nowMs) : [])]);
}

/** The process runs since before an update, perhaps. */
function linesOf(tunnel: TunnelStatus, nowMs: number): string[] {
  try {
    return tunnelLines(tunnel, nowMs);
  } catch {
    return ["  its process says nothing that this vpnctl understands: another version's?"];
  }
}

function row({ link, uid, pid, program, since, addresses, dnsAddresses, mtu }: VpnStatus): string {
  const dns = dnsAddresses.length > 0 ? `  dns ${dnsAddresses.join(' ')}` : '';
  return `${link}  uid ${uid}  ${program} (${pid})  ${addresses.join(' ')}  mtu ${mtu}${dns}  since ${since}`;
}

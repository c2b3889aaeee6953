/**
 * `vpnctl status`: what VPNs are up, as the service has it, and for the caller's own tunnels what their processes tell. Either can be
 * there without the other.
 */
import type { ServiceStatus, VpnStatus } from '../ipc/methods.js';
import { findTunnels, lookForTunnels } from './control.js';
import { type TunnelStatus, tunnelLines } from './tunnel-status.js';

export interface VpnWithTunnel extends VpnStatus {
  tunnel?: TunnelStatus;
  /** Why there is no `tunnel` although there should be one, in a sentence. */
  tunnelProblem?: string;
}

export type StatusWithTunnels = Omit<ServiceStatus, 'vpns'> & { vpns: VpnWithTunnel[] };

/** The service's VPNs, with the tunnels of this user. */
export async function withTunnels(status: ServiceStatus): Promise<StatusWithTunnels> {
  if (!status.vpns.some(({ isLegacy }) => isLegacy)) return status;
  const uid = process.geteuid?.();
  const { found, silent } = await lookForTunnels();
  const vpns = status.vpns.map((vpn): VpnWithTunnel => {
    if (vpn.uid !== uid || !vpn.isLegacy) return vpn;
    const own = found.find((tunnel) => tunnel.status.link === vpn.link);
    if (own) return { ...vpn, tunnel: own.status };
    const tunnelProblem = silent.has(vpn.link)
      ? `its process ${vpn.pid} does not answer: it hangs, or somebody has stopped it; vpnctl down ends its VPN`
      : `its process ${vpn.pid} cannot be asked: its sockets are gone with a session, or it is no vpnctl; vpnctl down ends its VPN`;
    return { ...vpn, tunnelProblem };
  });
  return { ...status, vpns };
}

/** Tunnels that go on while the service is gone. */
export async function tunnelsAlone(): Promise<TunnelStatus[]> {
  return (await findTunnels()).map(({ status }) => status);
}

/** As lines of text. */
export function statusLines({ vpns, lockdown = [] }: Partial<StatusWithTunnels>, nowMs: number): string[] {
  const warned = ({ warnings = [] }: VpnStatus) => warnings.map((warning) => `  warning: ${warning}`);
  const rows = (vpns ?? []).flatMap((vpn) => [
    row(vpn),
    ...warned(vpn),
    ...(vpn.tunnel ? linesOf(vpn.tunnel, nowMs) : []),
    ...(vpn.tunnelProblem === undefined ? [] : [`  ${vpn.tunnelProblem}`]),
  ]);
  return [...(rows.length > 0 ? rows : ['no VPN is up']), ...lockdown.map(lockdownLine)];
}

/** As lines of text, for tunnels without a service. */
export function aloneLines(tunnels: readonly TunnelStatus[], nowMs: number): string[] {
  return tunnels.flatMap((tunnel) => [
    `${tunnel.link}  process ${Number(tunnel.pid)}  since ${tunnel.since}  goes on without the service`,
    ...linesOf(tunnel, nowMs),
  ]);
}

function lockdownLine(uid: number): string {
  return `lockdown  ${uid === 0 ? 'everyone' : `uid ${uid}`}: what no VPN covers is blocked, but for local networks`;
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

/**
 * `vpnctl down [NAME|LINK]`: asks the tunnel's process to end, and waits until it has. A process that cannot be asked, because its
 * socket went with the session that had it, ends when its VPN is destroyed, which any process of the user may do.
 */
import type { ServiceConnection } from '../ipc/service-connection.js';
import { createVpnConnection } from '../vpn/vpn.js';
import { ask, type FoundTunnel, findTunnels } from './control.js';

/** The commands of a file on the way down may take their time. */
const PATIENCE_MS = 300_000;

/** Lines to print, and the exit code. Rejects with a BusinessError. */
export async function down(
  which: string | undefined,
  service: () => ServiceConnection,
): Promise<{ lines: string[]; exitCode: number }> {
  const found = (await findTunnels()).filter((tunnel) => which === undefined || isMeant(tunnel, which));
  if (found.length === 0) return downWithout(which, service);
  const lines: string[] = [];
  let exitCode = 0;
  for (const { path, status } of found) {
    const { problem } = await ask(path, 'down', PATIENCE_MS).catch((error: Error) => ({ problem: error.message }));
    lines.push(`${status.name} (${status.link}): down${problem === undefined ? '' : `, but: ${problem}`}`);
    if (problem !== undefined) exitCode = 1;
  }
  return { lines, exitCode };
}

function isMeant({ status: { name, file, link } }: FoundTunnel, which: string): boolean {
  return which === name || which === link || which === file || which === `${name}.conf`;
}

/** The built-in client marks its VPNs; another program's is not ours to end. */
async function downWithout(
  which: string | undefined,
  service: () => ServiceConnection,
): Promise<{ lines: string[]; exitCode: number }> {
  const connection = service();
  const { vpns } = await connection.call('status', {});
  connection.shutdown();
  const uid = process.geteuid?.();
  const own = vpns.find((vpn) => vpn.uid === uid && (which === undefined || which === vpn.link || which === vpn.vpnId));
  if (own?.isLegacy) {
    await createVpnConnection({}).destroy();
    return { lines: [`${own.vpnId ?? own.link} (${own.link}): down`], exitCode: 0 };
  }
  if (own) {
    return { lines: [`${own.link} is the VPN of ${own.program} (${own.pid}), which has to end it`], exitCode: 1 };
  }
  // wg-quick, too, takes it for a mistake when a tunnel that is named is not up.
  if (which !== undefined) return { lines: [`${which} is not up`], exitCode: 1 };
  return { lines: ['nothing is up'], exitCode: 0 };
}

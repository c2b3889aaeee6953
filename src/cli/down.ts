/**
 * `vpnctl down [FILE|NAME|LINK]`: asks the tunnel's process to end, and waits until it has. A process that cannot be asked, because
 * its socket went with the session that had it, ends when its VPN is destroyed, which any process of the user may do.
 */
import { realpathSync } from 'node:fs';
import { resolve } from 'node:path';
import type { ServiceConnection } from '../ipc/service-connection.js';
import { createVpnConnection } from '../vpn/vpn.js';
import { ask, findTunnels } from './control.js';
import type { TunnelStatus } from './tunnel-status.js';
import { nameOf } from './wireguard/find-file.js';

/** The commands of a file on the way down may take their time. */
const PATIENCE_MS = 300_000;

/** For `down --json`. */
export interface DownResult {
  ended: { name: string; link: string; problem?: string }[];
  /** Why nothing was ended. */
  problem?: string;
}

export interface DownOutcome {
  lines: string[];
  result: DownResult;
  exitCode: number;
}

/** Rejects with a BusinessError. */
export async function down(which: string | undefined, service: () => ServiceConnection): Promise<DownOutcome> {
  const found = (await findTunnels()).filter(({ status }) => which === undefined || isMeant(status, which));
  if (found.length === 0) return downWithout(which, service);
  const ended: DownResult['ended'] = [];
  for (const { path, status } of found) {
    const { problem } = await ask(path, 'down', PATIENCE_MS).catch((error: Error) => ({ problem: error.message }));
    ended.push({ name: status.name, link: status.link, ...(problem !== undefined && { problem }) });
  }
  return outcome(ended);
}

/**
 * Whatever may be said of a tunnel is enough: its name or link, its file with or without the folder, and from any folder. A word
 * with a "/" is a path and nothing else.
 */
export function isMeant({ name, file, link }: Pick<TunnelStatus, 'name' | 'file' | 'link'>, which: string): boolean {
  if (which === file || samePath(which, file)) return true;
  return !which.includes('/') && [name, link].some((each) => each === which || each === nameOf(which));
}

/** Both may be links, or be gone. */
function samePath(one: string, other: string): boolean {
  if (resolve(one) === other) return true;
  try {
    return realpathSync(one) === realpathSync(other);
  } catch {
    return false;
  }
}

function outcome(ended: DownResult['ended']): DownOutcome {
  const lines = ended.map(
    ({ name, link, problem }) => `${name} (${link}): down${problem === undefined ? '' : `, but: ${problem}`}`,
  );
  return { lines, result: { ended }, exitCode: ended.some(({ problem }) => problem !== undefined) ? 1 : 0 };
}

/** The built-in client marks its VPNs; another program's is not ours to end. */
async function downWithout(which: string | undefined, service: () => ServiceConnection): Promise<DownOutcome> {
  const connection = service();
  const { vpns } = await connection.call('status', {});
  connection.shutdown();
  const uid = process.geteuid?.();
  const isNamed = (...names: (string | undefined)[]) =>
    which === undefined || names.includes(which) || names.includes(nameOf(which));
  const own = vpns.find((vpn) => vpn.uid === uid && isNamed(vpn.link, vpn.vpnId));
  if (own?.isLegacy) {
    await createVpnConnection({}).destroy();
    return outcome([{ name: own.vpnId ?? own.link, link: own.link }]);
  }
  const nothing = (problem: string, exitCode: number) => ({
    lines: [problem],
    result: { ended: [], problem },
    exitCode,
  });
  if (own) return nothing(`${own.link} is the VPN of ${own.program} (${own.pid}), which has to end it`, 1);
  // wg-quick, too, takes it for a mistake when a tunnel that is named is not up.
  return which === undefined ? nothing('nothing is up', 0) : nothing(`${which} is not up`, 1);
}

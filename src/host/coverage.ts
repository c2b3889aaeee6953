/**
 * Whose sockets a VPN covers: the question that the routing rules (plan-rules.ts) answer for packets, answered for a socket
 * from before the VPN, by its user, its cgroup and its mark. Where the socket leads to is not asked here.
 */
import { statSync } from 'node:fs';
import { attempt } from '../kernel/absence.js';
import { walkCgroups } from '../kernel/cgroup.js';
import type { SocketEntry } from '../kernel/inet-diag.js';
import type { Family } from '../model/vpn-types.js';
import { BYPASS_MARK, SELECTION_FIELD } from './numbers.js';

/** An application list as the kernel sees it. Cgroups are those of the selectors and all below, see `cgroupIds`. */
export interface ApplicationSet {
  readonly uids: ReadonlySet<number>;
  readonly cgroups: ReadonlySet<bigint>;
}

export interface Coverage {
  /** The uid whose VPN it is; 0 covers every user without a VPN of its own. */
  readonly owner: number;
  readonly usersWithOwnVpn: ReadonlySet<number>;
  /** Only these; absent: everyone. An empty one is nobody. */
  readonly trusted?: ApplicationSet;
  /** All but these. */
  readonly blocked?: ApplicationSet;
  /** Marks of the VPN's own selections. */
  readonly selections: { readonly covered?: number; readonly blocked?: number };
  /** It has DNS servers: whatever is connected to port 53 is its affair, wherever that leads. */
  readonly hasDns?: boolean;
  /** The vNIC's addresses: what has one of them is inside already. */
  readonly addresses: ReadonlySet<string>;
  /**
   * Whether what goes to this address is the VPN's affair, carried or refused: not so for local networks, excluded prefixes,
   * and whatever a VPN without a default route has no route for.
   */
  takes(family: Family, address: string): boolean;
}

/**
 * Whether the socket's packets belong into this VPN. Of a socket whose user is not known (kernels before 6.17 do not say whose
 * an orphan is) the answer is yes if it is for any user it may have been: better a connection of somebody else's that loses
 * its last bytes, when its process has closed it already, than covered data outside the tunnel.
 */
export function covers(coverage: Coverage, socket: Pick<SocketEntry, 'uid' | 'mark' | 'cgroup'>): boolean {
  if ((socket.mark & BYPASS_MARK) !== 0) return false;
  const { uid, cgroup } = socket;
  const { owner, usersWithOwnVpn, trusted, blocked, selections } = coverage;
  if (uid !== undefined && (owner === 0 ? usersWithOwnVpn.has(uid) : uid !== owner)) return false;
  const selection = socket.mark & SELECTION_FIELD;
  const isIn = (list: ApplicationSet | undefined, mark: number | undefined): boolean =>
    (selection !== 0 && selection === mark) || (cgroup !== undefined && list?.cgroups.has(cgroup) === true);
  if (isIn(blocked, selections.blocked) || (uid !== undefined && blocked?.uids.has(uid))) return false;
  if (trusted === undefined || isIn(trusted, selections.covered)) return true;
  return uid === undefined ? trusted.uids.size > 0 : trusted.uids.has(uid);
}

/** A cgroup and all below it, given its directory, by what the kernel calls them. Throws KernelError; ENOENT when it has gone. */
export async function cgroupIds(directory: string): Promise<Set<bigint>> {
  const ids = new Set([attempt('stat', directory, () => statSync(directory, { bigint: true }).ino)]);
  for await (const { id } of walkCgroups(directory)) ids.add(id);
  return ids;
}

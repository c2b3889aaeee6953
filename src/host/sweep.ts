/**
 * Removes what a dead predecessor left in this network namespace, recognised by its tags alone (numbers.ts): rules by
 * priority band and protocol, routes by table and protocol, links by group, the nft table and BPF programs by name. The
 * links go first, then the sockets that have their addresses, then the rules that lead there, as when a VPN is taken down.
 */
import { sweepSocketMarks } from '../kernel/bpf.js';
import { isWithoutBpf } from '../kernel/bpf-problem.js';
import { cgroup2Root } from '../kernel/cgroup.js';
import { liveNetworkNamespaces } from '../kernel/net-namespaces.js';
import type { NetlinkSocket } from '../kernel/netlink-socket.js';
import { type Nftables, nftablesAvailable } from '../kernel/nftables.js';
import { deleteLinkGroup } from '../kernel/rtnetlink.js';
import { listBothFamilies, listLinks, listRoutes, listRules } from '../kernel/rtnetlink-list.js';
import { isUnspecified } from '../model/address.js';
import {
  DYING_LINK_GROUP,
  inodeOfProgram,
  isLockdownPriority,
  isOurTable,
  LAN_TABLE,
  LINK_GROUP,
  NFT_TABLE,
  ROUTE_PROTOCOL,
} from './numbers.js';
import { isOurRule, isRuleForLocal } from './our-rules.js';

/** How many of each were found and removed. */
export interface Swept {
  links: number;
  rules: number;
  routes: number;
  tables: number;
  programs: number;
}

/**
 * `programs`: their names begin so, and this one (an id) is the sweeper's. `isLockedDown`: what lockdown needs stays, its rules and
 * the routes to local networks. `endFrom` ends the sockets that have one of these addresses.
 */
export async function sweep(
  socket: NetlinkSocket,
  nftables: () => Nftables,
  programs: { prefix: string; own: number | undefined },
  isLockedDown: boolean,
  endFrom: (addresses: ReadonlySet<string>) => Promise<unknown>,
): Promise<Swept> {
  const links = (await listLinks(socket)).filter(
    ({ group }) => group === LINK_GROUP || group === DYING_LINK_GROUP,
  ).length;
  if (links > 0) await socket.batch([deleteLinkGroup(LINK_GROUP), deleteLinkGroup(DYING_LINK_GROUP)]);

  const rules = (await listBothFamilies((family) => listRules(socket, family))).filter(
    (rule) => isOurRule(rule) && !(isLockedDown && (isLockdownPriority(rule.priority) || isRuleForLocal(rule))),
  );
  // Not from the links, which may have died before.
  const addresses = rules.flatMap(({ from }) => (from === undefined || isUnspecified(from) ? [] : [from]));
  await endFrom(new Set(addresses));
  // Lowest priority number first: what leads into a ladder goes before the ladder. Last what keeps local addresses local meanwhile.
  const inOrder = rules.sort((a, b) => a.priority - b.priority);
  const [local, others] = [true, false].map((isLocal) => inOrder.filter((rule) => isRuleForLocal(rule) === isLocal));
  await socket.batch([...(others ?? []), ...(local ?? [])].map((rule) => rule.remove));

  const routes = (await listBothFamilies((family) => listRoutes(socket, family))).filter(
    ({ table, protocol }) => isOurTable(table) && protocol === ROUTE_PROTOCOL && !(isLockedDown && table === LAN_TABLE),
  );
  await socket.batch(routes.map((route) => route.remove));

  const families = nftablesAvailable() ? nftables().familiesOf(NFT_TABLE) : [];
  if (families.length > 0) nftables().run(families.map((family) => `delete table ${family} ${NFT_TABLE}`).join('\n'));
  return {
    links,
    rules: rules.length,
    routes: routes.length,
    tables: families.length,
    programs: sweepPrograms(programs),
  };
}

function sweepPrograms({ prefix, own }: { prefix: string; own: number | undefined }): number {
  const root = cgroup2Root();
  if (root === undefined) return 0;
  const alive = liveNetworkNamespaces();
  // The root cgroup takes 64 programs of a kind: those of a namespace that is gone would stay for good.
  const isDead = (name: string): boolean => {
    const inode = inodeOfProgram(name);
    return inode !== undefined && alive !== undefined && !alive.has(inode);
  };
  try {
    const isLeft = (name: string, id: number): boolean => id !== own && (name.startsWith(prefix) || isDead(name));
    return sweepSocketMarks(root, isLeft).length;
  } catch (error) {
    // Without the right to use BPF there is nothing of ours to find either: we could not have attached it.
    if (isWithoutBpf(error)) return 0;
    throw error;
  }
}

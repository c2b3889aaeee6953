/**
 * What stands between a socket with a mark and an address: no route, a rule or a route that says no, or a route that leads into a tunnel.
 * Asked of the kernel without any right (route-question.ts).
 */
import { NetlinkSocket } from '../kernel/netlink-socket.js';
import { askRoute, type MetRule, metRules, type RouteQuestion } from '../kernel/route-question.js';
import { listLinks } from '../kernel/rtnetlink-list.js';
import { KernelError } from '../model/errors.js';

export type { RouteQuestion } from '../kernel/route-question.js';

/** Kinds of links whose packets go on inside of others. `ppp` is none of them: to many machines it is the way out (DSL, mobile networks). */
const TUNNELS: ReadonlySet<string> = new Set([
  'tun',
  'wireguard',
  'amneziawg',
  'ovpn',
  'ovpn-dco',
  'gre',
  'ip6gre',
  'ipip',
  'ip6tnl',
  'sit',
  'vti',
  'vti6',
  'xfrm',
]);

export function isTunnelKind(kind: string): boolean {
  return TUNNELS.has(kind);
}
/** By what the kernel says, what a rule has said; EHOSTUNREACH is a route's alone. */
const RULE_SAYS: Readonly<Record<string, MetRule['action']>> = {
  ENETUNREACH: 'unreachable',
  EACCES: 'prohibit',
  EINVAL: 'blackhole',
};
const ROUTE_SAYS: Readonly<Record<string, string>> = {
  EHOSTUNREACH: 'unreachable',
  EACCES: 'prohibit',
  EINVAL: 'blackhole',
};
const TABLE_NAMES: Readonly<Record<number, string>> = { 253: 'default', 254: 'main', 255: 'local' };

export type Obstacle =
  /** Nothing leads there. `searched`: tables without a route; `rule`: the one that ends it; or else what a route says. */
  | { kind: 'none'; errnoName: string; searched: string[]; rule?: number; says?: string }
  | { kind: 'tunnel'; link: string; rule: number | undefined; table: string };

/** One after the other; undefined for those that have a way. Throws KernelError when the kernel cannot be asked. */
export async function obstacles(questions: readonly RouteQuestion[]): Promise<(Obstacle | undefined)[]> {
  const socket = new NetlinkSocket();
  try {
    const found: (Obstacle | undefined)[] = [];
    for (const question of questions) found.push(await obstacle(socket, question));
    return found;
  } finally {
    socket.close();
  }
}

async function obstacle(socket: NetlinkSocket, question: RouteQuestion): Promise<Obstacle | undefined> {
  const rules = () => metRules(socket, question, process.getuid?.() ?? 0);
  try {
    const { ifindex, table } = await askRoute(socket, question);
    const link = (await listLinks(socket)).find((each) => each.ifindex === ifindex);
    if (link === undefined || !isTunnelKind(link.kind)) return undefined;
    const rule = (await rules()).find((each) => each.action === 'lookup' && each.table === table);
    return { kind: 'tunnel', link: link.name, rule: rule?.priority, table: tableName(table) };
  } catch (error) {
    if (!(error instanceof KernelError) || error.call !== 'RTM_GETROUTE') throw error;
    const { errnoName } = error;
    const met = await rules();
    const end = met.findIndex(({ action }) => action !== undefined && action === RULE_SAYS[errnoName]);
    const searched = met.slice(0, end < 0 ? met.length : end).filter(({ action }) => action === 'lookup');
    const says = end < 0 ? ROUTE_SAYS[errnoName] : met[end]?.action;
    const rule = met[end]?.priority;
    return {
      kind: 'none',
      errnoName,
      searched: [...new Set(searched.map(({ table }) => tableName(table)))],
      ...(rule !== undefined && { rule }),
      ...(says !== undefined && { says }),
    };
  }
}

function tableName(table: number): string {
  return TABLE_NAMES[table] ?? String(table);
}

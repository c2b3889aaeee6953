/**
 * A host's network state as text, one fact a line, without what changes by itself: counters, handles, timers,
 * neighbours, interface numbers. Two equal texts: the host is as it was. Read with `ip`, `nft` and /proc, never with code
 * of our own, so that the proof does not depend on what it proves.
 */
import type { LabHost } from './host.js';

type Json = Record<string, unknown>;

const LISTINGS: readonly [section: string, args: readonly string[]][] = [
  ['link', ['-d', 'link', 'show']],
  ['address', ['address', 'show']],
  ['route4', ['-4', '-d', 'route', 'show', 'table', 'all']],
  ['route6', ['-6', '-d', 'route', 'show', 'table', 'all']],
  ['rule4', ['-4', 'rule', 'show']],
  ['rule6', ['-6', 'rule', 'show']],
];

const VOLATILE = new Set([
  'ifindex',
  'link_index',
  'link_netnsid',
  'stats',
  'stats64',
  'valid_life_time',
  'preferred_life_time',
  'expires',
  'cache',
  'users',
  'age',
  'gc_timer',
  'hello_timer',
  'tcn_timer',
  'topology_change_timer',
  'handle',
]);

/** Every per-interface setting of both families, and those of the host as a whole that a VPN could want to change. */
const SYSCTLS = `
cd /proc/sys/net
grep -Hs '' ipv4/conf/*/* ipv6/conf/*/* ipv4/ip_forward ipv4/fwmark_reflect ipv6/fwmark_reflect ipv4/tcp_fwmark_accept \\
  ipv4/ip_nonlocal_bind ipv4/ping_group_range ipv4/raw_l3mdev_accept ipv4/tcp_l3mdev_accept ipv4/udp_l3mdev_accept \\
  ipv4/fib_multipath_use_neigh netfilter/nf_conntrack_tcp_loose
ls -ld --time-style=+ /etc/resolv.conf | cut -d' ' -f1
sed 's/^/resolv.conf: /' /etc/resolv.conf
exit 0`;

export async function canonicalState(host: LabHost): Promise<string> {
  const [sysctls, ruleset, ...listings] = await Promise.all([
    host.run('sh', ['-c', SYSCTLS]),
    host.json<{ nftables?: Json[] }>('nft', ['-j', '-s', 'list', 'ruleset']),
    ...LISTINGS.map(([, args]) => host.json('ip', ['-j', ...args])),
  ]);
  const lines = LISTINGS.flatMap(([section], index) => {
    const objects = (listings[index] ?? []).filter((object) => Object.keys(object).length > 0);
    return objects.flatMap((object) => describe(section, object)).sort();
  });
  // The order of rules inside a chain has a meaning: kept as listed.
  const nft = (ruleset.nftables ?? []).filter((object) => !('metainfo' in object)).map(withoutWhatExpires);
  return [...lines, ...nft.map((object) => `nft ${stable(object)}`), ...sysctls.stdout.trimEnd().split('\n')].join(
    '\n',
  );
}

/** The elements of a set with a timeout come and go with the traffic, the flags of a table with the life of its owner. */
function withoutWhatExpires(object: Json): Json {
  if (object.table !== undefined) {
    const { flags, ...table } = object.table as Json & { flags?: unknown };
    return { table: { ...table, ...(String(flags).includes('dormant') && { flags }) } };
  }
  const { elem: _, ...set } = (object.set ?? {}) as Json & { flags?: string[] };
  return set.flags?.includes('timeout') ? { set } : object;
}

/** `- line` for what is only in `before`, `+ line` for what is only in `after`; empty when equal. */
export function diffState(before: string, after: string): string[] {
  const left = before.split('\n');
  const right = after.split('\n');
  const diff = [...without(left, right).map((line) => `- ${line}`), ...without(right, left).map((line) => `+ ${line}`)];
  return diff.length === 0 && before !== after ? ['~ the same lines in another order'] : diff;
}

function without(lines: readonly string[], others: readonly string[]): string[] {
  const counts = new Map<string, number>();
  for (const line of others) counts.set(line, (counts.get(line) ?? 0) + 1);
  return lines.filter((line) => {
    const left = counts.get(line) ?? 0;
    counts.set(line, left - 1);
    return left <= 0;
  });
}

/** A link is long: one line a property, so that a difference is short. Routes and rules are one line each. */
function describe(section: string, object: Json): string[] {
  if (typeof object.ifname !== 'string') return [`${section} ${stable(object)}`];
  const properties = Object.entries(object).filter(([key]) => !VOLATILE.has(key));
  return properties.map(([key, value]) => `${section} ${object.ifname} ${key} ${stable(value)}`);
}

/** JSON with sorted keys and without the volatile ones. */
function stable(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) => {
    if (typeof inner !== 'object' || inner === null || Array.isArray(inner)) return inner;
    const kept = Object.entries(inner).filter(([key]) => !VOLATILE.has(key));
    return Object.fromEntries(kept.sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}

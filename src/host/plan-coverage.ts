/** Which sockets a plan means: coverage.ts' questions, answered from the plan and from what stands beside it. */
import { isAbsent } from '../kernel/absence.js';
import { cgroup2Root, resolveCgroup } from '../kernel/cgroup.js';
import { coverage as prefixCoverage } from '../model/on-link.js';
import type { Family } from '../model/vpn-types.js';
import type { AppSelector } from './applications.js';
import { type ApplicationSet, type Coverage, cgroupIds } from './coverage.js';
import type { LanRoute } from './links.js';
import { selectionMark } from './numbers.js';
import type { Plan, PlanInput } from './plan.js';
import type { Prefix } from './plan-routes.js';

/** `paths`: the standing cgroups of each list. */
export async function coverageOf(
  plan: Plan,
  { spec, trusted, blocked }: Pick<PlanInput, 'spec' | 'trusted' | 'blocked'>,
  paths: { covered: readonly string[]; blocked: readonly string[] },
  beside: { usersWithOwnVpn: ReadonlySet<number>; lan: readonly LanRoute[] },
): Promise<Coverage> {
  const { covered, blocked: kept } = plan.selections;
  return {
    owner: plan.owner,
    usersWithOwnVpn: beside.usersWithOwnVpn,
    ...(trusted.length > 0 && { trusted: await applications(trusted, paths.covered) }),
    ...(blocked.length > 0 && { blocked: await applications(blocked, paths.blocked) }),
    selections: {
      ...(covered !== undefined && { covered: selectionMark(covered) }),
      ...(kept !== undefined && { blocked: selectionMark(kept) }),
    },
    hasDns: plan.hasDns,
    addresses: new Set(spec.addresses.map(({ address }) => address)),
    takes: destinations(plan, beside.lan),
  };
}

async function applications(selectors: readonly AppSelector[], paths: readonly string[]): Promise<ApplicationSet> {
  const uids = new Set(selectors.flatMap((selector) => (selector.kind === 'uid' ? [selector.uid] : [])));
  const cgroups = new Set<bigint>();
  const root = cgroup2Root();
  for (const path of paths) {
    try {
      for (const id of await cgroupIds(resolveCgroup(path, root))) cgroups.add(id);
    } catch (error) {
      // One that has gone meanwhile has no processes.
      if (!isAbsent(error)) throw error;
    }
  }
  return { uids, cgroups };
}

/** Where prefixes of both kinds hold an address, it counts as the VPN's: a connection too many ends, none too few. */
function destinations(plan: Plan, lan: readonly LanRoute[]): Coverage['takes'] {
  const within = (prefixes: readonly Prefix[]) =>
    prefixCoverage(prefixes.map(({ destination, prefixLength }) => ({ address: destination, prefixLength })));
  const of = (family: Family) => {
    const { kind, explicit, excluded } = plan.shapes[family];
    const [goesIn, staysOut] = [
      within(explicit),
      within([...excluded, ...lan.filter((route) => route.family === family)]),
    ];
    return (address: string) => goesIn(address) || (kind !== 'some' && !staysOut(address));
  };
  const takes = { 1: of(1), 2: of(2) };
  return (family, address) => takes[family](address);
}

/**
 * Hosts with VRFs look the table `local` up last (`ip rule` 32765, Documentation/networking/vrf.rst). Rules of ours would then lead
 * what is for this host itself into a tunnel, loopback too. While theirs stands behind ours, one of our own is in front of all
 * of ours, and in front of it what they have for VRFs.
 */
import type { NetlinkSocket } from '../kernel/netlink-socket.js';
import { RT_TABLE_LOCAL } from '../kernel/rtnetlink.js';
import type { RuleEntry } from '../kernel/rule-entry.js';
import { FAMILIES, type Family } from '../model/vpn-types.js';
import { restoreObjects } from './kernel-objects.js';
import { isLocalPriority, LOCAL } from './numbers.js';
import type { Operation } from './operation.js';
import { isOurRule } from './our-rules.js';

/** The rules that are needed in front of ours. Pure. `rules`: all that stand, of one family. */
export function localRules(family: Family, rules: readonly RuleEntry[]): Operation[] {
  const others = rules.filter((rule) => !isOurRule(rule));
  const first = others.find((rule) => rule.action === 'lookup' && rule.table === RT_TABLE_LOCAL && rule.isForAll);
  const isBehind = ({ priority }: RuleEntry) => priority > LOCAL.local;
  if (first && !isBehind(first)) return [];
  const rule = { kind: 'rule', family, action: 'lookup' } as const;
  const isForVrfs = others.some((each) => each.isL3mdev && isBehind(each));
  return [
    ...(isForVrfs ? [{ ...rule, priority: LOCAL.vrf, isL3mdev: true }] : []),
    { ...rule, priority: LOCAL.local, table: RT_TABLE_LOCAL },
  ];
}

/** `isNeeded`: a VPN is up, or about to be. */
export async function syncLocalRules(
  netlink: NetlinkSocket,
  rules: readonly RuleEntry[],
  isNeeded: boolean,
): Promise<void> {
  const own = rules.filter((rule) => isOurRule(rule) && isLocalPriority(rule.priority));
  const wanted = isNeeded
    ? FAMILIES.flatMap((family) =>
        localRules(
          family,
          rules.filter((rule) => rule.family === family),
        ),
      )
    : [];
  await restoreObjects(netlink, wanted, 0);
  const isWanted = (rule: RuleEntry) =>
    wanted.some((each) => each.kind === 'rule' && each.family === rule.family && each.priority === rule.priority);
  await netlink.batch(own.filter((rule) => !isWanted(rule)).map(({ remove }) => remove));
}

/**
 * Hosts with VRFs look the table `local` up last (`ip rule` 32765, Documentation/networking/vrf.rst). Rules of ours would then lead
 * what is for this host itself into a tunnel, loopback too. While theirs stands behind ours, one of our own is in front of all
 * of ours, and in front of it what they have for VRFs. Pure.
 */
import { RT_TABLE_LOCAL } from '../kernel/rtnetlink.js';
import type { RuleEntry } from '../kernel/rule-entry.js';
import { FAMILIES, type Family } from '../model/vpn-types.js';
import { LOCAL } from './numbers.js';
import type { Operation } from './operation.js';
import { isRuleForLocal } from './our-rules.js';

/** The families whose rules look local addresses up behind ours. `others`: rules that are not ours, in the kernel's order. */
export function familiesWithLocalLast(others: readonly RuleEntry[]): Family[] {
  return FAMILIES.filter((family) => {
    const own = others.filter((rule) => rule.family === family);
    const first = own.find((rule) => rule.action === 'lookup' && rule.table === RT_TABLE_LOCAL && rule.isForAll);
    // Without any rule the kernel does not have the family.
    return own.length > 0 && (first === undefined || first.priority > LOCAL.last);
  });
}

/** `front`: the first priority of ours that stands in front of others', if any does. */
export function localRules(others: readonly RuleEntry[], front: number | undefined): Operation[] {
  const priority = Math.min(LOCAL.last, front === undefined ? LOCAL.last : front - 1);
  return familiesWithLocalLast(others).flatMap((family): Operation[] => {
    const rule = { kind: 'rule', family, action: 'lookup' } as const;
    const isForVrfs = others.some((each) => each.family === family && each.isL3mdev && each.priority > priority);
    return [
      ...(isForVrfs ? [{ ...rule, priority: priority - 1, isL3mdev: true }] : []),
      { ...rule, priority, table: RT_TABLE_LOCAL },
    ];
  });
}

/** Which of ours that stand are for local addresses and not among these. */
export function otherLocalRules(own: readonly RuleEntry[], wanted: readonly Operation[]): RuleEntry[] {
  const isWanted = (rule: RuleEntry) =>
    wanted.some((each) => each.kind === 'rule' && each.family === rule.family && each.priority === rule.priority);
  return own.filter((rule) => isRuleForLocal(rule) && !isWanted(rule));
}

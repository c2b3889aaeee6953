/** Which routing rules are ours, by their tags: protocol `kernel`, and what they do where nobody else's with it stands. */
import { RT_TABLE_LOCAL, RTPROT_KERNEL } from '../kernel/rtnetlink.js';
import type { RuleEntry } from '../kernel/rule-entry.js';
import { isFrontPriority, isLocalPriority, isOurPriority, PRIORITY } from './numbers.js';

type Tagged = Pick<RuleEntry, 'protocol' | 'priority' | 'table' | 'target'>;

export function isOurRule(rule: Tagged): boolean {
  const { protocol, priority, target } = rule;
  if (protocol !== RTPROT_KERNEL) return false;
  const isFront = (isFrontPriority(priority) || isLocalPriority(priority)) && target === PRIORITY.unmarked;
  return isOurPriority(priority) || isFront || isRuleForLocal(rule);
}

/** Of local-rule.ts: the table local, or that of a VRF. */
export function isRuleForLocal({ protocol, priority, table, target }: Tagged): boolean {
  const isLookup = target === undefined && (table === RT_TABLE_LOCAL || table === 0);
  return protocol === RTPROT_KERNEL && isLocalPriority(priority) && isLookup;
}

/** Which routing rules are ours, by their tags: protocol `kernel`, and a priority where nobody else's with it stands. */
import { RTPROT_KERNEL } from '../kernel/rtnetlink.js';
import type { RuleEntry } from '../kernel/rule-entry.js';
import { isFrontPriority, isLocalPriority, isOurPriority, PRIORITY } from './numbers.js';

export function isOurRule({
  protocol,
  priority,
  target,
}: Pick<RuleEntry, 'protocol' | 'priority' | 'target'>): boolean {
  if (protocol !== RTPROT_KERNEL) return false;
  return (
    isOurPriority(priority) || isLocalPriority(priority) || (isFrontPriority(priority) && target === PRIORITY.unmarked)
  );
}

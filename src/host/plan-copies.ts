/**
 * Which of the machine's own rules hold for protected sockets and answers: copies of those that lead outside, for the bypass bit
 * alone and in their order, in front of our look-up of main or, when theirs is in front of them, behind it. Pure.
 *
 * Not a goto to the rules themselves: among them are those of other VPNs, which would lead our tunnel into theirs, while root's
 * VPN leads theirs into ours.
 */
import { RT_TABLE_DEFAULT, RT_TABLE_LOCAL, RT_TABLE_MAIN } from '../kernel/rtnetlink.js';
import { copyOfRule, type Mark, type RuleCopy, type RuleEntry } from '../kernel/rule-entry.js';
import { IPV6 } from '../model/vpn-types.js';
import { BYPASS_MARK, FRONT, MARK_FIELD } from './numbers.js';
import type { Lead } from './others-tables.js';

/** A protected packet meets every one: others' rules in such numbers are a machine's own. */
const COPIES_MAXIMUM = 512;

export interface PlannedCopies {
  before: readonly RuleCopy[];
  behind: readonly RuleCopy[];
  /** What was left out, in words, with the reason. */
  leftOut: readonly string[];
}

interface Candidate {
  rule: RuleEntry;
  copy: RuleCopy | undefined;
  reason: string;
  isBehind: boolean;
}

/** `rules`: others' of one family, in the kernel's order. `leadOf`: where a table leads. `first`: from where on ours lead past theirs. */
export function planCopies(
  rules: readonly RuleEntry[],
  leadOf: (table: number) => Lead,
  first: number = FRONT.first,
): PlannedCopies {
  const candidates: Candidate[] = [];
  let isBehind = false;
  let passedOver = 0;
  let count = 0;
  for (const rule of rules) {
    const { priority, action, target = 0, table, isForAll } = rule;
    if (action === 'goto') passedOver = Math.max(passedOver, target);
    if (action === 'lookup' && table === RT_TABLE_MAIN && isForAll) isBehind = true;
    // Far in front of ours the packets meet the rule itself.
    else if (priority >= first && mayLead(rule)) {
      const lead = table === RT_TABLE_MAIN ? 'outside' : leadOf(table);
      if (lead === 'nowhere' && !rule.isL3mdev) continue;
      const reason = priority < passedOver ? 'a goto passes over it' : reasonAgainst(rule, lead);
      const copy = reason === '' ? copyOf(rule) : undefined;
      if (copy && ++count > COPIES_MAXIMUM)
        candidates.push({ rule, reason: 'there are too many', isBehind, copy: undefined });
      else candidates.push({ rule, reason, isBehind, copy });
    }
  }
  const used = withoutIdle(candidates);
  const copies = (where: boolean) => used.flatMap(({ copy, isBehind }) => (copy && isBehind === where ? [copy] : []));
  const before = unique(copies(false), []);
  return {
    before,
    behind: unique(copies(true), before),
    leftOut: used.flatMap(({ rule, reason }) => (reason === '' ? [] : [`${nameOf(rule)}: ${reason}`])),
  };
}

/** What others decide about local addresses, and where the kernel's own last rule leads, ours do by themselves. */
function mayLead({ action, table, isForAll, isL3mdev }: RuleEntry): boolean {
  if (action !== 'lookup') return false;
  return isL3mdev || (![0, RT_TABLE_LOCAL].includes(table) && !(table === RT_TABLE_DEFAULT && isForAll));
}

function reasonAgainst(rule: RuleEntry, lead: Lead): string {
  if (rule.isL3mdev) return 'it is for VRFs';
  if (lead === 'inside') return 'its table leads into what may be a tunnel';
  if (lead === 'unread') return 'there are more tables than vpnd looks at';
  if (lead === 'mixed') return 'a part of its table leads into what may be a tunnel';
  if (rule.isStrange) return 'it says something that vpnd does not know';
  // Both its mark and ours would have to be the opposite.
  if (rule.isInverted) return 'it is for what its selectors do not select';
  return markOf(rule) === undefined ? 'it asks for bits of the mark that are vpnd’s' : '';
}

function copyOf(rule: RuleEntry): RuleCopy | undefined {
  const mark = markOf(rule);
  return mark && copyOfRule(rule, mark);
}

/** With the bypass bit, and what it asks of bits that are not ours. That ours are absent is how others see their own packets. */
function markOf({ mark: { value, mask } }: RuleEntry): Mark | undefined {
  if ((value & mask & MARK_FIELD) !== 0) return undefined;
  const theirs = mask & ~MARK_FIELD;
  return { value: ((value & theirs) | BYPASS_MARK) >>> 0, mask: (theirs | BYPASS_MARK) >>> 0 };
}

/** To ask main earlier changes something only for what stands between, and behind main nothing. */
function withoutIdle(candidates: readonly Candidate[]): Candidate[] {
  const leads = ({ rule, copy }: Candidate) => copy !== undefined && rule.table !== RT_TABLE_MAIN;
  const last = candidates.findLastIndex((each) => leads(each) && !each.isBehind);
  return candidates.filter(({ rule, isBehind }, index) => rule.table !== RT_TABLE_MAIN || (!isBehind && index < last));
}

function unique(copies: readonly RuleCopy[], earlier: readonly RuleCopy[]): RuleCopy[] {
  const known = new Set(earlier.map(({ key }) => key));
  return copies.filter(({ key }) => !known.has(key) && known.add(key));
}

function nameOf({ family, priority, table }: RuleEntry): string {
  return `ip -${family === IPV6 ? 6 : 4} rule ${priority}${table === 0 ? '' : ` lookup ${table}`}`;
}

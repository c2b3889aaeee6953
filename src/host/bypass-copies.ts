/**
 * Keeps the copies of others' rules (plan-copies.ts) as they should be. What stands is read from the kernel each time: nothing
 * has to be remembered, and what somebody takes away or puts between is put right.
 */
import type { NetlinkSocket } from '../kernel/netlink-socket.js';
import { addRuleCopy, keyOfRule, type RuleCopy, type RuleEntry } from '../kernel/rule-entry.js';
import { FAMILIES, type Family } from '../model/vpn-types.js';
import { removeEntries } from './kernel-objects.js';
import { COPIES } from './numbers.js';
import type { OthersTables } from './others-tables.js';
import { isOurRule } from './our-rules.js';
import { planCopies } from './plan-copies.js';

type Places = readonly [number, number];

export class BypassCopies {
  readonly #netlink: NetlinkSocket;

  constructor(netlink: NetlinkSocket) {
    this.#netlink = netlink;
  }

  /**
   * `rules`: all that stand; `first`: from which priority on ours lead past others'. Without `tables` there is to be no copy. Returns
   * what could not be copied, in words.
   */
  async sync(rules: readonly RuleEntry[], tables: OthersTables | undefined, first?: number): Promise<string[]> {
    const leftOut: string[] = [];
    for (const family of FAMILIES) {
      const own = rules.filter((rule) => rule.family === family && isOurRule(rule));
      const planned = tables && planCopies(othersOf(rules, family), (table) => tables.leadOf(family, table), first);
      leftOut.push(...(planned?.leftOut ?? []));
      leftOut.push(...(await this.#syncPlaces(own, COPIES.before, planned?.before ?? [])));
      leftOut.push(...(await this.#syncPlaces(own, COPIES.behind, planned?.behind ?? [])));
    }
    return leftOut;
  }

  /**
   * A deletion takes the first rule that fits: so a list is never changed, but another one stands, and then all of it goes. What the
   * kernel refuses is told and no error: a rule of somebody else's shall not keep a VPN from coming up.
   */
  async #syncPlaces(own: readonly RuleEntry[], places: Places, wanted: readonly RuleCopy[]): Promise<string[]> {
    const [first, second] = places.map((priority) => own.filter((rule) => rule.priority === priority)) as [
      RuleEntry[],
      RuleEntry[],
    ];
    if (isList(first, wanted)) return this.#remove(second);
    if (isList(second, wanted)) return this.#remove(first);
    const isFirstFree = first.length === 0;
    if (!isFirstFree) await this.#remove(second);
    const failures = await this.#netlink.batch(wanted.map((copy) => addRuleCopy(copy, places[isFirstFree ? 0 : 1])));
    await this.#remove(isFirstFree ? second : first);
    return failures.map(({ error }) => error.message);
  }

  async #remove(rules: readonly RuleEntry[]): Promise<string[]> {
    await removeEntries(this.#netlink, rules);
    return [];
  }
}

function othersOf(rules: readonly RuleEntry[], family: Family): RuleEntry[] {
  return rules.filter((rule) => rule.family === family && !isOurRule(rule));
}

function isList(standing: readonly RuleEntry[], wanted: readonly RuleCopy[]): boolean {
  return standing.length === wanted.length && standing.every((rule, index) => keyOfRule(rule) === wanted[index]?.key);
}

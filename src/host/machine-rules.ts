/**
 * Rules of ours that depend on the machine's own: in front of others' (front-rules.ts), copies of others' (bypass-copies.ts), and
 * the one for local addresses (local-rule.ts). Looked at whenever somebody's rules, a table of theirs, or links have changed.
 */
import type { NetlinkSocket } from '../kernel/netlink-socket.js';
import { listRuleEntries, type RuleEntry } from '../kernel/rule-entry.js';
import { FAMILIES } from '../model/vpn-types.js';
import { BypassCopies } from './bypass-copies.js';
import { FrontRules } from './front-rules.js';
import { syncLocalRules } from './local-rule.js';
import { type OthersTables, readOthersTables, tablesOf } from './others-tables.js';
import { isOurRule } from './our-rules.js';
import type { Plan } from './plan.js';

/** Of which routes somebody wants to hear. */
export type WatchedTables = Pick<OthersTables, 'tables' | 'outside' | 'ways'>;

export interface MachineRulesSettings {
  /** From when this returns a change of these tables leads to another `sync`. */
  watch(tables: WatchedTables): void;
  /** Rules of others that protected sockets and answers do without, in words; told when the list changes. */
  onLeftOut(rules: readonly string[]): void;
}

export class MachineRules {
  readonly #netlink: NetlinkSocket;
  readonly #settings: MachineRulesSettings;
  readonly #front: FrontRules;
  readonly #copies: BypassCopies;
  /** Some of ours may stand. */
  #isUp = false;
  #watched: ReadonlySet<number> = new Set();
  #leftOut = '';

  constructor(netlink: NetlinkSocket, settings: MachineRulesSettings) {
    this.#netlink = netlink;
    this.#settings = settings;
    this.#front = new FrontRules(netlink);
    this.#copies = new BypassCopies(netlink);
  }

  /** Each VPN has a part in what stands in front of others' rules. */
  get hasFront(): boolean {
    return this.#front.isNeeded;
  }

  /** Links that lead outside by tables of others. */
  async outerLinks(): Promise<ReadonlySet<number>> {
    return (await readOthersTables(this.#netlink, others(await this.#list()))).outer;
  }

  /** Before the first VPN's own rules: what is local stays so from their first moment. */
  async prepare(): Promise<void> {
    await this.#prepare(await this.#list());
  }

  async #prepare(rules: readonly RuleEntry[]): Promise<void> {
    this.#isUp = true;
    await syncLocalRules(this.#netlink, rules, true);
    await this.#syncCopies(rules);
  }

  /** Brings all of it in line: nothing without VPNs. */
  async sync(plans: readonly Plan[]): Promise<void> {
    if (plans.length === 0 && !this.#isUp) return;
    const rules = await this.#list();
    if (plans.length > 0) await this.#prepare(rules);
    await this.#front.sync(plans, rules);
    if (plans.length > 0) return;
    await this.#copies.sync(rules, undefined);
    // Last: whatever leads into a tunnel is gone by now.
    await syncLocalRules(this.#netlink, rules, false);
    this.#watch({ tables: new Set(), outside: new Set(), ways: new Set() });
    this.#isUp = false;
  }

  async #syncCopies(rules: readonly RuleEntry[]): Promise<void> {
    const theirs = others(rules);
    const tables = tablesOf(theirs);
    // Before they are read: what changes from then on is told.
    if ([...tables].some((table) => !this.#watched.has(table))) {
      this.#watch({ tables, outside: new Set(), ways: new Set() });
    }
    const read = await readOthersTables(this.#netlink, theirs);
    const leftOut = await this.#copies.sync(rules, read);
    this.#watch(read);
    const text = leftOut.join('\n');
    if (text !== this.#leftOut && leftOut.length > 0) this.#settings.onLeftOut(leftOut);
    this.#leftOut = text;
  }

  #watch(tables: WatchedTables): void {
    this.#watched = tables.tables;
    this.#settings.watch(tables);
  }

  async #list(): Promise<RuleEntry[]> {
    const lists: RuleEntry[] = [];
    for (const family of FAMILIES) lists.push(...(await listRuleEntries(this.#netlink, family)));
    return lists;
  }
}

function others(rules: readonly RuleEntry[]): RuleEntry[] {
  return rules.filter((rule) => !isOurRule(rule));
}

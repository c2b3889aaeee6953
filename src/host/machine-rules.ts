/**
 * Rules of ours that depend on the machine's own: in front of others' (front-rules.ts), copies of others' (bypass-copies.ts), and
 * the one for local addresses (local-rule.ts). Looked at whenever somebody's rules, a table of theirs, or links have changed.
 */
import type { NetlinkSocket } from '../kernel/netlink-socket.js';
import { listRuleEntries, type RuleEntry } from '../kernel/rule-entry.js';
import { FAMILIES } from '../model/vpn-types.js';
import { BypassCopies } from './bypass-copies.js';
import { FrontRules } from './front-rules.js';
import { removeEntries, restoreObjects } from './kernel-objects.js';
import type { Outside } from './links.js';
import { familiesWithLocalLast, localRules, otherLocalRules } from './local-rule.js';
import { FRONT, LOCAL } from './numbers.js';
import { type OthersTables, readOthersTables, tablesOf } from './others-tables.js';
import { isOurRule } from './our-rules.js';
import type { Plan } from './plan.js';

/** Of which routes somebody wants to hear. */
export type WatchedTables = Pick<OthersTables, 'tables' | 'outside' | 'ways'>;

/** Enough to see what they are. */
const NAMED_MAXIMUM = 16;
const NOTHING: ReadonlySet<number> = new Set();

/** What is up, or about to be. */
export interface RuleNeeds {
  vpn: boolean;
  lockdown: boolean;
}

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
  /** What has been read of others' tables since. */
  #tables: OthersTables | undefined;
  #watched = NOTHING;
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

  /** What tables of others say; as of the last `sync`, if there is something to sync. */
  async outside(): Promise<Outside> {
    return this.#tables ?? (await readOthersTables(this.#netlink, others(await this.#list())));
  }

  /** Before the first VPN's own rules, or lockdown's: what is local stays so from their first moment. */
  prepare(needs: RuleNeeds): Promise<void> {
    return this.#bring([], needs);
  }

  /** Brings all of it in line: nothing without VPNs, and under lockdown what is for local addresses. */
  async sync(plans: readonly Plan[], isLockedDown: boolean): Promise<void> {
    const needs = { vpn: plans.length > 0, lockdown: isLockedDown };
    if (needs.vpn || needs.lockdown || this.#isUp) await this.#bring(plans, needs);
  }

  async #bring(plans: readonly Plan[], { vpn, lockdown }: RuleNeeds): Promise<void> {
    const isNeeded = vpn || lockdown;
    if (isNeeded) this.#isUp = true;
    const rules = await this.#list();
    const theirs = others(rules);
    const front = plans.length > 0 ? this.#front.placeFor(theirs, farthestFront(theirs)) : undefined;
    // In front of what leads past it; gone only when nothing does.
    const local = isNeeded ? localRules(theirs, front) : [];
    await restoreObjects(this.#netlink, local, 0);
    this.#tables = isNeeded ? await this.#readTables(theirs) : undefined;
    const leftOut = await this.#copies.sync(rules, vpn ? this.#tables : undefined, front);
    await this.#front.sync(plans, front);
    await removeEntries(this.#netlink, otherLocalRules(rules.filter(isOurRule), local));
    this.#watch(this.#tables ?? { tables: NOTHING, outside: NOTHING, ways: NOTHING });
    this.#tell(leftOut);
    this.#isUp = isNeeded;
  }

  async #readTables(theirs: readonly RuleEntry[]): Promise<OthersTables> {
    const tables = tablesOf(theirs);
    // Before they are read: what changes from then on is told.
    if ([...tables].some((table) => !this.#watched.has(table))) {
      this.#watch({ tables, outside: NOTHING, ways: NOTHING });
    }
    return readOthersTables(this.#netlink, theirs);
  }

  #tell(leftOut: readonly string[]): void {
    const text = leftOut.join('\n');
    if (text !== this.#leftOut && leftOut.length > 0) {
      const more = leftOut.length - NAMED_MAXIMUM;
      this.#settings.onLeftOut([...leftOut.slice(0, NAMED_MAXIMUM), ...(more > 0 ? [`and ${more} more`] : [])]);
    }
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

/** Where rules of others that somebody chose a priority for end. Before it there is room for those for local addresses. */
function farthestFront(theirs: readonly RuleEntry[]): number {
  return familiesWithLocalLast(theirs).length > 0 ? LOCAL.first + 2 : FRONT.first;
}

function others(rules: readonly RuleEntry[]): RuleEntry[] {
  return rules.filter((rule) => !isOurRule(rule));
}

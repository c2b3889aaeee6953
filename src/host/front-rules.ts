/**
 * Rules in front of somebody else's. `ip rule add` without a priority puts a rule before all others but the first, so in front of
 * ours (wg-quick does that): covered traffic would ask that rule first, and the firewall would then stop it. While such
 * rules stand, what is ours to decide is sent past them; everything else meets them as their owner means it.
 *
 * Rules far in front have a priority that somebody chose: they are left alone.
 */
import type { NetlinkSocket } from '../kernel/netlink-socket.js';
import type { RuleEntry } from '../kernel/rule-entry.js';
import { FAMILIES } from '../model/vpn-types.js';
import { removeObjects, restoreObjects } from './kernel-objects.js';
import { FRONT, MARK_FIELD, PRIORITY } from './numbers.js';
import type { Operation } from './operation.js';
import type { Plan } from './plan.js';

export class FrontRules {
  readonly #netlink: NetlinkSocket;
  #standing: { priority: number; rules: Operation[] } | undefined;

  constructor(netlink: NetlinkSocket) {
    this.#netlink = netlink;
  }

  get isNeeded(): boolean {
    return this.#standing !== undefined;
  }

  /** Brings ours in line: at this priority, or none. */
  async sync(plans: readonly Plan[], priority: number | undefined): Promise<void> {
    const before = this.#standing;
    if (priority === undefined) {
      this.#standing = undefined;
      if (before) await removeObjects(this.#netlink, before.rules);
      return;
    }
    const rules = plans.flatMap((plan) => frontRules(plan, priority));
    this.#standing = { priority, rules };
    await restoreObjects(this.#netlink, rules, 0);
    const wanted = new Set(rules.map((rule) => JSON.stringify(rule)));
    await removeObjects(this.#netlink, before?.rules.filter((rule) => !wanted.has(JSON.stringify(rule))) ?? []);
  }

  /**
   * In front of the first of these rules of others that stands from `first` on: where we stand already, when that is in front.
   * Undefined: there is none.
   */
  placeFor(others: readonly RuleEntry[], first: number): number | undefined {
    const late = others.map(({ priority }) => priority).filter((each) => each >= first && each <= FRONT.last);
    if (late.length === 0) return undefined;
    const lowest = Math.min(...late);
    const standing = this.#standing?.priority;
    return standing !== undefined && standing < lowest ? standing : Math.max(lowest - FRONT.distance, first);
  }
}

function frontRules({ owner, link, addresses, covers }: Plan, priority: number): Operation[] {
  return FAMILIES.flatMap((family): Operation[] => {
    const rule = { kind: 'rule', family, priority, action: 'goto', target: PRIORITY.unmarked } as const;
    const own = addresses.filter((operation) => operation.kind === 'address' && operation.family === family);
    return [
      // Protected, an answer, or selected: any mark of ours.
      { ...rule, fwmark: { value: 0, mask: MARK_FIELD }, isInverted: true },
      { ...rule, iif: link.name },
      ...own.flatMap((operation): Operation[] =>
        operation.kind === 'address' ? [{ ...rule, iif: 'lo', from: operation.address }] : [],
      ),
      ...covers.uids.map((uidRange): Operation => ({ ...rule, iif: 'lo', uidRange })),
      // A place of its own: to delete what selects nothing deletes any rule of that priority.
      ...(owner === 0 && covers.forwarded ? [{ ...rule, priority: priority + 1 }] : []),
    ];
  });
}

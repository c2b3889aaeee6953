/**
 * Rules in front of somebody else's. `ip rule add` without a priority puts a rule before all others but the first, so in front of
 * ours (wg-quick does that): covered traffic would ask that rule first, and the firewall would then stop it. While such
 * rules stand, what is ours to decide is sent past them; everything else meets them as their owner means it.
 *
 * Rules far in front have a priority that somebody chose: they are left alone.
 */
import type { NetlinkSocket } from '../kernel/netlink-socket.js';
import { RTPROT_KERNEL } from '../kernel/rtnetlink.js';
import type { RuleEntry } from '../kernel/rule-entry.js';
import { FAMILIES } from '../model/vpn-types.js';
import { removeObjects, restoreObjects } from './kernel-objects.js';
import { FRONT, isFrontPriority, MARK_FIELD, PRIORITY } from './numbers.js';
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

  /** Looks for rules of others among all that stand and brings ours in line: none without VPNs or without such rules. */
  async sync(plans: readonly Plan[], standing: readonly RuleEntry[]): Promise<void> {
    const priority = plans.length === 0 ? undefined : this.#lowest(standing);
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

  /** In front of the first rule that is not ours: where we stand already, when that is in front. */
  #lowest(rules: readonly RuleEntry[]): number | undefined {
    const isOurs = ({ protocol, target }: RuleEntry) =>
      protocol === RTPROT_KERNEL && (target === PRIORITY.unmarked || target === PRIORITY.end);
    const others = rules.filter((rule) => isFrontPriority(rule.priority) && !isOurs(rule));
    if (others.length === 0) return undefined;
    const first = Math.min(...others.map(({ priority }) => priority));
    const standing = this.#standing?.priority;
    return standing !== undefined && standing < first ? standing : Math.max(first - FRONT.distance, FRONT.first);
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

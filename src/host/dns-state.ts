/**
 * The nft side of the VPNs' DNS: the table exists from the first VPN with servers to the last, and knows every user with a
 * VPN of its own, so that root's does not redirect theirs.
 */
import type { Nftables } from '../kernel/nftables.js';
import { NFT_TABLE } from './numbers.js';
import type { Plan } from './plan.js';
import { type DnsPlan, planDnsBase, planDnsPassed } from './plan-dns.js';

export class DnsState {
  readonly #nftables: () => Nftables;
  /** Slots whose servers are in the table. */
  readonly #redirected = new Set<number>();
  /** What stands in the table for each slot. */
  readonly #added = new Map<number, DnsPlan>();

  constructor(nftables: () => Nftables) {
    this.#nftables = nftables;
  }

  /** One transaction; throws with nothing done. `others` are the VPNs that stand already. */
  add(plan: Plan, others: readonly Plan[]): void {
    try {
      this.#add(plan, others);
    } catch (error) {
      if (!this.#isGone()) throw error;
      this.#restore(others);
      this.#add(plan, others);
    }
  }

  #add(plan: Plan, others: readonly Plan[]): void {
    if (plan.dns) {
      const first = this.#redirected.size === 0;
      const passed = first ? others.map((other) => ({ slot: other.slot, dns: passedPlan(other) })) : [];
      const commands = [
        ...(first ? planDnsBase().add : []),
        ...passed.flatMap(({ dns }) => dns?.add ?? []),
        ...plan.dns.add,
      ];
      this.#run(commands);
      this.#redirected.add(plan.slot);
      this.#added.set(plan.slot, plan.dns);
      for (const { slot, dns } of passed) if (dns) this.#added.set(slot, dns);
      return;
    }
    const dns = passedPlan(plan);
    if (this.#redirected.size === 0 || !dns) return;
    this.#run(dns.add);
    this.#added.set(plan.slot, dns);
  }

  remove(plan: Plan): void {
    const added = this.#added.get(plan.slot);
    if (!added) return;
    this.#added.delete(plan.slot);
    this.#redirected.delete(plan.slot);
    const isLast = this.#redirected.size === 0;
    if (isLast) this.#added.clear();
    try {
      this.#run(isLast ? planDnsBase().remove : added.remove);
    } catch (error) {
      if (!this.#isGone()) throw error;
    }
  }

  /** Whether somebody else took the table away: `nft flush ruleset` is how many firewalls load their rules. */
  #isGone(): boolean {
    return !this.#nftables().hasTable(NFT_TABLE);
  }

  /** Those with servers first: the others are only named in what these make. */
  #restore(others: readonly Plan[]): void {
    this.#redirected.clear();
    this.#added.clear();
    for (const other of others) if (other.dns) this.#add(other, []);
    for (const other of others) if (!other.dns) this.#add(other, []);
  }

  #run(commands: readonly string[]): void {
    this.#nftables().run(commands.join('\n'));
  }
}

function passedPlan(plan: Plan): DnsPlan | undefined {
  return plan.owner === 0 ? undefined : planDnsPassed(plan.owner);
}

/**
 * The firewall of the VPNs that stand: one nft transaction for each that comes or goes, and for each change of the links. It
 * knows the whole wanted state, so that it can be put back in one transaction when somebody takes it away.
 */
import { type Nftables, NftablesError } from '../kernel/nftables.js';
import { familyOf, prefixContains } from '../model/address.js';
import { FAMILIES, type Family, IPV6 } from '../model/vpn-types.js';
import { type FirewallOptions, firewallBase, firewallRemoval, firewallTables } from './firewall-base.js';
import { DISCOVERY } from './lan.js';
import { addChain, addRule, INET, NETDEV } from './nft-text.js';
import { NFT_TABLE } from './numbers.js';
import type { Plan } from './plan.js';
import { type Element, type FirewallPlan, firewallAdditions, firewallRemovals } from './plan-firewall.js';
import { loopbackAnswers, loopbackAnswersRemoval } from './plan-outside-dns.js';
import { prefixRanges } from './prefix-ranges.js';
import type { Connection, Flow } from './sockets.js';
import { stands } from './standing-cgroups.js';

const TABLE_FAMILIES = ['inet', 'arp', 'netdev'] as const;
/** While cgroups go; none comes in their place, so there is an end to it. */
const ATTEMPTS = 100;

/** RFC 4291, 2.5.6. */
const LINK_LOCAL = { address: 'fe80::', prefixLength: 10 };

/** What the links and the policy say; the same for all VPNs. */
export interface Surroundings {
  /** Links behind which the internet is, and bridges whose forwarded traffic goes out directly. */
  outer: readonly string[];
  /** Bridges whose forwarded traffic is blocked. */
  forwardBlocked: readonly string[];
  /** Local networks that covered traffic may reach directly. */
  lan: readonly { dev: string; destination: string; prefixLength: number }[];
  /** Links on which frames of packet sockets are looked at; the kernel takes 256 at most. */
  frames: readonly string[];
}

export class Firewall {
  readonly #nftables: () => Nftables;
  readonly #options: FirewallOptions;
  readonly #standing = new Map<number, FirewallPlan>();
  #surroundings: Surroundings = { outer: [], forwardBlocked: [], lan: [], frames: [] };
  #cameIn: readonly Connection[] = [];
  /** Whether nobody else can change the tables. */
  #isOwn = false;

  constructor(nftables: () => Nftables, options: FirewallOptions) {
    this.#nftables = nftables;
    this.#options = options;
  }

  get isUp(): boolean {
    return this.#standing.size > 0;
  }

  /**
   * One transaction; throws with nothing done. `cameIn`: connections that came in from outside and are older than the tables;
   * of no use when these stand.
   */
  async add(plan: Plan, cameIn: readonly Connection[]): Promise<void> {
    const hooks = plan.firewall.loopbackAnswers && !this.#answersLoopback() ? loopbackAnswers() : [];
    const additions = () => [...hooks, ...firewallAdditions(plan.firewall, stands)];
    if (this.#standing.size === 0) {
      this.#cameIn = cameIn;
      await this.#make(() => [...this.#shared(), ...additions()]);
    } else {
      try {
        await this.#run(additions);
      } catch (error) {
        // `nft flush ruleset` is how many firewalls load their rules.
        if (this.isWhole()) throw error;
        await this.#makeAnew(() => [...this.#everything(), ...additions()]);
      }
    }
    this.#standing.set(plan.slot, plan.firewall);
    // What the kernel lists counts, not what it was sent.
    if (!this.isWhole()) throw new NftablesError('the tables are not there after the transaction that made them');
  }

  async remove(plan: Plan): Promise<void> {
    const standing = this.#standing.get(plan.slot);
    if (!standing) return;
    this.#standing.delete(plan.slot);
    try {
      const hooks = standing.loopbackAnswers && !this.#answersLoopback() ? loopbackAnswersRemoval() : [];
      await this.#run(() =>
        this.isUp ? [...hooks, ...firewallRemovals(standing, this.#onlyIn(standing))] : firewallRemoval(),
      );
    } catch (error) {
      if (this.isWhole()) throw error;
      // Somebody took it away: the rest goes, or comes back without this one.
      if (this.isUp) await this.#makeAnew(() => this.#everything());
      else await this.#run(() => this.#standingTables());
    }
  }

  /** Clients that have been ended: what still comes for them in the next three minutes makes nobody a server. */
  async remember(flows: readonly Flow[]): Promise<void> {
    if (!this.isUp || flows.length === 0) return;
    await this.#run(() => endedElements(flows));
  }

  /** Links or policy have changed. */
  async surround(surroundings: Surroundings): Promise<void> {
    this.#surroundings = surroundings;
    if (this.isUp) await this.#run(() => [...this.#fillSurroundings()]);
  }

  /** Everything anew, where others can have changed it. `cameIn` as in `add`. */
  async restore(cameIn: readonly Connection[]): Promise<void> {
    if (!this.isUp || (this.#isOwn && this.isWhole())) return;
    this.#cameIn = cameIn;
    await this.#makeAnew(() => this.#everything());
  }

  /** Whether our tables exist. What is in them only we and root can change. */
  isWhole(): boolean {
    return this.#nftables().familiesOf(NFT_TABLE).length === TABLE_FAMILIES.length;
  }

  #shared(): string[] {
    return [...firewallBase(this.#options), ...this.#fillSurroundings(), ...cameInElements(this.#cameIn)];
  }

  #everything(): string[] {
    const hooks = this.#answersLoopback() ? loopbackAnswers() : [];
    const plans = [...this.#standing.values()].flatMap((plan) => firewallAdditions(plan, stands));
    return [...this.#shared(), ...hooks, ...plans];
  }

  #answersLoopback(): boolean {
    return [...this.#standing.values()].some((plan) => plan.loopbackAnswers);
  }

  /** In one transaction, or, where nobody else can reach into the tables, in two. */
  async #make(content: () => readonly string[]): Promise<void> {
    this.#isOwn = this.#nftables().makeOwnedTables(NFT_TABLE, TABLE_FAMILIES);
    if (!this.#isOwn) return this.#run(() => [...firewallTables(), ...content()]);
    try {
      await this.#run(content);
    } catch (error) {
      await this.#run(firewallRemoval);
      throw error;
    }
  }

  /** In one transaction, so that there is no moment without; what somebody has taken away although it was ours alone leaves one. */
  async #makeAnew(content: () => readonly string[]): Promise<void> {
    if (!this.#isOwn)
      return this.#run(() => [...firewallTables(), ...firewallRemoval(), ...firewallTables(), ...content()]);
    await this.#run(() => this.#standingTables());
    await this.#make(content);
  }

  /** Their removal, which is none when there are none. */
  #standingTables(): string[] {
    return this.#nftables()
      .familiesOf(NFT_TABLE)
      .map((family) => `delete table ${family} ${NFT_TABLE}`);
  }

  *#fillSurroundings(): Generator<string> {
    const { outer, forwardBlocked, lan, frames } = this.#surroundings;
    const names = (links: readonly string[]) => links.map((link) => `"${link}"`).join(', ');
    yield `flush set ${INET} outer`;
    if (outer.length > 0) yield `add element ${INET} outer { ${names(outer)} }`;
    yield `flush chain ${INET} forward_blocked`;
    // Where br_netfilter is on, what neighbours on one bridge say to each other comes by here too.
    for (const link of forwardBlocked) {
      yield addRule(INET, 'forward_blocked', `iifname "${link}" oifname != "${link}" drop`);
    }
    yield `flush chain ${INET} lan`;
    for (const text of lanRules(lan)) yield addRule(INET, 'lan', text);
    for (const family of FAMILIES) {
      const [set, ranges] = [`${INET} local${family === IPV6 ? 6 : 4}`, localRanges(lan, family)];
      yield `flush set ${set}`;
      if (ranges.length > 0) yield `add element ${set} { ${ranges.join(', ')} }`;
    }
    yield addChain(NETDEV, 'egress_hook');
    yield `delete chain ${NETDEV} egress_hook`;
    if (frames.length === 0) return;
    yield addChain(NETDEV, 'egress_hook', `type filter hook egress devices = { ${names(frames)} } priority 0`);
    yield addRule(NETDEV, 'egress_hook', 'goto frames');
  }

  #onlyIn(plan: FirewallPlan): Element[] {
    const id = ({ set, key }: Element) => `${set} ${key}`;
    const others = new Set([...this.#standing.values()].flatMap(({ elements }) => elements.map(id)));
    const own = new Map(plan.elements.map((element) => [id(element), element]));
    return [...own].filter(([key]) => !others.has(key)).map(([, element]) => element);
  }

  /** Again when the commands have become others meanwhile: an application that ends takes its cgroup along. */
  async #run(commands: () => readonly string[]): Promise<void> {
    let text = commands().join('\n');
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#nftables().runAsync(text);
      } catch (error) {
        const failed = text;
        text = commands().join('\n');
        if (text === failed || attempt === ATTEMPTS) throw error;
      }
    }
  }
}

/** Name resolution and discovery on the link itself go along with a local network. */
export function lanRules(lan: Surroundings['lan']): string[] {
  const rules = lan.map(({ dev, destination, prefixLength }) => {
    const ip = familyOf(destination) === IPV6 ? 'ip6' : 'ip';
    return `oifname "${dev}" ${ip} daddr ${destination}/${prefixLength} goto explained`;
  });
  for (const family of [1, 2] as const) {
    const links = new Set(
      lan.filter(({ destination }) => familyOf(destination) === family).map(({ dev }) => `"${dev}"`),
    );
    const groups = DISCOVERY[family].map(({ address, prefixLength }) =>
      prefixLength === 32 ? address : `${address}/${prefixLength}`,
    );
    const daddr = family === IPV6 ? `ip6 daddr ${groups.join()}` : `ip daddr { ${groups.join(', ')} }`;
    if (links.size > 0) rules.push(`oifname { ${[...links].join(', ')} } ${daddr} goto explained`);
  }
  return rules;
}

/** Nobody inside a VPN has an address that covered traffic reaches by another link. */
function localRanges(lan: Surroundings['lan'], family: Family): string[] {
  const networks = lan
    // To a link-local address of IPv6 one answers on the link that it came by.
    .filter(({ destination }) => familyOf(destination) === family && !prefixContains(LINK_LOCAL, destination))
    .map(({ destination, prefixLength }) => [`${destination}/${prefixLength}`, { destination, prefixLength }] as const);
  // One network may be on several links.
  const each = [...new Map(networks).values()];
  return each.length === 0 ? [] : prefixRanges(each, []).included;
}

function endedElements(flows: readonly Flow[]): string[] {
  return ([1, 2] as const).flatMap((family) => {
    const own = flows.filter(({ local }) => familyOf(local.address) === family);
    if (own.length === 0) return [];
    // Protocols by number: their names are in a file that a machine may not have.
    const keys = own.map(
      ({ protocol, local, remote }) =>
        `${local.address} . ${protocol} . ${local.port} . ${remote.address} . ${remote.port}`,
    );
    return [`add element ${INET} ended${family === IPV6 ? 6 : 4} { ${[...new Set(keys)].join(', ')} }`];
  });
}

function cameInElements(connections: readonly Connection[]): string[] {
  return ([1, 2] as const).flatMap((family) => {
    const own = connections.filter(({ local }) => familyOf(local.address) === family);
    if (own.length === 0) return [];
    const keys = own.map(
      ({ local, remote }) => `${local.address} . ${local.port} . ${remote.address} . ${remote.port}`,
    );
    const [ip, set] = family === IPV6 ? ['ip6', 'came_in6'] : ['ip', 'came_in4'];
    return [
      `add element ${INET} ${set} { ${keys.join(', ')} }`,
      addRule(INET, 'came_in', `${ip} saddr . tcp sport . ${ip} daddr . tcp dport @${set} goto bypass`),
    ];
  });
}

/**
 * Keeps lockdown in the kernel as the policy says: puts it up, changes it without a gap, lifts it. Nothing here undoes it when
 * vpnd ends. What a dead predecessor left is taken over: rules that are wanted stay, others go.
 */
import type { NetlinkSocket } from '../kernel/netlink-socket.js';
import { type Nftables, nftablesAvailable } from '../kernel/nftables.js';
import { RTPROT_KERNEL } from '../kernel/rtnetlink.js';
import { listBothFamilies, listRules } from '../kernel/rtnetlink-list.js';
import type { Coverage } from './coverage.js';
import type { Surroundings } from './firewall.js';
import { HANDOVER_TABLE, isLockdownPriority, LOCKDOWN_TABLE, PRIORITY } from './numbers.js';
import { additions } from './operation.js';
import { lockdownEmptied, lockdownRules, lockdownTable, lockdownTables } from './plan-lockdown.js';

const FAMILIES = ['inet', 'netdev'] as const;

/** The lock beside the table. It goes by the table's marks, so it is there only while that is. */
export interface SecondLock {
  /** As EgressLock.lock(). */
  lock(users: ReadonlySet<number>): void;
  tellsSubflows: boolean;
}

export class Lockdown {
  readonly #netlink: NetlinkSocket;
  readonly #nftables: () => Nftables;
  readonly #lastUid: number;
  readonly #second: SecondLock;
  /** By owner: what a VPN that is up covers. */
  readonly #released = new Map<number, Coverage>();
  #users: ReadonlySet<number> = new Set();
  /** Whether nobody else can change the tables. */
  #isOwn = false;
  /** What is in tables of our own. */
  #chains: readonly string[] = [];
  #surroundings: Pick<Surroundings, 'lan' | 'frames'> = { lan: [], frames: [] };

  constructor(netlink: NetlinkSocket, nftables: () => Nftables, lastUid: number, second: SecondLock) {
    this.#netlink = netlink;
    this.#nftables = nftables;
    this.#lastUid = lastUid;
    this.#second = second;
  }

  get isInForce(): boolean {
    return this.#users.size > 0;
  }

  get users(): ReadonlySet<number> {
    return this.#users;
  }

  /** From now on exactly these users. Throws KernelError or NftablesError; what was closed stays closed then. */
  async apply(users: ReadonlySet<number>): Promise<void> {
    const before = this.#users;
    if (users.size > 0) {
      // A user who is no longer on the list is let go last.
      this.#users = new Set([...before, ...users]);
      await this.#renew();
      await this.#syncRules(users);
      this.#second.lock(users);
      await this.#own();
    } else {
      this.#second.lock(users);
      await this.#syncRules(users);
    }
    this.#users = users;
    await this.#renew();
  }

  /** This user's VPN stands, with a lock of its own. */
  async release(covered: Coverage): Promise<void> {
    this.#released.set(covered.owner, covered);
    if (this.isInForce) await this.#renew();
  }

  /** Before this user's VPN goes. */
  async hold(owner: number): Promise<void> {
    this.#released.delete(owner);
    if (this.isInForce) await this.#renew();
  }

  async surround(surroundings: Surroundings): Promise<void> {
    this.#surroundings = surroundings;
    if (this.isInForce) await this.#renew();
  }

  /** Puts back what somebody took away. */
  async restore(): Promise<void> {
    if (!this.isInForce) return;
    // It is looked at anew what there is.
    this.#isOwn = false;
    await this.#renew();
    await this.#syncRules(this.#users);
  }

  async #renew(): Promise<void> {
    // Without the library there can be no table of ours.
    if (!this.isInForce) return nftablesAvailable() ? this.#removeAll() : undefined;
    const nftables = this.#nftables();
    if (!this.#isOwn) {
      this.#isOwn = nftables.makeOwnedTables(LOCKDOWN_TABLE, FAMILIES);
      // Of a predecessor; later it is known what is in them, and nobody else's chains have to be looked through.
      this.#chains = this.#isOwn ? nftables.chainsOf(LOCKDOWN_TABLE) : [];
    }
    const content = this.#content();
    await this.#run([...(this.#isOwn ? lockdownEmptied(this.#chains) : lockdownTables()), ...content]);
    this.#chains = chainsIn(content);
  }

  async #removeAll(): Promise<void> {
    await this.#remove(LOCKDOWN_TABLE);
    await this.#remove(HANDOVER_TABLE);
    this.#isOwn = false;
  }

  /**
   * Tables that a predecessor left as anybody's become our own, which they can only be made as: others with the same in them
   * stand meanwhile.
   */
  async #own(): Promise<void> {
    if (!this.#isOwn && this.#nftables().canOwn()) {
      const content = [...lockdownTables(), ...this.#content()].join('\n');
      await this.#nftables().runAsync(content.replaceAll(LOCKDOWN_TABLE, HANDOVER_TABLE));
      await this.#remove(LOCKDOWN_TABLE);
      await this.#renew();
    }
    // Also what a predecessor had no time for.
    await this.#remove(HANDOVER_TABLE);
  }

  /** When vpnd ends in order: they stand for everybody as tables do that nobody owns. */
  async disown(): Promise<void> {
    if (!this.isInForce || !this.#isOwn) return;
    const removals = FAMILIES.map((family) => `delete table ${family} ${LOCKDOWN_TABLE}`);
    const additions = FAMILIES.map((family) => `add table ${family} ${LOCKDOWN_TABLE}`);
    await this.#run([...removals, ...additions, ...this.#content()]);
    this.#isOwn = false;
  }

  #content(): string[] {
    const surroundings = { ...this.#surroundings, tellsSubflows: this.#second.tellsSubflows };
    const root = this.#released.get(0);
    const released = { owners: new Set(this.#released.keys()), ...(root && { root }) };
    return lockdownTable(this.#users, released, surroundings);
  }

  async #remove(table: string): Promise<void> {
    const families = this.#nftables().familiesOf(table);
    if (families.length > 0) await this.#run(families.map((family) => `delete table ${family} ${table}`));
  }

  #run(commands: readonly string[]): Promise<void> {
    return this.#nftables().runAsync(commands.join('\n'));
  }

  /** Adds what is wanted, then removes the rules of users who are not, and what an older vpnd left that lets out more. */
  async #syncRules(users: ReadonlySet<number>): Promise<void> {
    const failures =
      users.size === 0 ? [] : await this.#netlink.batch(additions(lockdownRules(users, this.#lastUid), 0));
    const failure = failures.find(({ error }) => error.errnoName !== 'EEXIST');
    if (failure) throw failure.error;
    const standing = await listBothFamilies((family) => listRules(this.#netlink, family));
    const ours = standing.filter(
      ({ priority, protocol }) => isLockdownPriority(priority) && protocol === RTPROT_KERNEL,
    );
    const unwanted = ours.filter(
      ({ priority, firstUid, hasMark = false }) =>
        users.size === 0 ||
        (priority === PRIORITY.lockedUser && (firstUid === undefined || !users.has(firstUid))) ||
        // An older vpnd's, which lets every user out by the ports of DHCP clients.
        (priority === PRIORITY.lockdown && !hasMark),
    );
    // Guards of users first, the end last.
    unwanted.sort((a, b) => (a.priority === PRIORITY.lockedUser ? -1 : b.priority === PRIORITY.lockedUser ? 1 : 0));
    await this.#netlink.batch(unwanted.map((rule) => rule.remove));
  }
}

/** The chains that the commands make, as commands name them. */
function chainsIn(commands: readonly string[]): string[] {
  return commands.flatMap((command) => /^add chain (\S+ \S+ \S+)/.exec(command)?.[1] ?? []);
}

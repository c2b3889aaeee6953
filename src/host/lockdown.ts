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
import { isLockdownPriority, LOCKDOWN_TABLE, PRIORITY } from './numbers.js';
import { additions } from './operation.js';
import { lockdownRemoval, lockdownRules, lockdownTable } from './plan-lockdown.js';

export class Lockdown {
  readonly #netlink: NetlinkSocket;
  readonly #nftables: () => Nftables;
  readonly #lastUid: number;
  /** By owner: what a VPN that is up covers. */
  readonly #released = new Map<number, Coverage>();
  #users: ReadonlySet<number> = new Set();
  #surroundings: Pick<Surroundings, 'lan' | 'frames'> = { lan: [], frames: [] };

  constructor(netlink: NetlinkSocket, nftables: () => Nftables, lastUid: number) {
    this.#netlink = netlink;
    this.#nftables = nftables;
    this.#lastUid = lastUid;
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
    } else await this.#syncRules(users);
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
    await this.#renew();
    await this.#syncRules(this.#users);
  }

  async #renew(): Promise<void> {
    if (!this.isInForce) {
      // Without the library there can be no table of ours.
      if (!nftablesAvailable() || this.#nftables().familiesOf(LOCKDOWN_TABLE).length === 0) return;
      await this.#nftables().runAsync(lockdownRemoval().join('\n'));
      return;
    }
    const root = this.#released.get(0);
    const released = { owners: new Set(this.#released.keys()), ...(root && { root }) };
    await this.#nftables().runAsync(lockdownTable(this.#users, released, this.#surroundings).join('\n'));
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

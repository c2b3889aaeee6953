/**
 * The host's VPNs: raises a plan all or nothing, lowers it, sweeps what a dead predecessor left. One change at a time, so
 * that the shared parts (base rules, DNS chains) are counted right; only the slow end of a vNIC runs beside.
 *
 * Order matters. Raising: what closes before what opens, the rules that lead covered traffic in come last. Lowering: the
 * vNIC first (covered traffic now meets `unreachable`), then the rules that lead there, then the rest.
 */
import { closeSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { attachSocketMark, detachSocketMarks } from '../kernel/bpf.js';
import { resolveCgroup } from '../kernel/cgroup.js';
import { libcAsync } from '../kernel/ffi.js';
import { Lane } from '../kernel/lane.js';
import { type NetlinkRequest, NetlinkSocket } from '../kernel/netlink-socket.js';
import { Nftables } from '../kernel/nftables.js';
import { configureLink, setLinkUp } from '../kernel/rtnetlink.js';
import { netnsCookie } from '../kernel/socket-options.js';
import { openTun, setBlocking, type Tun } from '../kernel/tun.js';
import { unixSocket } from '../kernel/unix-socket.js';
import { KernelError } from '../model/errors.js';
import { findCollisions } from './collisions.js';
import { Firewall } from './firewall.js';
import { LinkDeleter } from './link-deleter.js';
import { LAST_UID, LINK_GROUP, programName, programPrefix, SELECTION_FIELD } from './numbers.js';
import { additions, type Operation, removals } from './operation.js';
import { type Plan, type PlanInput, planBase, planVpn, selectionsNeeded } from './plan.js';
import { bucketsOf, Sections } from './sections.js';
import { Selections } from './selections.js';
import { standingCgroups } from './standing-cgroups.js';
import { type Swept, sweep } from './sweep.js';
import { UndoStack } from './undo.js';

/** A VPN that stands. `fd` is the service's copy of the TUN, to be handed over and closed. */
export interface RaisedVpn {
  plan: Plan;
  tun: Tun;
}

export type VpnRequest = Omit<PlanInput, 'selections' | 'sections' | 'lastUid' | 'cgroups'>;

/** Already gone is as good as removed. */
const GONE = new Set(['ENOENT', 'ESRCH', 'ENODEV', 'EADDRNOTAVAIL']);

export class VpnHost {
  readonly #links = new LinkDeleter();
  readonly #netlink = new NetlinkSocket(() => !this.#links.isRunning);
  readonly #lane = new Lane();
  readonly #firewall = new Firewall(() => this.#nftables());
  readonly #raised = new Map<number, Plan>();
  readonly #selections = new Selections();
  readonly #sections = new Sections();
  readonly #lastUid = lastMappedUid();
  readonly #base = planBase(this.#lastUid);
  readonly #netnsInode: bigint;
  readonly #netnsCookie: bigint;
  #nft: Nftables | undefined;

  constructor() {
    this.#netnsInode = statSync('/proc/self/ns/net', { bigint: true }).ino;
    const probe = unixSocket();
    this.#netnsCookie = netnsCookie(probe);
    closeSync(probe);
  }

  /** SO_NETNS_COOKIE of the network namespace whose host state this is. */
  get netnsCookie(): bigint {
    return this.#netnsCookie;
  }

  /**
   * Builds a VPN. The vNIC's descriptor comes back open. On any failure the host is as before, and the error is a
   * BusinessError 2200003 for a limit, a KernelError or NftablesError for what the kernel refused.
   */
  raise(request: VpnRequest): Promise<RaisedVpn> {
    return this.#lane.run(async () => {
      const undo = new UndoStack();
      try {
        const selections = this.#takeSelections(request, undo);
        const sections = this.#sections.acquire(bucketsOf(request.owner, request.spec, this.#lastUid));
        undo.push(() => void this.#sections.release(sections.priorities.keys()));
        const covered = await standingCgroups(request.trusted);
        const blocked = await standingCgroups(request.blocked);
        const cgroups = { covered: covered.cgroups, blocked: blocked.cgroups };
        const plan = planVpn({ ...request, lastUid: this.#lastUid, selections, sections, cgroups });
        const tun = await this.#apply(plan, request.spec.isBlocking, undo);
        this.#raised.set(plan.slot, plan);
        return { plan, tun };
      } catch (error) {
        const failed = await undo.unwind();
        if (failed.length > 0 && error instanceof Error) error.cause ??= new AggregateError(failed, 'undo failed');
        throw error;
      }
    });
  }

  /** Takes a VPN down. Whatever of it is gone already is skipped; the rest is removed even if one step fails. */
  async lower({ plan, tun }: RaisedVpn): Promise<void> {
    const undo = new UndoStack();
    undo.push(() => this.#lane.run(() => this.#removeState(plan)));
    undo.push(() => this.#links.delete(tun));
    const [error] = await undo.unwind();
    if (error) throw error;
  }

  /** Removes everything tagged as ours that this object did not raise: at start, when nothing is raised. */
  sweep(): Promise<Swept> {
    return this.#lane.run(() => sweep(this.#netlink, () => this.#nftables(), programPrefix(this.#netnsInode)));
  }

  /** What others have under our names and numbers, in words. After a sweep, when nothing is raised. */
  collisions(): Promise<string[]> {
    return this.#lane.run(() => findCollisions(this.#netlink));
  }

  close(): void {
    this.#netlink.close();
    this.#links.close();
  }

  async #apply(plan: Plan, isBlocking: boolean, undo: UndoStack): Promise<Tun> {
    const base = this.#raised.size === 0 ? this.#base : [];
    const tun = openTun(plan.link.name);
    undo.push(() => this.#links.delete(tun));
    // The last close of a TUN waits for the kernel as long as a delete does: not on this thread.
    undo.push(async () => void (await libcAsync.close(tun.fd)));
    setBlocking(tun.fd, isBlocking);
    this.#setIpv6(plan);

    // The firewall knows the vNIC by name: it is closed before a rule leads anything there.
    undo.push(() => this.#firewall.remove(plan));
    this.#firewall.add(plan, () => []);
    undo.push(() => this.#detach(plan));
    this.#attach(plan);
    const link = [
      configureLink({ ...plan.link, ifindex: tun.ifindex, group: LINK_GROUP }),
      ...additions(plan.addresses, tun.ifindex),
      setLinkUp(tun),
    ];
    await this.#add(link, [...plan.routes, ...base, ...plan.sectionRules, ...plan.rules], tun.ifindex, undo);
    return tun;
  }

  async #removeState(plan: Plan): Promise<void> {
    this.#raised.delete(plan.slot);
    for (const selection of Object.values(plan.selections)) this.#selections.delete(selection);
    const undo = new UndoStack();
    if (this.#raised.size === 0) undo.push(() => this.#remove(this.#base));
    undo.push(() => this.#detach(plan));
    undo.push(() => this.#firewall.remove(plan));
    const unused = this.#sections.release(plan.buckets);
    undo.push(() => this.#remove([...unused, ...plan.routes, ...plan.rules]));
    const [error] = await undo.unwind();
    if (error) throw error;
  }

  /** A link in this state was made a moment ago, by us, in our namespace: the path is ours. */
  #setIpv6({ link }: Plan): void {
    const path = `/proc/sys/net/ipv6/conf/${link.name}`;
    try {
      writeFileSync(`${path}/disable_ipv6`, link.ipv6 ? '0' : '1');
      // A router advertisement from the tunnel must not configure this host.
      writeFileSync(`${path}/accept_ra`, '0');
    } catch (error) {
      // A kernel without IPv6 has nothing to switch off.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || link.ipv6) throw error;
    }
  }

  #takeSelections(request: VpnRequest, undo: UndoStack): { covered?: number; blocked?: number } {
    const taken: { covered?: number; blocked?: number } = {};
    for (const purpose of selectionsNeeded(request)) {
      const selection = this.#selections.take(request.owner);
      undo.push(() => this.#selections.delete(selection));
      taken[purpose] = selection;
    }
    return taken;
  }

  #attach(plan: Plan): void {
    for (const { cgroup, mark, uid } of plan.cgroupMarks) {
      const condition = uid === undefined ? { overwrite: false } : { overwrite: true, uid };
      const spec = { mark, mask: SELECTION_FIELD, netnsCookie: this.#netnsCookie, ...condition };
      attachSocketMark(resolveCgroup(cgroup), spec, programName(this.#netnsInode, plan.slot));
    }
  }

  #detach(plan: Plan): void {
    const ours = programName(this.#netnsInode, plan.slot);
    for (const { cgroup } of plan.cgroupMarks) {
      try {
        detachSocketMarks(resolveCgroup(cgroup), { name: (name) => name === ours });
      } catch (error) {
        // A cgroup that was removed took its programs along.
        if (!(error instanceof KernelError && GONE.has(error.errnoName))) throw error;
      }
    }
  }

  /**
   * Makes the vNIC ready (`link`), then adds the operations, all in one go. Fails on the first that failed; those behind it
   * were tried as well. What failed is not undone: an object that was there already is somebody else's.
   */
  async #add(
    link: readonly NetlinkRequest[],
    operations: readonly Operation[],
    ifindex: number,
    undo: UndoStack,
  ): Promise<void> {
    const failed = new Set<Operation | undefined>();
    undo.push(() => this.#remove(operations.filter((operation) => !failed.has(operation))));
    const failures = await this.#netlink.batch(chain(link, additions(operations, ifindex)));
    for (const { index } of failures) failed.add(operations[index - link.length]);
    if (failures[0]) throw failures[0].error;
  }

  async #remove(operations: readonly Operation[]): Promise<void> {
    const failures = await this.#netlink.batch(removals(operations));
    const [failure] = failures.filter(({ error }) => !GONE.has(error.errnoName));
    if (failure) throw failure.error;
  }

  #nftables(): Nftables {
    this.#nft ??= new Nftables();
    return this.#nft;
  }
}

/** On demand: a plan may have 10,000 routes. */
function* chain(first: Iterable<NetlinkRequest>, second: Iterable<NetlinkRequest>): Generator<NetlinkRequest> {
  yield* first;
  yield* second;
}

/** The largest uid of this process's user namespace; /proc/self/uid_map has lines of "first, first outside, count". */
function lastMappedUid(): number {
  const lines = readFileSync('/proc/self/uid_map', 'latin1').trim().split('\n');
  const ends = lines
    .map((line) => line.trim().split(/\s+/).map(Number))
    .map(([first = 0, , count = 0]) => first + count - 1);
  return Math.min(LAST_UID, Math.max(...ends));
}

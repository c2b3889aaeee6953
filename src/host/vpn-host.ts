/**
 * The host's VPNs: raises a plan all or nothing, lowers it, sweeps what a dead predecessor left, puts back what others take away.
 * One change at a time, so that the shared parts are counted right; only the slow end of a vNIC runs beside.
 *
 * Order matters. Raising: what closes before what opens; the firewall, then the rules that lead covered traffic in, then the end
 * of the connections from before. Lowering, and a raise that failed: taking-down.ts.
 */
import { closeSync, statSync } from 'node:fs';
import type { Epoll } from '../kernel/epoll.js';
import { libcAsync } from '../kernel/ffi.js';
import { Lane } from '../kernel/lane.js';
import { NetlinkSocket } from '../kernel/netlink-socket.js';
import { Nftables } from '../kernel/nftables.js';
import { netnsCookie } from '../kernel/socket-options.js';
import type { Tun } from '../kernel/tun.js';
import { unixSocket } from '../kernel/unix-socket.js';
import type { LeakException } from '../model/leak-exception.js';
import { findCollisions } from './collisions.js';
import { Connections } from './connections.js';
import { type OutsideServer, outsideServers, prefixOf, requirePolicy } from './dns-servers.js';
import { exceptionOfMultipath, exceptionsOfLockdown, exceptionsOfVpn } from './exceptions.js';
import { Firewall } from './firewall.js';
import { tryFirewall } from './firewall-trial.js';
import { DEFAULT_HOST_POLICY, type HostPolicy } from './host-policy.js';
import { HostWatch } from './host-watch.js';
import { addObjects, removeObjects, restoreObjects } from './kernel-objects.js';
import { LinkDeleter } from './link-deleter.js';
import { readLinkFacts } from './links.js';
import { Lockdown } from './lockdown.js';
import { MachineRules } from './machine-rules.js';
import { type Needs, Neighbourhood } from './neighbourhood.js';
import { programPrefix } from './numbers.js';
import type { Operation } from './operation.js';
import {
  type Plan,
  type PlanInput,
  planBase,
  planMarks,
  planUdpServices,
  planVpn,
  type Selected,
  selectionsNeeded,
} from './plan.js';
import { coverageOf } from './plan-coverage.js';
import type { ResolverLog } from './resolver/request.js';
import { Resolver } from './resolver/resolver.js';
import { Restorer } from './restorer.js';
import { bucketsOf, Sections } from './sections.js';
import { Selections } from './selections.js';
import { SocketMarks } from './socket-marks.js';
import { requireCgroups, standingCgroups } from './standing-cgroups.js';
import { type Swept, sweep } from './sweep.js';
import { Sysctls } from './sysctl.js';
import { SysctlRecord } from './sysctl-record.js';
import { EVERY_PART, type Part, type TakeBack, takeDown } from './taking-down.js';
import { UndoStack } from './undo.js';
import { lastMappedUid } from './user-namespace.js';
import { makeVnic, prepareVnic, vnicCorrections, vnicRequests } from './vnic.js';

/** A VPN that stands. `fd` is the service's copy of the TUN, to be handed over and closed. */
export interface RaisedVpn {
  plan: Plan;
  tun: Tun;
}

export type VpnRequest = Omit<PlanInput, 'selections' | 'sections' | 'lastUid' | 'cgroups' | 'outsideServers'>;

/** A VPN on its way up. */
interface Rising {
  vpn: RaisedVpn;
  /** What has been begun. */
  parts: Set<Part>;
  /** Of the first VPN: the rules that stand once while there is any. */
  shared: readonly Operation[];
  /** What the kernel did not take: it may be there all the same, as somebody else's. */
  foreign: Set<Operation>;
}

const UNSET_SYSCTLS = '/proc/sys is read-only for vpnd; the firewall does the same';

export interface HostSettings {
  /** For what has to be given back and could not be told by its tags. */
  stateDir: string;
  log: ResolverLog;
  /** Somebody takes away what is ours again and again; objects in words. */
  onContested(what: readonly string[]): void;
}

export class VpnHost {
  readonly #settings: HostSettings;
  readonly #links = new LinkDeleter();
  readonly #netlink = new NetlinkSocket(() => !this.#links.isRunning);
  readonly #lane = new Lane();
  readonly #marks: SocketMarks;
  readonly #firewall: Firewall;
  readonly #raised = new Map<number, RaisedVpn>();
  /** Names of the vNICs that are whole, by ifindex. */
  readonly #live = new Map<number, string>();
  readonly #selections = new Selections();
  readonly #sections = new Sections();
  readonly #lastUid = lastMappedUid();
  readonly #machine = new MachineRules(this.#netlink, {
    watch: (tables) => this.#watch?.watchTables(tables),
    onLeftOut: (rules) => this.#settings.log('info', 'rules-not-copied', { rules: rules.join('; ') }),
  });
  readonly #connections = new Connections();
  readonly #lockdown: Lockdown;
  readonly #sysctls: Sysctls;
  readonly #neighbourhood: Neighbourhood;
  readonly #resolver: Resolver;
  readonly #restorer: Restorer;
  readonly #netnsInode: bigint;
  readonly #netnsCookie: bigint;
  #policy = DEFAULT_HOST_POLICY;
  #watch: HostWatch | undefined;
  #nft: Nftables | undefined;

  constructor(settings: HostSettings) {
    this.#settings = settings;
    this.#netnsInode = statSync('/proc/self/ns/net', { bigint: true }).ino;
    const probe = unixSocket();
    this.#netnsCookie = netnsCookie(probe);
    closeSync(probe);
    const { stateDir, log } = settings;
    this.#marks = new SocketMarks(this.#netnsInode, this.#netnsCookie, (error) => this.#failed('cgroup', error));
    const { guardProblem, lockAbility } = this.#marks;
    const { tellsSubflows } = lockAbility;
    this.#firewall = new Firewall(() => this.#nftables(), { takesNew: guardProblem === undefined, tellsSubflows });
    if (guardProblem !== undefined) log('warning', 'no-servers-behind-vpns', { reason: guardProblem });
    if (lockAbility.problem !== undefined) log('warning', 'no-second-lock', { reason: lockAbility.problem });
    this.#lockdown = new Lockdown(this.#netlink, () => this.#nftables(), this.#lastUid, {
      tellsSubflows,
      lock: (users) => this.#marks.lockDown(users),
    });
    const record = new SysctlRecord(stateDir, this.#netnsCookie);
    this.#sysctls = new Sysctls(record, (what) => this.#restorer.changed([what]));
    this.#neighbourhood = new Neighbourhood({
      netlink: this.#netlink,
      firewall: this.#firewall,
      lockdown: this.#lockdown,
      sysctls: this.#sysctls,
      outside: () => this.#machine.outside(),
    });
    this.#resolver = new Resolver({ stateDir, log, onFight: (what) => settings.onContested([what]) });
    this.#restorer = new Restorer({
      restore: () => this.#restore(),
      onContested: (what) => settings.onContested(what),
      onFailed: (error) => log('error', 'restore-failed', { error: String(error) }),
    });
  }

  /** SO_NETNS_COOKIE of the network namespace whose host state this is. */
  get netnsCookie(): bigint {
    return this.#netnsCookie;
  }

  /**
   * Builds a VPN. The vNIC's descriptor comes back open. On any failure the host is as before, and the error is a
   * BusinessError 2200003 for a limit or a missing facility, a KernelError or NftablesError for what the kernel refused.
   */
  raise(request: VpnRequest): Promise<RaisedVpn> {
    return this.#lane.run(async () => {
      await this.#connections.require();
      requireCgroups([...request.trusted, ...request.blocked]);
      this.#marks.require(request);
      return this.#raise(request);
    });
  }

  async #raise(request: VpnRequest): Promise<RaisedVpn> {
    const undo = new UndoStack();
    try {
      const selections = this.#takeSelections(request, undo);
      const sections = this.#sections.acquire(bucketsOf(request.owner, request.spec, this.#lastUid));
      undo.push(() => void this.#sections.release(sections.priorities.keys()));
      // Before it is looked where applications run: what starts meanwhile is told by its mark.
      this.#marks.mark({ slot: request.slot, ...planMarks({ ...request, selections }) }, undo);
      const covered = await standingCgroups(request.trusted);
      const blocked = await standingCgroups(request.blocked);
      const cgroups = { covered: covered.cgroups, blocked: blocked.cgroups };
      const outsideServers = await this.#outsideServers(request);
      const plan = planVpn({ ...request, lastUid: this.#lastUid, selections, sections, cgroups, outsideServers });
      const tun = makeVnic(plan);
      const shared = this.#raised.size === 0 ? this.#sharedRules() : [];
      const rising: Rising = { vpn: { plan, tun }, parts: new Set(['link']), shared, foreign: new Set() };
      undo.push(() => this.#fall(rising));
      const unset = prepareVnic(plan, tun, request.spec.isBlocking);
      if (unset.length > 0)
        this.#settings.log('info', 'sysctls-not-set', { sysctls: unset.join(' '), reason: UNSET_SYSCTLS });
      await this.#apply(rising, request);
      this.#raised.set(plan.slot, rising.vpn);
      await this.#settle(rising, request, { covered: covered.paths, blocked: blocked.paths });
      if (this.#machine.hasFront || this.#raised.size === 1) await this.#syncMachine();
      this.#live.set(tun.ifindex, tun.name);
      // udev writes what sysctl.d says of a link that has just come. From now on that is heard; what came before is put right here.
      await this.#netlink.batch(vnicCorrections(plan, tun));
      return rising.vpn;
    } catch (error) {
      const failed = await undo.unwind();
      if (failed.length > 0 && error instanceof Error) error.cause ??= new AggregateError(failed, 'undo failed');
      throw error;
    }
  }

  /** Takes a VPN down. Whatever of it is gone already is skipped; the rest is removed even if one step fails. */
  async lower(vpn: RaisedVpn): Promise<void> {
    const { plan, tun } = vpn;
    this.#live.delete(tun.ifindex);
    const errors: Error[] = [];
    // Beside the lane: the kernel takes its time.
    await this.#links.delete(tun).catch((error: Error) => errors.push(error));
    await this.#lane.run(async () => {
      this.#raised.delete(plan.slot);
      for (const selection of Object.values(plan.selections)) this.#selections.delete(selection);
      const sections = this.#sections.release(plan.buckets);
      const takeBack = this.#takeBack(vpn, [...sections, ...plan.routes, ...plan.rules], this.#sharedRules());
      errors.push(...(await takeDown({ ...takeBack, link: () => undefined }, EVERY_PART)));
    });
    if (errors[0]) throw errors[0];
  }

  /** What a raise has made so far goes, the descriptor too, and nothing that was somebody else's. */
  async #fall({ vpn, parts, shared, foreign }: Rising): Promise<void> {
    const { plan, tun } = vpn;
    this.#raised.delete(plan.slot);
    const own = (operations: readonly Operation[]) => operations.filter((operation) => !foreign.has(operation));
    const rules = own([...plan.routes, ...plan.sectionRules, ...plan.rules]);
    // The last close of a TUN waits for the kernel as long as a delete does: not on this thread. First, because a setUp may have failed
    // for want of a descriptor, and what follows needs one.
    await libcAsync.close(tun.fd);
    const errors = await takeDown(this.#takeBack(vpn, rules, own(shared)), parts);
    if (errors.length > 0) throw new AggregateError(errors, 'taking down failed');
  }

  /** When the VPN counts no more. `rules`: with its routes. */
  #takeBack({ plan, tun }: RaisedVpn, rules: readonly Operation[], shared: readonly Operation[]): TakeBack {
    return {
      link: () => this.#links.delete(tun),
      resolver: async () => {
        if (plan.owner === 0) await this.#resolver.restore();
      },
      sockets: () => this.#connections.end(plan, this.#plans()),
      lockdown: () => this.#lockdown.hold(plan.owner),
      rules: () => removeObjects(this.#netlink, rules),
      egressLock: () => this.#marks.unlock(tun.ifindex),
      firewall: () => this.#firewall.remove(plan),
      connections: () => this.#connections.forget(plan),
      programs: () => this.#marks.detach(plan, tun.ifindex),
      sharedRules: async () => {
        if (this.#raised.size === 0) await removeObjects(this.#netlink, shared);
      },
      surroundings: () => this.#refreshAfter(plan),
    };
  }

  /** Brings the host in line with a policy. Throws what the kernel refused; lockdown is then no weaker than before. */
  configure(policy: HostPolicy): Promise<void> {
    return this.#lane.run(async () => {
      const before = planUdpServices(this.#policy.udpServices);
      const wanted = planUdpServices(policy.udpServices);
      this.#policy = policy;
      // First, so that a lockdown that begins knows the links.
      if (policy.lockdown.size > 0) {
        await this.#machine.sync(this.#plans(), true);
        await this.#neighbourhood.refresh(policy, this.#needs({ vpn: true }));
      }
      await this.#lockdown.apply(policy.lockdown);
      if (this.#raised.size > 0) {
        await restoreObjects(this.#netlink, wanted, 0);
        const kept = new Set(policy.udpServices);
        const gone = before.filter((rule) => rule.kind === 'rule' && !kept.has(rule.sourcePorts?.first ?? 0));
        await removeObjects(this.#netlink, gone);
      }
      await this.#refresh();
    });
  }

  /** From now on notices what others do to our state, and what becomes of the links. */
  watch(epoll: Epoll): void {
    this.#watch = new HostWatch(epoll, {
      ownPorts: [this.#netlink.portId, this.#links.portId],
      liveLink: (ifindex) => this.#live.get(ifindex),
      onForeignChange: (changes) => {
        if (this.#raised.size > 0 || this.#lockdown.isInForce) this.#restorer.changed(changes.map(({ what }) => what));
      },
      onLinks: () => this.#onLinks(),
    });
    // What lockdown goes by was read before anybody listened.
    if (this.#lockdown.isInForce) this.#onLinks();
  }

  #onLinks(): void {
    void this.#lane.run(() => this.#refresh()).catch((error) => this.#failed('links', error));
  }

  /** Before the epoll is stopped. */
  unwatch(): void {
    this.#watch?.close();
  }

  /** Changes nothing. Throws NftablesError when there can be no firewall here, and so no VPN. */
  tryFirewall(): void {
    const { guardProblem, lockAbility } = this.#marks;
    const { tellsSubflows } = lockAbility;
    tryFirewall(this.#nftables(), { takesNew: guardProblem === undefined, tellsSubflows });
  }

  /**
   * Removes everything tagged as ours that this object did not raise: at start, when nothing is raised. Lockdown that the policy
   * wants is in force before anything goes.
   */
  sweep(policy: HostPolicy): Promise<Swept> {
    return this.#lane.run(async () => {
      this.#policy = policy;
      if (policy.lockdown.size > 0) {
        await this.#machine.prepare({ vpn: false, lockdown: true });
        // First, so that the lockdown that stands is replaced by one that knows the links.
        await this.#neighbourhood.refresh(policy, this.#needs({ vpn: true }));
        await this.#lockdown.apply(policy.lockdown);
      }
      const swept = await sweep(
        this.#netlink,
        () => this.#nftables(),
        { prefix: programPrefix(this.#netnsInode), own: this.#marks.lockProgram },
        this.#lockdown.isInForce,
        (addresses) => this.#connections.endFrom(addresses),
      );
      if (policy.lockdown.size === 0) await this.#lockdown.apply(policy.lockdown);
      this.#sysctls.sweep((await readLinkFacts(this.#netlink)).links);
      await this.#resolver.sweep();
      return swept;
    });
  }

  /** Every kind of packet that may leave outside a tunnel; `uid`: only of this user's VPN and lockdown. */
  exceptions(uid?: number): LeakException[] {
    const { lan } = this.#neighbourhood;
    const isAsked = (owner: number) => uid === undefined || owner === uid;
    const plans = this.#plans().filter(({ owner }) => isAsked(owner));
    const locked = [...this.#lockdown.users].filter(isAsked);
    const losses = this.#marks.lockAbility.tellsSubflows
      ? []
      : [
          ...plans.map(({ owner }) => exceptionOfMultipath(owner)),
          ...locked.map((locked) => exceptionOfMultipath(locked, true)),
        ];
    return [
      ...plans.flatMap((plan) => exceptionsOfVpn(plan, lan, this.#policy)),
      ...exceptionsOfLockdown(locked, lan),
      ...losses,
    ];
  }

  /** What does not work of root's VPN, and what helps. */
  rootWarnings(): string[] {
    return this.#resolver.problem === undefined ? [] : [this.#resolver.problem];
  }

  /** What others have under our names and numbers, in words. After a sweep, when nothing is raised. */
  collisions(): Promise<string[]> {
    return this.#lane.run(() => findCollisions(this.#netlink));
  }

  /** When what is under way is done: a descriptor that is closed too early may be somebody else's a moment later. */
  async close(): Promise<void> {
    this.unwatch();
    this.#marks.close();
    this.#restorer.close();
    await this.#lane.run(() => this.#lockdown.disown()).catch((error) => this.#failed('lockdown', error));
    this.#resolver.close();
    this.#sysctls.close();
    this.#connections.close();
    this.#netlink.close();
    this.#links.close();
    this.#nft?.close();
  }

  async #apply({ vpn, parts, shared, foreign }: Rising, request: VpnRequest): Promise<void> {
    const { plan, tun } = vpn;
    const isFirst = this.#raised.size === 0;
    // The firewall knows the vNIC by name: it is closed before a rule leads anything there.
    parts.add('firewall');
    await this.#firewall.add(plan, this.#firewall.isUp ? [] : await this.#connections.inbound());
    parts.add('connections').add('surroundings');
    const outsideDns = plan.outsideServers.length > 0;
    if (isFirst || plan.owner === 0 || outsideDns) {
      await this.#neighbourhood.refresh(this.#policy, this.#needs({ vpn: true }, plan));
    }
    if (plan.owner === 0 || outsideDns) this.#requireSysctls(plan);
    parts.add('programs').add('egressLock');
    this.#marks.guard(plan, request, tun.ifindex);
    parts.add('sockets').add('rules').add('sharedRules');
    if (isFirst) await this.#machine.prepare({ vpn: true, lockdown: this.#lockdown.isInForce });
    await addObjects(
      this.#netlink,
      vnicRequests(plan, tun),
      [...plan.routes, ...shared, ...plan.sectionRules, ...plan.rules],
      tun.ifindex,
      foreign,
    );
  }

  /** When the rules stand: what was there before ends, and who else is to know hears of it. */
  async #settle(
    { vpn: { plan, tun }, parts }: Rising,
    request: VpnRequest,
    paths: Record<'covered' | 'blocked', readonly string[]>,
  ): Promise<void> {
    const owners = this.#plans().map(({ owner }) => owner);
    const usersWithOwnVpn = new Set(owners.filter((uid) => uid !== 0));
    const beside = { usersWithOwnVpn, lan: this.#neighbourhood.lan };
    const covered = await coverageOf(plan, request, paths, beside);
    await this.#connections.begin(plan, covered, (flows) => this.#firewall.remember(flows));
    parts.add('lockdown');
    await this.#lockdown.release(covered);
    const { dnsAddresses, searchDomains, trustedApplications } = request.spec;
    if (plan.owner !== 0 || trustedApplications.length > 0 || dnsAddresses.length + searchDomains.length === 0) return;
    parts.add('resolver');
    await this.#resolver.apply({
      link: { name: tun.name, ifindex: tun.ifindex },
      servers: dnsAddresses.map(({ address }) => address),
      searchDomains,
      // The firewall redirects every query to these servers, so they answer for every name.
      exclusive: dnsAddresses.length > 0,
    });
  }

  /** The last VPN, and root's, leave the surroundings as they were. */
  async #refreshAfter(plan: Plan): Promise<void> {
    if (this.#raised.size === 0 || plan.owner === 0 || plan.outsideServers.length > 0) await this.#refresh();
    else if (this.#machine.hasFront) await this.#syncMachine();
  }

  async #refresh(): Promise<void> {
    // First: what it reads of others' tables says which links are outer ones.
    await this.#syncMachine();
    await this.#neighbourhood.refresh(this.#policy, this.#needs({ vpn: this.#raised.size > 0 }));
  }

  #syncMachine(): Promise<void> {
    return this.#machine.sync(this.#plans(), this.#lockdown.isInForce);
  }

  #plans(): Plan[] {
    return [...this.#raised.values()].map(({ plan }) => plan);
  }

  /** `rising`: of a VPN that counts already. */
  #needs({ vpn }: Pick<Needs, 'vpn'>, ...rising: readonly Plan[]): Needs {
    const plans = [...this.#plans(), ...rising];
    return {
      vpn,
      rootVpn: plans.some(({ owner }) => owner === 0),
      outsideDns: plans.some(({ outsideServers }) => outsideServers.length > 0),
    };
  }

  /** Of a VPN that is to be set up. Throws BusinessError 2200001 when the policy keeps it from asking one. */
  async #outsideServers({ owner, spec }: VpnRequest): Promise<OutsideServer[]> {
    if (spec.dnsAddresses.length === 0) return [];
    const { lan, onLink } = await this.#neighbourhood.survey(this.#policy);
    const outside = outsideServers(spec, lan.map(prefixOf));
    requirePolicy({ owner, spec, outside, onLink: onLink.filter(({ isOwn }) => isOwn).map(prefixOf) }, this.#policy);
    return outside;
  }

  /** What stands once while there is any VPN. */
  #sharedRules(): Operation[] {
    return [...planBase(this.#lastUid), ...planUdpServices(this.#policy.udpServices)];
  }

  /** Everything that should stand, put back as far as it does not. */
  #restore(): Promise<boolean> {
    return this.#lane.run(async () => {
      if (this.#raised.size > 0) {
        await this.#firewall.restore(await this.#connections.inbound());
        for (const { plan, tun } of this.#raised.values()) {
          // A vNIC that somebody deleted does not come back: its descriptor is dead. What is left keeps it closed.
          await this.#netlink.batch([...vnicRequests(plan, tun), ...vnicCorrections(plan, tun)]);
          await restoreObjects(this.#netlink, plan.routes, tun.ifindex);
        }
        await restoreObjects(this.#netlink, [...this.#sharedRules(), ...this.#sections.all()], 0);
        for (const { rules } of this.#plans()) await restoreObjects(this.#netlink, rules, 0);
      }
      await this.#lockdown.restore();
      await this.#refresh();
      this.#settings.log('warning', 'restored', {});
      return true;
    });
  }

  /** What it can do without is told. */
  #requireSysctls({ owner, shapes }: Plan): void {
    if (owner === 0) this.#sysctls.require("root's VPN", shapes[1].kind !== 'refused');
    else this.#sysctls.require('a name server outside the VPN', true);
    const { missing } = this.#sysctls;
    if (missing.length === 0) return;
    const reason = '/proc/sys is read-only for vpnd; what comes by these links may be filtered out';
    this.#settings.log('warning', 'sysctls-not-set', { sysctls: missing.join(' '), reason });
  }

  #failed(what: string, error: unknown): void {
    this.#settings.log('error', 'refresh-failed', { what, error: String(error) });
  }

  #takeSelections(request: VpnRequest, undo: UndoStack): Selected<number> {
    const taken: Selected<number> = {};
    for (const purpose of selectionsNeeded(request)) {
      const selection = this.#selections.take(request.owner);
      undo.push(() => this.#selections.delete(selection));
      taken[purpose] = selection;
    }
    return taken;
  }

  #nftables(): Nftables {
    this.#nft ??= new Nftables();
    return this.#nft;
  }
}

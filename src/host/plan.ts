/**
 * From a VPN's description to an ordered list of what has to stand in the kernel. Pure: no clock, no kernel, no names to look
 * up; the golden tests print it as `ip` and `nft` text. The order closes before it opens: what ends a look-up stands before
 * what begins one, and the rules that lead covered traffic here come last.
 */
import { RT_TABLE_DEFAULT, RT_TABLE_MAIN } from '../kernel/rtnetlink.js';
import type { VpnSpec } from '../model/vpn-spec.js';
import { FAMILIES, type Family, IPV4 } from '../model/vpn-types.js';
import type { AppSelector } from './applications.js';
import type { OutsideServer } from './dns-servers.js';
import { BYPASS_MARK, MARK_FIELD, PRIORITY, selectionMark, slotNumbers } from './numbers.js';
import type { Operation } from './operation.js';
import { type FirewallPlan, planFirewall, type Shapes } from './plan-firewall.js';
import { planRoutes } from './plan-routes.js';
import { planRules } from './plan-rules.js';
import type { PlanSections } from './sections.js';

/** Everything a plan depends on. */
export interface PlanInput {
  slot: number;
  /** The uid whose VPN it is; 0 covers every user without a VPN of its own. */
  owner: number;
  spec: VpnSpec;
  /** Whether the vNIC's descriptor is one with segmentation offload. Nothing else of a plan depends on it. */
  offload: boolean;
  trusted: readonly AppSelector[];
  blocked: readonly AppSelector[];
  /** The largest uid of this user namespace: the kernel refuses a rule for a uid that does not exist in it. */
  lastUid: number;
  /** Where rules that are told by uid or vNIC address go. */
  sections: PlanSections;
  /** Selections of the mark field, 1..127, where the plan needs them (see `selectionsNeeded`). */
  selections: Selected<number>;
  /** DNS servers that are not asked by the vNIC (dns-servers.ts). */
  outsideServers: readonly OutsideServer[];
  /** Cgroups that the lists name and that stand already: their sockets may be older than the VPN. */
  cgroups: Record<'covered' | 'blocked', readonly StandingCgroup[]>;
}

/** One value for what the VPN carries and one for what its list keeps out. */
export type Selected<T> = { covered?: T; blocked?: T };

/** A cgroup as nft matches it: how deep it is in the tree, and its path below /sys/fs/cgroup. */
export interface StandingCgroup {
  level: number;
  name: string;
}

/** A program that marks the sockets a cgroup creates. */
export interface CgroupMark {
  cgroup: string;
  mark: number;
  /** Only sockets of this uid; absent: of everyone, unless marked already. */
  uid?: number;
}

/** The same for every cgroup, standing or to come, that is the application's by its name. */
export interface ApplicationMark {
  id: string;
  mark: number;
  uid?: number;
}

export interface Plan {
  slot: number;
  owner: number;
  link: { name: string; mtu: number; vnetHeader: boolean; routeLocalnet: boolean; ipv6: boolean };
  /** On the vNIC, before and after it is up. */
  addresses: Operation[];
  routes: Operation[];
  /** Rules of sections that this VPN is the first in; they stay for those that come later. */
  sectionRules: readonly Operation[];
  rules: Operation[];
  firewall: FirewallPlan;
  hasDns: boolean;
  outsideServers: readonly OutsideServer[];
  /** Who is led in without a mark. */
  covers: { uids: { first: number; last: number }[]; forwarded: boolean };
  shapes: Shapes;
  cgroupMarks: CgroupMark[];
  applicationMarks: ApplicationMark[];
  /** Buckets whose sections it uses. */
  buckets: string[];
  selections: Selected<number>;
}

/** Which selections of the mark field a VPN cannot do without. */
export function selectionsNeeded(input: Pick<PlanInput, 'spec' | 'trusted' | 'blocked'>): ('covered' | 'blocked')[] {
  const needed: ('covered' | 'blocked')[] = [];
  if (hasDns(input.spec) || input.trusted.some(isMarked)) needed.push('covered');
  if (input.blocked.some(isMarked)) needed.push('blocked');
  return needed;
}

function covers({ owner, trusted, lastUid }: PlanInput): Plan['covers'] {
  const one = (uid: number) => ({ first: uid, last: uid });
  const listed = trusted.flatMap((selector) => (selector.kind === 'uid' ? [one(selector.uid)] : []));
  const everyone = owner === 0 ? { first: 0, last: lastUid } : one(owner);
  return { uids: trusted.length > 0 ? listed : [everyone], forwarded: owner === 0 && trusted.length === 0 };
}

/** Users are told by uid, everything else by a mark on its sockets. */
function isMarked({ kind }: AppSelector): boolean {
  return kind !== 'uid';
}

function hasDns(spec: VpnSpec): boolean {
  return spec.dnsAddresses.length > 0;
}

export function planVpn(input: PlanInput): Plan {
  const { spec, slot, owner, selections } = input;
  const numbers = slotNumbers(slot);
  const addresses: Operation[] = spec.addresses.map((address) => ({ kind: 'address', ...address, dev: numbers.link }));
  const routes: Operation[] = [];
  const rules: Operation[] = [];
  const { outsideServers } = input;
  const routed = {
    1: planRoutes(1, spec, numbers, outsideServers),
    2: planRoutes(2, spec, numbers, outsideServers),
  };
  const shapes = { 1: routed[1].shape, 2: routed[2].shape };
  for (const family of FAMILIES) {
    routes.push(...routed[family].operations);
    rules.push(...planRules(family, input, numbers, routed[family].shape));
  }
  return {
    slot,
    owner,
    link: {
      name: numbers.link,
      mtu: spec.mtu,
      vnetHeader: input.offload,
      routeLocalnet: hasDns(spec),
      ipv6: spec.accepted[2],
    },
    addresses,
    routes,
    sectionRules: input.sections.fresh,
    rules,
    firewall: planFirewall(input, numbers, shapes),
    hasDns: hasDns(spec),
    outsideServers,
    covers: covers(input),
    shapes,
    ...planMarks(input),
    buckets: [...input.sections.priorities.keys()],
    selections,
  };
}

/** How sockets get their marks; a part of the plan that has to stand before the rest is known. */
export function planMarks({
  owner,
  trusted,
  blocked,
  selections,
}: Pick<PlanInput, 'owner' | 'trusted' | 'blocked' | 'selections'>): Pick<Plan, 'cgroupMarks' | 'applicationMarks'> {
  const cgroupMarks: CgroupMark[] = [];
  const applicationMarks: ApplicationMark[] = [];
  const only = owner === 0 ? {} : { uid: owner };
  for (const [selectors, selection] of [
    [trusted, selections.covered],
    [blocked, selections.blocked],
  ] as const) {
    for (const selector of selectors) {
      if (selector.kind === 'uid' || selection === undefined) continue;
      const mark = selectionMark(selection);
      if (selector.kind === 'cgroup') cgroupMarks.push({ cgroup: selector.path, mark, ...only });
      else applicationMarks.push({ id: selector.id, mark, ...only });
    }
  }
  return { cgroupMarks, applicationMarks };
}

/** The rules every VPN shares; they stand from the first VPN to the last. */
export function planBase(lastUid: number): Operation[] {
  return FAMILIES.flatMap((family) => baseRules(family, lastUid));
}

/**
 * Servers that answer from any address of the host: what leaves from their ports is routed as without a VPN, so that it gets
 * the address it was asked at; the firewall lets out only what answers.
 */
export function planUdpServices(ports: readonly number[]): Operation[] {
  return FAMILIES.flatMap((family) =>
    ports.map(
      (port): Operation => ({
        kind: 'rule',
        family,
        priority: PRIORITY.udpService,
        action: 'goto',
        target: PRIORITY.end,
        iif: 'lo',
        protocol: 'udp',
        sourcePorts: { first: port, last: port },
      }),
    ),
  );
}

function baseRules(family: Family, lastUid: number): Operation[] {
  const rule = { kind: 'rule', family } as const;
  const bypass = { value: BYPASS_MARK, mask: BYPASS_MARK };
  // What root sends has no source address yet: past the list of the vNICs' addresses. IPv6 cannot ask for that.
  const fromNowhere = {
    ...rule,
    priority: PRIORITY.fromNowhere,
    action: 'goto',
    target: PRIORITY.rootOnly,
    from: '0.0.0.0',
  } as const;
  return [
    { ...rule, priority: PRIORITY.end, action: 'nop' },
    { ...rule, priority: PRIORITY.rootVpn, action: 'nop' },
    { ...rule, priority: PRIORITY.users, action: 'nop' },
    { ...rule, priority: PRIORITY.uncovered, action: 'goto', target: PRIORITY.end },
    // Sections are entered only by their guards.
    { ...rule, priority: PRIORITY.pastUsers, action: 'goto', target: PRIORITY.rootVpn },
    { ...rule, priority: PRIORITY.rootOnly, action: 'goto', target: PRIORITY.rootVpn },
    { ...rule, priority: PRIORITY.pastAddresses, action: 'goto', target: PRIORITY.rootOnly },
    ...(family === IPV4 ? [fromNowhere] : []),
    {
      ...rule,
      priority: PRIORITY.notRoot,
      action: 'goto',
      target: PRIORITY.users,
      uidRange: { first: 1, last: lastUid },
    },
    { ...rule, priority: PRIORITY.fromHost, action: 'goto', target: PRIORITY.notRoot, iif: 'lo' },
    { ...rule, priority: PRIORITY.bypassEnd, action: 'unreachable', fwmark: bypass },
    { ...rule, priority: PRIORITY.bypassDefault, action: 'lookup', table: RT_TABLE_DEFAULT, fwmark: bypass },
    { ...rule, priority: PRIORITY.bypass, action: 'lookup', table: RT_TABLE_MAIN, fwmark: bypass },
    {
      ...rule,
      priority: PRIORITY.unmarked,
      action: 'goto',
      target: PRIORITY.fromHost,
      fwmark: { value: 0, mask: MARK_FIELD },
    },
  ];
}

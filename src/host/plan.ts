/**
 * From a VPN's description to an ordered list of what has to stand in the kernel. Pure: no clock, no kernel, no names to look
 * up; the golden tests print it as `ip` and `nft` text. The order closes before it opens: what ends a look-up stands before
 * what begins one, and the rules that lead covered traffic here come last.
 */
import { RT_TABLE_DEFAULT, RT_TABLE_MAIN } from '../kernel/rtnetlink.js';
import type { VpnSpec } from '../model/vpn-spec.js';
import { FAMILIES, type Family, IPV4 } from '../model/vpn-types.js';
import type { AppSelector } from './applications.js';
import { BYPASS_MARK, MARK_FIELD, PRIORITY, selectionMark, slotNumbers } from './numbers.js';
import type { Operation } from './operation.js';
import { type DnsPlan, planDns } from './plan-dns.js';
import { planRoutes } from './plan-routes.js';
import { planRules } from './plan-rules.js';
import type { PlanSections } from './sections.js';

/** Everything a plan depends on. */
export interface PlanInput {
  slot: number;
  /** The uid whose VPN it is; 0 covers every user without a VPN of its own. */
  owner: number;
  spec: VpnSpec;
  trusted: readonly AppSelector[];
  blocked: readonly AppSelector[];
  /** The largest uid of this user namespace: the kernel refuses a rule for a uid that does not exist in it. */
  lastUid: number;
  /** Where rules that are told by uid or vNIC address go. */
  sections: PlanSections;
  /** Selections of the mark field, 1..127, where the plan needs them (see `selectionsNeeded`). */
  selections: { covered?: number; blocked?: number };
}

/** A program that marks the sockets a cgroup creates. */
export interface CgroupMark {
  cgroup: string;
  mark: number;
  /** Only sockets of this uid; absent: of everyone, unless marked already. */
  uid?: number;
}

export interface Plan {
  slot: number;
  owner: number;
  link: { name: string; mtu: number; routeLocalnet: boolean; ipv6: boolean };
  /** On the vNIC, before and after it is up. */
  addresses: Operation[];
  routes: Operation[];
  /** Rules of sections that this VPN is the first in; they stay for those that come later. */
  sectionRules: readonly Operation[];
  rules: Operation[];
  /** nft commands; undefined when the VPN brings no servers. */
  dns: DnsPlan | undefined;
  cgroupMarks: CgroupMark[];
  /** Buckets whose sections it uses. */
  buckets: string[];
  selections: { covered?: number; blocked?: number };
}

/** Which selections of the mark field a VPN cannot do without. */
export function selectionsNeeded(input: Pick<PlanInput, 'spec' | 'trusted' | 'blocked'>): ('covered' | 'blocked')[] {
  const needed: ('covered' | 'blocked')[] = [];
  if (hasDns(input.spec) || input.trusted.some((selector) => selector.kind === 'cgroup')) needed.push('covered');
  if (input.blocked.some((selector) => selector.kind === 'cgroup')) needed.push('blocked');
  return needed;
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
  for (const family of FAMILIES) {
    const routed = planRoutes(family, spec, numbers);
    routes.push(...routed.operations);
    rules.push(...planRules(family, input, numbers, routed.shape));
  }
  return {
    slot,
    owner,
    link: { name: numbers.link, mtu: spec.mtu, routeLocalnet: hasDns(spec), ipv6: spec.accepted[2] },
    addresses,
    routes,
    sectionRules: input.sections.fresh,
    rules,
    dns: hasDns(spec) ? planDns(input, numbers) : undefined,
    cgroupMarks: cgroupMarks(input),
    buckets: [...input.sections.priorities.keys()],
    selections,
  };
}

function cgroupMarks({ owner, trusted, blocked, selections }: PlanInput): CgroupMark[] {
  const marks = (selectors: readonly AppSelector[], selection: number | undefined): CgroupMark[] =>
    selectors.flatMap((selector) =>
      selector.kind === 'cgroup' && selection !== undefined
        ? [{ cgroup: selector.path, mark: selectionMark(selection), ...(owner !== 0 && { uid: owner }) }]
        : [],
    );
  return [...marks(trusted, selections.covered), ...marks(blocked, selections.blocked)];
}

/** The rules every VPN shares; they stand from the first VPN to the last. */
export function planBase(lastUid: number): Operation[] {
  return FAMILIES.flatMap((family) => baseRules(family, lastUid));
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

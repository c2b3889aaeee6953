/**
 * A VPN's share of the firewall: chains and sets of its own, and the elements that lead to them from the shared maps
 * (firewall-base.ts). What may leave outside the vNIC, what may enter it. What may arrive from it is in plan-arrivals.ts, DNS in
 * plan-dns.ts.
 */
import type { VpnSpec } from '../model/vpn-spec.js';
import { FAMILIES, type Family, IPV6 } from '../model/vpn-types.js';
import {
  ARP,
  addChain,
  addRule,
  DNS,
  EVERY_UID,
  hex,
  INET,
  NETDEV,
  SELECTION,
  setField,
  uid,
  uidRange,
} from './nft-text.js';
import { BYPASS_MARK, LAST_SYSTEM_UID, type SlotNumbers, selectionMark } from './numbers.js';
import type { PlanInput } from './plan.js';
import { planArrivals } from './plan-arrivals.js';
import { type DnsPlan, planDns } from './plan-dns.js';
import { fromLoopback } from './plan-outside-dns.js';
import type { RouteShape } from './plan-routes.js';
import { prefixRanges } from './prefix-ranges.js';

/** An element of a shared set or map: 'inet vpnd vnic4'. Two VPNs may need the same. */
export interface Element {
  set: string;
  key: string;
  verdict?: string;
}

export interface FirewallPlan {
  /** In the order they are made; deleted in reverse. */
  chains: string[];
  /** Definitions and content of sets of its own. */
  sets: { name: string; type: string; elements: string[] }[];
  rules: Rule[];
  /** Rules in chains that are empty until root has a VPN, with their tables. */
  rootRules: [table: string, chain: string, text: string][];
  elements: Element[];
  /** Whether the hooks of plan-outside-dns.ts are needed. */
  loopbackAnswers: boolean;
}

/** `cgroups`: names that come in the place of `{}` in the text; none of them stands: no rule. */
export type Rule = [chain: string, text: string, cgroups?: readonly string[]];

export type Shapes = Readonly<Record<Family, RouteShape>>;

const EVERYBODY = `meta skuid ${EVERY_UID}`;
const of = (family: Family): string => `meta nfproto ${family === IPV6 ? 'ipv6' : 'ipv4'}`;
const ip = (family: Family): string => (family === IPV6 ? 'ip6' : 'ip');
const digit = (family: Family): number => (family === IPV6 ? 6 : 4);

export function planFirewall(input: PlanInput, numbers: SlotNumbers, shapes: Shapes): FirewallPlan {
  const { slot, spec, owner } = input;
  const link = `"${numbers.link}"`;
  const sets = FAMILIES.flatMap((family) => prefixSets(family, slot, shapes[family]));
  const named = new Set(sets.map(({ name }) => name));
  const arrivals = planArrivals(slot, spec, shapes, named);
  const plan: FirewallPlan = {
    chains: [...arrivals.chains, `enter_${slot}`, `outside_${slot}`],
    sets,
    rules: [
      ...arrivals.rules,
      ...entering(input).map((text): [string, string] => [`enter_${slot}`, text]),
      ...leaving(input, shapes, named).map((text): [string, string] => [`outside_${slot}`, text]),
    ],
    rootRules: [],
    loopbackAnswers: false,
    elements: [
      ...spec.addresses.map(({ family, address }) => ({ set: `${INET} vnic${digit(family)}`, key: address })),
      ...spec.addresses
        .filter(({ family }) => family !== IPV6)
        .map(({ address }) => ({ set: `${ARP} vnic4`, key: address })),
      { set: `${INET} arrive`, key: link, verdict: `goto arrive_${slot}` },
      { set: `${INET} enter`, key: link, verdict: `goto enter_${slot}` },
    ],
  };
  addSelections(plan, input);
  addApplications(plan, input, numbers);
  addSource(plan, input, numbers);
  if (owner === 0) addRoot(plan, input, numbers, shapes);
  else addUser(plan, input, shapes);
  if (spec.dnsAddresses.length > 0) merge(plan, planDns(input));
  else if (owner !== 0) {
    for (const set of [`${INET} dns_user`, `${INET} dns_zone_user`]) {
      plan.elements.push({ set, key: uid(owner), verdict: 'return' });
    }
  }
  return plan;
}

/** `stands`: whether there still is a cgroup of this name. */
export function firewallAdditions(plan: FirewallPlan, stands: (cgroup: string) => boolean = () => true): string[] {
  const rules = plan.rules.flatMap(([chain, text, cgroups]): [string, string][] => {
    if (cgroups === undefined) return [[chain, text]];
    const standing = cgroups.filter(stands).map((name) => `"${name}"`);
    return standing.length === 0 ? [] : [[chain, text.replace('{}', () => `{ ${standing.join(', ')} }`)]];
  });
  return [
    ...plan.chains.map((chain) => addChain(INET, chain)),
    ...plan.sets.flatMap(({ name, type, elements }) => [
      `add set ${INET} ${name} { type ${type}; flags interval; }`,
      `add element ${INET} ${name} { ${elements.join(', ')} }`,
    ]),
    ...rules.map(([chain, text]) => addRule(INET, chain, text)),
    ...plan.rootRules.map(([table, chain, text]) => addRule(table, chain, text)),
    ...plan.elements.map(({ set, key, verdict }) => `add element ${set} { ${key}${verdict ? ` : ${verdict}` : ''} }`),
  ];
}

/** `elements` are those of the plan that no other VPN needs. */
export function firewallRemovals(plan: FirewallPlan, elements: readonly Element[]): string[] {
  const shared = [...new Set(plan.rootRules.map(([table, chain]) => `${table} ${chain}`))];
  return [
    ...shared.map((chain) => `flush chain ${chain}`),
    ...elements.map(({ set, key }) => `delete element ${set} { ${key} }`),
    ...plan.chains.map((chain) => `flush chain ${INET} ${chain}`),
    ...plan.sets.map(({ name }) => `delete set ${INET} ${name}`),
    ...plan.chains.toReversed().map((chain) => `delete chain ${INET} ${chain}`),
  ];
}

function merge(plan: FirewallPlan, dns: DnsPlan): void {
  plan.chains.push(...dns.chains);
  plan.rules.push(...dns.rules);
  plan.rootRules.push(...dns.rootRules);
  plan.elements.push(...dns.elements);
  plan.loopbackAnswers = dns.loopbackAnswers;
}

/** What the routing tables decide by the longest prefix, for packets that did not ask them. */
function prefixSets(family: Family, slot: number, { explicit, excluded }: RouteShape): FirewallPlan['sets'] {
  if (explicit.length + excluded.length === 0) return [];
  const ranges = prefixRanges(explicit, excluded);
  const type = family === IPV6 ? 'ipv6_addr' : 'ipv4_addr';
  return [
    { name: `in${digit(family)}_${slot}`, type, elements: ranges.included },
    { name: `out${digit(family)}_${slot}`, type, elements: ranges.excluded },
  ].filter(({ elements }) => elements.length > 0);
}

/** Into the vNIC: only covered traffic, only with the vNIC's own address. The kernel's own answers have no user. */
function entering({ spec, owner, trusted, blocked, selections }: PlanInput): string[] {
  const own = ownAddresses(spec);
  const rules = [
    `meta mark & ${hex(BYPASS_MARK)} == ${hex(BYPASS_MARK)} drop`,
    // First whose it is: what others try here is no covered traffic to be remembered.
    owner === 0 ? 'meta skuid @own_vpn drop' : `meta skuid != ${uid(owner)} drop`,
    ...FAMILIES.map((family) =>
      own[family].length > 0
        ? `${ip(family)} saddr != { ${own[family].join(', ')} } goto stopped`
        : `${of(family)} goto stopped`,
    ),
  ];
  const covered = `${SELECTION} == ${hex(selectionMark(selections.covered ?? 0))}`;
  const uids = uidsOf(trusted);
  if (selections.blocked !== undefined) rules.push(`${SELECTION} == ${hex(selectionMark(selections.blocked))} drop`);
  if (owner === 0 && uidsOf(blocked).length > 0) rules.push(`meta skuid { ${uidsOf(blocked).join(', ')} } drop`);
  if (trusted.length > 0) {
    if (selections.covered !== undefined) rules.push(`${covered} accept`);
    if (uids.length > 0) rules.push(`meta skuid { ${uids.join(', ')} } accept`);
    rules.push(`${EVERYBODY} drop`);
  }
  return rules;
}

/** Covered traffic on its way to another link. `sets`: names of those there are; a prefix may be cut to nothing by others in it. */
function leaving({ slot, owner }: PlanInput, shapes: Shapes, sets: ReadonlySet<string>): string[] {
  const rules: string[] = [];
  for (const family of FAMILIES) {
    const [included, excluded] = [`in${digit(family)}_${slot}`, `out${digit(family)}_${slot}`];
    if (sets.has(included)) rules.push(`${ip(family)} daddr @${included} goto stopped`);
    if (sets.has(excluded)) rules.push(`${ip(family)} daddr @${excluded} goto explained`);
    if (shapes[family].kind === 'some') rules.push(`${of(family)} goto explained`);
  }
  rules.push('jump lan');
  if (owner === 0) rules.push(...HOST_EXCEPTIONS);
  rules.push('goto stopped');
  return rules;
}

/** Without these the host loses its links: exceptions.ts says why of each. */
const SYSTEM = `meta skuid ${uidRange(0, LAST_SYSTEM_UID)}`;
/** From a client to a server. Of system accounts only: where ip_unprivileged_port_start is low, the ports are anybody's. */
export const DHCP = [`udp sport 68 udp dport 67 ${SYSTEM}`, `udp sport 546 udp dport 547 ${SYSTEM}`];
/** Frames of system accounts that carry no IP, also behind tags: ARP, 802.1X, LLDP, PPPoE. Of them only, since a type may lie. */
export const LINK_FRAMES = `ether type != { ip, ip6, 8021q, 8021ad, 0x8847, 0x8848 } ${SYSTEM} accept`;
export const HOST_EXCEPTIONS: readonly string[] = [
  'icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 goto explained',
  'icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } ip6 hoplimit 1 goto explained',
  'ip protocol igmp ip ttl 1 goto explained',
  ...DHCP.map((text) => `${text} goto explained`),
];

/**
 * By the mark that a program gave the socket. Of a user's VPN only that user's, since a socket keeps its mark for good; root's
 * come behind the users, because a user's VPN wins.
 */
function addSelections(plan: FirewallPlan, { slot, owner, selections }: PlanInput): void {
  const ways: [number | undefined, string, string][] = [
    [selections.covered, `selected_${slot}`, `goto outside_${slot}`],
    [selections.blocked, `passed_${slot}`, 'goto explained'],
  ];
  for (const [selection, chain, verdict] of ways) {
    if (selection === undefined) continue;
    const key = hex(selectionMark(selection));
    if (owner === 0) {
      plan.rootRules.push([INET, 'root_outside', `${SELECTION} == ${key} ${verdict}`]);
      continue;
    }
    plan.chains.push(chain);
    plan.rules.push([chain, `meta skuid != ${uid(owner)} return`], [chain, verdict]);
    plan.elements.push({ set: `${INET} outside_selection`, key, verdict: `jump ${chain}` });
  }
}

function addUser(plan: FirewallPlan, input: PlanInput, shapes: Shapes): void {
  const { slot, owner, trusted } = input;
  const key = uid(owner);
  const onlySome = trusted.length > 0 && uidsOf(trusted).length === 0;
  plan.elements.push(
    ...input.spec.addresses.flatMap(({ family, address }) => [
      { set: `${INET} owned${digit(family)}`, key: address },
      { set: `${INET} owner${digit(family)}`, key: `${address} . ${key}` },
    ]),
    { set: `${INET} own_vpn`, key },
    { set: `${INET} outside_user`, key, verdict: onlySome ? 'goto explained' : `goto outside_${slot}` },
    // ARP that the kernel asks for on its own has no user.
    { set: `${NETDEV} user`, key, verdict: 'drop' },
  );
  const refused = FAMILIES.filter((family) => shapes[family].kind === 'refused');
  if (refused.length === 0 || onlySome) return;
  addRefusal(plan, input, refused);
  addSent(plan, input, `jump refused_${slot}`);
}

/**
 * A socket that bound itself to an address of a refused family finds a route (plan-rules.ts, answersOfRefused): it hears at
 * once that it may not, instead of nothing.
 */
function addRefusal(plan: FirewallPlan, { slot, selections }: PlanInput, families: readonly Family[]): void {
  const { blocked } = selections;
  const rules = [
    'oifname "lo" return',
    `${DNS} return`,
    ...(blocked === undefined ? [] : [`${SELECTION} == ${hex(selectionMark(blocked))} return`]),
    'jump lan',
    ...families.map((family) => `${of(family)} goto refuse`),
  ];
  plan.chains.push(`refused_${slot}`);
  plan.rules.push(...rules.map((text): [string, string] => [`refused_${slot}`, text]));
}

/** Root's VPN covers whoever has none, so it fills the ends of the shared chains. */
function addRoot(plan: FirewallPlan, input: PlanInput, { link }: SlotNumbers, shapes: Shapes): void {
  const { slot, trusted, blocked } = input;
  const inet = (chain: string, text: string) => plan.rootRules.push([INET, chain, text]);
  const frames = (text: string) => plan.rootRules.push([NETDEV, 'root_frames', text]);
  // Reverse path filters judge by the rules of uid 0, which lead into the tunnel: what arrives shall be judged by main.
  inet('root_arrive', 'iifname @outer goto bypass');
  inet('root_arrive', 'fib daddr type { local, broadcast, multicast } goto bypass');
  // Who asks for our hardware address is judged so too, and gets no answer where the filter is strict and no local network allowed.
  plan.rootRules.push([ARP, 'root_probed', setField('meta', BYPASS_MARK)]);
  if (trusted.length > 0) {
    const listed = uidsOf(trusted);
    if (listed.length === 0) return;
    inet('root_outside', `meta skuid { ${listed.join(', ')} } goto outside_${slot}`);
    frames(`meta skuid { ${listed.join(', ')} } goto unexplained`);
    return;
  }
  // Ports that containers have published are there in the tunnel too, like the host's own.
  inet('forward_inward', `iifname "${link}" accept`);
  // A lease is renewed at a server that may be beyond the link.
  for (const text of DHCP) inet('root_send', `${text} goto bypass`);
  for (const text of DHCP) frames(`${text} accept`);
  frames(LINK_FRAMES);
  const passed = uidsOf(blocked);
  if (passed.length > 0) {
    inet('root_send', `meta skuid { ${passed.join(', ')} } return`);
    inet('root_outside', `meta skuid { ${passed.join(', ')} } goto explained`);
    frames(`meta skuid { ${passed.join(', ')} } accept`);
  }
  const refused = FAMILIES.filter((family) => shapes[family].kind === 'refused');
  if (refused.length > 0) {
    addRefusal(plan, input, refused);
    inet('root_send', 'meta skuid @own_vpn return');
    inet('root_send', `${EVERYBODY} jump refused_${slot}`);
  }
  inet('root_outside', `goto outside_${slot}`);
  frames(`${EVERYBODY} goto unexplained`);
}

/**
 * Sockets that were made before the program was attached have no mark, or one from a VPN that is gone: told by the cgroup they were
 * made in.
 */
function addApplications(plan: FirewallPlan, input: PlanInput, { link }: SlotNumbers): void {
  const { slot, owner, spec, selections, cgroups } = input;
  if (cgroups.covered.length + cgroups.blocked.length === 0) return;
  const chain = `apps_${slot}`;
  plan.chains.push(chain);
  if (owner === 0) plan.rules.push([chain, 'meta skuid @own_vpn return']);
  const marks = Object.values(selections).map((selection) => hex(selectionMark(selection)));
  plan.rules.push([chain, `${SELECTION} { ${marks.join(', ')} } return`]);
  for (const purpose of ['covered', 'blocked'] as const) {
    const mark = setField('meta', selectionMark(selections[purpose] ?? 0));
    // One look-up for all of a level: whoever makes cgroups of that name shall not make a packet's way longer.
    for (const level of new Set(cgroups[purpose].map((each) => each.level))) {
      const names = cgroups[purpose].filter((each) => each.level === level).map(({ name }) => name);
      plan.rules.push([chain, `socket cgroupv2 level ${level} {} ${mark} return`, names]);
    }
  }
  if (owner === 0) plan.rootRules.push([INET, 'root_send', `jump ${chain}`]);
  else addSent(plan, input, `jump ${chain}`);
  if (cgroups.blocked.length === 0) return;
  // What the list keeps out the rules have led in, being told by its user; so it has chosen the vNIC's address.
  plan.elements.push({ set: `${INET} sent_link`, key: `"${link}"`, verdict: `jump ${chain}` });
  const source = `passed_source_${slot}`;
  const own = ownAddresses(spec);
  plan.chains.push(source);
  for (const family of FAMILIES) {
    if (own[family].length === 0) continue;
    plan.rules.push([source, `${ip(family)} saddr { ${own[family].join(', ')} } masquerade`]);
  }
  const key = hex(selectionMark(selections.blocked ?? 0));
  plan.elements.push({ set: `${INET} source_selection`, key, verdict: `goto ${source}` });
}

/** What becomes of a user's packets before they leave by another link. */
function addSent(plan: FirewallPlan, { slot, owner }: PlanInput, text: string): void {
  const chain = `sent_${slot}`;
  plan.rules.push([chain, text]);
  if (plan.chains.includes(chain)) return;
  plan.chains.push(chain);
  plan.elements.push({ set: `${INET} sent_user`, key: uid(owner), verdict: `jump ${chain}` });
}

/**
 * Sources on the way into the vNIC: a query that was meant for loopback or the LAN, and what a container sends, carry other
 * links' addresses.
 */
function addSource(
  plan: FirewallPlan,
  { slot, owner, spec, trusted, outsideServers }: PlanInput,
  { link }: SlotNumbers,
): void {
  const own = ownAddresses(spec);
  const kinds = [
    ...(spec.dnsAddresses.length > 0 ? ['ct status dnat '] : []),
    ...(owner === 0 && trusted.length === 0 ? ['iif != 0 '] : []),
  ];
  const rules = kinds.flatMap((kind) =>
    FAMILIES.flatMap((family) => {
      const others = `${ip(family)} saddr != { ${own[family].join(', ')} }`;
      return own[family].length === 0 ? [] : [`${kind}${others} masquerade`];
    }),
  );
  // The vNIC's address has stood in for these since they were marked.
  for (const family of FAMILIES) {
    const isOutside = outsideServers.some((server) => server.family === family);
    if (isOutside && own[family].length > 0) rules.push(`ct status dnat ${fromLoopback(family)} masquerade`);
  }
  if (rules.length === 0) return;
  const chain = `source_${slot}`;
  plan.chains.push(chain);
  plan.rules.push(...rules.map((text): [string, string] => [chain, text]));
  plan.elements.push({ set: `${INET} source`, key: `"${link}"`, verdict: `goto ${chain}` });
}

function ownAddresses(spec: VpnSpec): Record<Family, string[]> {
  const own: Record<Family, string[]> = { 1: [], 2: [] };
  for (const { family, address } of spec.addresses) own[family].push(address);
  return own;
}

function uidsOf(selectors: PlanInput['trusted']): string[] {
  return selectors.flatMap((selector) => (selector.kind === 'uid' ? [uid(selector.uid)] : []));
}

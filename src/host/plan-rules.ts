/**
 * A VPN's rules for one family: its ladder, which only gotos reach, and the few rules that lead there. Covered traffic is
 * told by its uid, before its first look-up, so that source addresses come out right without NAT; or by the mark that a BPF
 * program gave its socket.
 */
import { RT_TABLE_MAIN } from '../kernel/rtnetlink.js';
import { type Family, IPV4, IPV6 } from '../model/vpn-types.js';
import { LAN_TABLE, LAST_UID, PRIORITY, SELECTION_FIELD, type SlotNumbers, STEP, selectionMark } from './numbers.js';
import type { Operation } from './operation.js';
import type { PlanInput } from './plan.js';
import type { RouteShape } from './plan-routes.js';
import { addressBucket, type Bucket, uidBucket } from './sections.js';

export function planRules(family: Family, input: PlanInput, numbers: SlotNumbers, shape: RouteShape): Operation[] {
  return [
    ...ladder(family, input, numbers, shape),
    ...kernelAnswers(family, input, numbers, shape),
    ...(input.owner === 0 ? rootSelectors(family, input, numbers, shape) : userSelectors(family, input, numbers)),
  ];
}

function ladder(family: Family, input: PlanInput, numbers: SlotNumbers, shape: RouteShape): Operation[] {
  const step = (offset: number) => ({ kind: 'rule', family, priority: numbers.ladder + offset }) as const;
  const steps: Operation[] = [];
  // Last one first: the end stands before anything can fall through to it.
  if (shape.kind === 'some') steps.push({ ...step(STEP.elsewhere), action: 'goto', target: PRIORITY.end });
  else {
    steps.push({ ...step(STEP.closed), action: 'unreachable' });
    // Only thrown prefixes get this far while the default table is whole. Main first, since others' rules may lead into tunnels.
    if (shape.excluded.length > 0) {
      steps.push({ ...step(STEP.excludedOtherwise), action: 'goto', target: PRIORITY.end });
      steps.push({ ...step(STEP.excluded), action: 'lookup', table: RT_TABLE_MAIN });
    }
    if (shape.kind === 'everything') {
      steps.push({ ...step(STEP.everything), action: 'lookup', table: numbers.defaultTable });
    }
    steps.push({ ...step(STEP.lan), action: 'lookup', table: LAN_TABLE });
    if (shape.kind === 'refused') steps.push(...answersOfRefused(family, input, numbers));
  }
  if (shape.explicit.length + shape.excluded.length > 0) {
    steps.push({ ...step(STEP.explicit), action: 'lookup', table: numbers.explicitTable });
  }
  // A goto needs a rule at its very target; an unresolved one is passed over, and that would be a leak.
  steps.push({ ...step(0), action: 'nop' });
  return steps;
}

/** Where ephemeral ports begin unless somebody changed that: below are services (ip_local_port_range in ip(7)). */
const EPHEMERAL = 32768;
/** The kernel takes no range that ends with 65535. */
const LAST_PORT = 65534;

/**
 * What comes in from outside by a refused family is answered, so it needs a route: an answer has its port when its route is
 * looked up, while a connection that is being made has none yet, and hears at once that there is no way. A socket that bound
 * itself to a port gets past this and meets the firewall's lock. Any route will do, since the firewall has answers routed again: the
 * machine's own, because main may have none.
 */
function answersOfRefused(family: Family, { owner, lastUid }: PlanInput, numbers: SlotNumbers): Operation[] {
  const priority = numbers.ladder + STEP.answers;
  const rule = { kind: 'rule', family, priority, action: 'goto', target: PRIORITY.end } as const;
  const answers: Operation[] = [
    { ...rule, protocol: 'tcp', sourcePorts: { first: 1, last: LAST_PORT } },
    { ...rule, protocol: 'udp', sourcePorts: { first: 1, last: EPHEMERAL - 1 } },
  ];
  // Echo replies are the kernel's. In a user namespace without number for its uid they are everybody's.
  const kernel = lastUid === LAST_UID ? { uidRange: { first: 0, last: 0 } } : {};
  if (owner === 0) {
    answers.push({ ...rule, protocol: family === IPV6 ? 'ipv6-icmp' : 'icmp', ...kernel });
  }
  return answers;
}

/**
 * What the kernel itself says from a vNIC's address (RST, echo reply, TIME_WAIT) has no user: by its source it goes back
 * into the tunnel instead of out by the physical link. Answers to a resolver on ::1 are let in from the vNIC.
 */
function kernelAnswers(family: Family, input: PlanInput, numbers: SlotNumbers, shape: RouteShape): Operation[] {
  if (shape.kind === 'refused') return [];
  const rules: Operation[] = input.spec.addresses
    .filter((address) => address.family === family)
    .map(({ address }) => ({
      kind: 'rule',
      family,
      // Addresses may be the same: what root sends from its own must not meet a user's rule first.
      priority: input.owner === 0 ? PRIORITY.fromRootAddress : sectionOf(input, addressBucket(family, address)),
      action: 'lookup',
      table: numbers.defaultTable,
      iif: 'lo',
      from: address,
    }));
  if (family === IPV6 && input.spec.dnsAddresses.length > 0) {
    const table = numbers.loopbackTable;
    rules.push({ kind: 'rule', family, priority: PRIORITY.fromLink, action: 'lookup', table, iif: numbers.link });
  }
  return rules;
}

function userSelectors(family: Family, input: PlanInput, numbers: SlotNumbers): Operation[] {
  const { owner, selections, trusted } = input;
  const onlySome = trusted.length > 0 && !trusted.some((selector) => selector.kind === 'uid');
  const mine = { first: owner, last: owner };
  const rules: Operation[] = [];
  // By uid as well: another user's socket may have kept the mark from a VPN that is gone.
  if (selections.blocked !== undefined) rules.push(selected(family, selections.blocked, mine, PRIORITY.end));
  rules.push(...passedOnTheirWay(family, input));
  if (selections.covered !== undefined) {
    rules.push(selected(family, selections.covered, mine, numbers.ladder));
    // A translated DNS query is routed again without its uid.
    if (input.spec.dnsAddresses.length > 0) {
      rules.push(selected(family, selections.covered, kernelUid(input), numbers.ladder));
    }
  }
  // Last: with a list it leads past root's VPN, which what is on the list must not leave before it is taken in here.
  rules.push({
    kind: 'rule',
    family,
    priority: sectionOf(input, uidBucket(owner, input.lastUid)),
    action: 'goto',
    // A user with a VPN of its own is never root's to cover.
    target: onlySome ? PRIORITY.end : numbers.ladder,
    iif: 'lo',
    uidRange: mine,
  });
  return rules;
}

/**
 * Packets of older sockets that the list keeps out get their mark on their way, and in IPv4 are routed again without their uid,
 * before the rules for the vNIC's address, which they have chosen.
 */
function passedOnTheirWay(family: Family, input: PlanInput): Operation[] {
  const { selections, cgroups } = input;
  if (selections.blocked === undefined || cgroups.blocked.length === 0) return [];
  return [selected(family, selections.blocked, kernelUid(input), PRIORITY.end)];
}

/** A user namespace may have no number for the kernel's uid 0, which look-ups without a uid are made for. */
function kernelUid({ lastUid }: PlanInput): { first: number; last: number } | undefined {
  return lastUid === LAST_UID ? { first: 0, last: 0 } : undefined;
}

function sectionOf({ sections }: PlanInput, { key, kind }: Bucket): number {
  return sections.priorities.get(key) ?? (kind === 'uid' ? PRIORITY.user : PRIORITY.fromUserAddress);
}

function selected(
  family: Family,
  selection: number,
  uidRange: { first: number; last: number } | undefined,
  target: number,
): Operation {
  return {
    kind: 'rule',
    family,
    priority: PRIORITY.selected,
    action: 'goto',
    target,
    iif: 'lo',
    fwmark: { value: selectionMark(selection), mask: SELECTION_FIELD },
    ...(uidRange && { uidRange }),
  };
}

/** Prefixes as short as this are no link's. Not 0: `wg-quick down` deletes the first rule of main with that. */
const NO_LINK = 7;

/**
 * When somebody adds a route with a gateway, the IPv4 stack asks the rules, as uid 0 without a source and a protocol, whether the
 * gateway is on-link. It must hear of main's own routes, else no DHCP client could bring a default route while the VPN is up;
 * what programs send has a protocol.
 */
function gatewayChecks(): Operation[] {
  const rule = { kind: 'rule', family: IPV4, iif: 'lo', from: '0.0.0.0' } as const;
  const past = { ...rule, priority: PRIORITY.ofProtocol, action: 'goto', target: PRIORITY.rootOnly } as const;
  return [
    { ...past, protocol: 'tcp' },
    { ...past, protocol: 'udp' },
    { ...past, protocol: 'icmp' },
    { ...rule, priority: PRIORITY.gatewayCheck, action: 'lookup', table: RT_TABLE_MAIN, suppressPrefixLength: NO_LINK },
  ];
}

/** Behind the users' rules: whoever has a VPN of its own never gets here. */
function rootSelectors(family: Family, input: PlanInput, numbers: SlotNumbers, shape: RouteShape): Operation[] {
  const { selections, trusted, blocked } = input;
  const uids = (selectors: PlanInput['trusted']): { first: number; last: number }[] =>
    selectors.flatMap((selector) => (selector.kind === 'uid' ? [{ first: selector.uid, last: selector.uid }] : []));
  const rule = { kind: 'rule', family, action: 'goto', iif: 'lo' } as const;
  const covered = { ...rule, priority: PRIORITY.rootCovered, target: numbers.ladder };
  const passed = { ...rule, priority: PRIORITY.rootBlocked, target: PRIORITY.end };
  const rules: Operation[] = uids(blocked).map((uidRange) => ({ ...passed, uidRange }));
  rules.push(...passedOnTheirWay(family, input));
  if (selections.blocked !== undefined) {
    rules.push({ ...passed, fwmark: { value: selectionMark(selections.blocked), mask: SELECTION_FIELD } });
  }
  if (selections.covered !== undefined) {
    rules.push({ ...covered, fwmark: { value: selectionMark(selections.covered), mask: SELECTION_FIELD } });
    // A query to a server outside has the vNIC's address while it is routed again, and must not go where that leads.
    if (input.outsideServers.length > 0) {
      rules.push(selected(family, selections.covered, kernelUid(input), numbers.ladder));
    }
  }
  const ranges = trusted.length > 0 ? uids(trusted) : [{ first: 0, last: input.lastUid }];
  for (const uidRange of ranges) rules.push({ ...covered, uidRange });
  if (family === IPV4) rules.push(...gatewayChecks());
  // Containers, virtual machines, other namespaces: as everyone. What is forwarded is no answer of this host.
  if (trusted.length === 0) {
    const target = shape.kind === 'refused' ? numbers.ladder + STEP.lan : numbers.ladder;
    rules.push({ kind: 'rule', family, action: 'goto', priority: PRIORITY.forwarded, target });
    // Answers to them, once their address is theirs again: to whatever link that is on, not into the vNIC once more.
    rules.push({
      kind: 'rule',
      family,
      action: 'goto',
      priority: PRIORITY.toForwarded,
      target: PRIORITY.end,
      iif: numbers.link,
    });
  }
  return rules;
}

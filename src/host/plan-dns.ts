/**
 * DNS of covered traffic, redirected to the VPN's servers: a VPN's share of the firewall's DNS chains (firewall-base.ts). A
 * family for which the VPN has no server, and a transport that name servers do not have, is refused at once, so that a resolver
 * tries its next server instead of asking somebody else's. A query that is for one of the VPN's servers already goes there, so that resolvers fail over by themselves.
 *
 * Translation is conntrack's, which knows a connection by its addresses and ports. Queries of all users may have the same: the
 * local resolver's address, and a port that comes round again. So those of each VPN are in a zone of their own. UDP only: a
 * closed TCP port is not used again while it matters, and the last segments of a socket that is gone would not be told whose they are.
 */
import type { VpnSpec } from '../model/vpn-spec.js';
import { FAMILIES, type Family, IPV6 } from '../model/vpn-types.js';
import { hex, INET, SELECTION, setField, UNSERVED_DNS, uid, uidRange } from './nft-text.js';
import { FIRST_ZONE, SELECTION_FIELD, selectionMark, slotNumbers } from './numbers.js';
import type { PlanInput } from './plan.js';
import type { FirewallPlan } from './plan-firewall.js';
import { planOutsideDns } from './plan-outside-dns.js';

export type DnsPlan = Pick<FirewallPlan, 'chains' | 'rules' | 'rootRules' | 'elements' | 'loopbackAnswers'>;

export function planDns(input: PlanInput): DnsPlan {
  const { slot, spec, owner, trusted, selections } = input;
  const mark = selectionMark(selections.covered ?? 0);
  const covered = hex(mark);
  const [chain, cover, to, zone] = [`dns_${slot}`, `dns_cover_${slot}`, `dns_to_${slot}`, `dns_zone_${slot}`];
  const unserved = FAMILIES.filter((family) => servers(spec, family).length === 0);
  const rules: [string, string][] = [
    // A socket from before the programs that mark has no mark yet, so it may be in a zone that is not its own.
    ...membership(input, `ct original zone set ${FIRST_ZONE + slot}`, covered).map((text): [string, string] => [
      zone,
      text,
    ]),
    ...membership(input, `goto ${cover}`, covered).map((text): [string, string] => [chain, text]),
    [cover, `${UNSERVED_DNS} goto refuse`],
    ...unserved.map((family): [string, string] => [cover, `meta nfproto ${protocolName(family)} goto refuse`]),
    // A connection that an answer began, or somebody else, is there already and would not be translated.
    [cover, `udp sport != 53 ct status confirmed ct mark & ${hex(SELECTION_FIELD)} != ${covered} goto refuse`],
    [cover, setField('meta', mark)],
    // The other bit of the field says which way the connection began, and stays.
    [cover, `ct mark set ct mark & ${hex(0x80ffffff | mark)} | ${covered}`],
    ...FAMILIES.flatMap((family) => redirection(family, spec)).map((text): [string, string] => [to, text]),
  ];
  const outside = planOutsideDns(input);
  rules.push(...outside.cover.map((text): [string, string] => [cover, text]), ...outside.rules);
  const elements: DnsPlan['elements'] = [
    { set: `${INET} dns_selection`, key: covered, verdict: `goto ${to}` },
    { set: `${INET} dns_connection`, key: covered, verdict: `goto ${cover}` },
    { set: `${INET} answer_mark`, key: `"${slotNumbers(slot).link}"`, verdict: covered },
  ];
  const rootRules: DnsPlan['rootRules'] = [];
  if (owner === 0) {
    rootRules.push([INET, 'root_dns', `goto ${chain}`], [INET, 'root_dns_zone', `goto ${zone}`]);
    // What is forwarded for containers and the like; what is for a resolver of this host stays here, and its own queries do not.
    if (trusted.length === 0) {
      rootRules.push(
        [INET, 'forward_dns', 'meta mark & 0x80000000 == 0x80000000 return'],
        [INET, 'forward_dns', 'iifname { "lo", "vpn-tun*" } return'],
        [INET, 'forward_dns', `fib daddr type != local goto ${to}`],
        [INET, 'forward_refused', `${UNSERVED_DNS} goto refuse`],
        ...unserved.map((family): DnsPlan['rootRules'][number] => [
          INET,
          'forward_refused',
          `meta nfproto ${protocolName(family)} meta l4proto { tcp, udp } th dport 53 goto refuse`,
        ]),
      );
    }
  } else {
    elements.push(
      { set: `${INET} dns_user`, key: uid(owner), verdict: `goto ${chain}` },
      { set: `${INET} dns_zone_user`, key: uid(owner), verdict: `goto ${zone}` },
    );
  }
  elements.push(...outside.elements);
  const chains = [to, cover, chain, zone, ...outside.chains];
  return { chains, rules, rootRules, elements, loopbackAnswers: outside.loopbackAnswers };
}

/** What to do with the packets that got here and are covered. A user's chain sees that user's packets, root's all but theirs. */
function membership(
  { owner, trusted, blocked, selections, lastUid }: PlanInput,
  verdict: string,
  covered: string,
): string[] {
  const uids = (selectors: PlanInput['trusted']) =>
    selectors.flatMap((selector) => (selector.kind === 'uid' ? [uid(selector.uid)] : [])).join(', ');
  if (trusted.length > 0) {
    const listed = uids(trusted);
    return [`${SELECTION} == ${covered} ${verdict}`, ...(listed ? [`meta skuid { ${listed} } ${verdict}`] : [])];
  }
  const passed = uids(blocked);
  return [
    ...(selections.blocked === undefined ? [] : [`${SELECTION} == ${hex(selectionMark(selections.blocked))} return`]),
    ...(passed && owner === 0 ? [`meta skuid { ${passed} } return`] : []),
    // A packet without a socket has no skuid and matches no range.
    `meta skuid ${uidRange(0, lastUid)} ${verdict}`,
  ];
}

function servers(spec: VpnSpec, family: Family): string[] {
  if (!spec.accepted[family]) return [];
  return spec.dnsAddresses.filter((server) => server.family === family).map((server) => server.address);
}

function protocolName(family: Family): string {
  return family === IPV6 ? 'ipv6' : 'ipv4';
}

/** Connections take the servers in turn. */
function redirection(family: Family, spec: VpnSpec): string[] {
  const addresses = servers(spec, family);
  if (addresses.length === 0) return [];
  const ip = family === IPV6 ? 'ip6' : 'ip';
  const choice =
    addresses.length === 1
      ? addresses[0]
      : `numgen inc mod ${addresses.length} map { ${addresses.map((address, index) => `${index} : ${address}`).join(', ')} }`;
  const query = `meta nfproto ${protocolName(family)} meta l4proto { tcp, udp } th dport 53`;
  return [`${ip} daddr { ${addresses.join(', ')} } return`, `${query} dnat ${ip} to ${choice}`];
}

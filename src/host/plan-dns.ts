/**
 * DNS of covered traffic, redirected to the VPN's servers, as nft commands (nft(8)). Traffic to port 53 gets the VPN's mark,
 * because the IPv4 re-route behind a destination NAT forgets the uid; by the mark it is translated. A family for which the
 * VPN has no server is refused at once, so that a resolver tries its next server instead of asking somebody else's.
 *
 * The shared chains look a packet up in one map, so that the number of VPNs costs others nothing. They exist only while a
 * VPN brings servers: a NAT chain turns connection tracking on for the whole network namespace.
 */
import type { VpnSpec } from '../model/vpn-spec.js';
import { FAMILIES, type Family, IPV6 } from '../model/vpn-types.js';
import { BYPASS_MARK, NFT_TABLE, SELECTION_FIELD, type SlotNumbers, selectionMark } from './numbers.js';
import type { PlanInput } from './plan.js';

export interface DnsPlan {
  add: string[];
  remove: string[];
}

const hex = (value: number): string => `0x${(value >>> 0).toString(16).padStart(8, '0')}`;
const TABLE = `inet ${NFT_TABLE}`;

/** The shared part. `users` are those with a VPN of their own but without servers: they are not root's to cover. */
export function planDnsBase(): DnsPlan {
  const chain = (name: string, hook = '') => `add chain ${TABLE} ${name}${hook && ` { ${hook}; policy accept; }`}`;
  const rule = (name: string, text: string) => `add rule ${TABLE} ${name} ${text}`;
  return {
    add: [
      `add table ${TABLE}`,
      `add map ${TABLE} dns_user { type uid : verdict; }`,
      `add map ${TABLE} dns_selection { type mark : verdict; }`,
      `add map ${TABLE} dns_connection { type mark : verdict; }`,
      `add map ${TABLE} dns_source { type ifname : verdict; }`,
      `add map ${TABLE} dns_answer { type ifname : verdict; }`,
      chain('refuse'),
      rule('refuse', 'meta l4proto tcp reject with tcp reset'),
      rule('refuse', 'reject with icmpx port-unreachable'),
      chain('mark_root'),
      chain('mark_dns'),
      rule('mark_dns', 'meta skuid vmap @dns_user'),
      rule('mark_dns', 'meta skuid 0-4294967294 goto mark_root'),
      // What a closed socket still has to say (data again, FIN, a TIME_WAIT's ACK) has no uid, but it has its connection.
      rule('mark_dns', `ct mark & ${hex(SELECTION_FIELD)} vmap @dns_connection`),
      chain('out_mark', 'type route hook output priority mangle'),
      rule('out_mark', `meta mark & ${hex(BYPASS_MARK)} vmap { ${hex(BYPASS_MARK)} : return }`),
      rule('out_mark', 'meta l4proto { tcp, udp } th dport 53 goto mark_dns'),
      // By number: nft 1.0.6 refuses the word dstnat in an output chain.
      chain('dns_redirect', 'type nat hook output priority -100'),
      // By the connection's mark: a socket may have kept its own from a VPN that is gone.
      rule('dns_redirect', `ct mark & ${hex(SELECTION_FIELD)} vmap @dns_selection`),
      chain('dns_source_nat', 'type nat hook postrouting priority srcnat'),
      rule('dns_source_nat', 'ct status dnat oifname vmap @dns_source'),
      chain('dns_guard', 'type filter hook prerouting priority raw'),
      rule('dns_guard', 'iifname vmap @dns_answer'),
    ],
    remove: [`delete table ${TABLE}`],
  };
}

/** For a user whose VPN brings no servers, while root's does. */
export function planDnsPassed(owner: number): DnsPlan {
  return {
    add: [`add element ${TABLE} dns_user { ${owner} : return }`],
    remove: [`delete element ${TABLE} dns_user { ${owner} }`],
  };
}

export function planDns(input: PlanInput, numbers: SlotNumbers): DnsPlan {
  const { slot, spec, owner, selections } = input;
  const covered = hex(selectionMark(selections.covered ?? 0));
  // As the listing prints it: bits that are set afterwards are not cleared before.
  const others = hex(0x80ffffff | selectionMark(selections.covered ?? 0));
  const chains = {
    mark: `mark_${slot}`,
    cover: `cover_${slot}`,
    to: `to_${slot}`,
    from: `from_${slot}`,
    in: `in_${slot}`,
  };
  const rule = (chain: string, text: string) => `add rule ${TABLE} ${chain} ${text}`;
  const elements: [map: string, key: string, chain: string][] = [
    ['dns_selection', covered, chains.to],
    ['dns_connection', covered, chains.cover],
    ['dns_source', `"${numbers.link}"`, chains.from],
    ['dns_answer', `"${numbers.link}"`, chains.in],
  ];
  if (owner !== 0) elements.push(['dns_user', String(owner), chains.mark]);
  return {
    add: [
      ...Object.values(chains).map((chain) => `add chain ${TABLE} ${chain}`),
      ...membership(input, chains.cover, covered).map((text) => rule(chains.mark, text)),
      ...FAMILIES.filter((family) => servers(spec, family).length === 0).map((family) =>
        rule(chains.cover, `meta nfproto ${protocol(family)} goto refuse`),
      ),
      ...['meta', 'ct'].map((mark) => rule(chains.cover, `${mark} mark set ${mark} mark & ${others} | ${covered}`)),
      ...FAMILIES.flatMap((family) => redirection(family, spec)).map((text) => rule(chains.to, text)),
      ...FAMILIES.flatMap((family) => source(family, spec)).map((text) => rule(chains.from, text)),
      // route_localnet opens 127.0.0.0/8 to the vNIC; only translated answers may use that.
      rule(chains.in, 'ip daddr 127.0.0.0/8 drop'),
      rule(chains.in, 'ip saddr 127.0.0.0/8 drop'),
      ...elements.map(([map, key, chain]) => `add element ${TABLE} ${map} { ${key} : goto ${chain} }`),
      ...(owner === 0 ? [rule('mark_root', `goto ${chains.mark}`)] : []),
    ],
    remove: [
      ...(owner === 0 ? [`flush chain ${TABLE} mark_root`] : []),
      ...elements.map(([map, key]) => `delete element ${TABLE} ${map} { ${key} }`),
      ...Object.values(chains).map((chain) => `flush chain ${TABLE} ${chain}`),
      ...Object.values(chains).map((chain) => `delete chain ${TABLE} ${chain}`),
    ],
  };
}

/** Which of the packets that got here are covered. A user's chain sees that user's packets, root's all but theirs. */
function membership(
  { owner, trusted, blocked, selections, lastUid }: PlanInput,
  cover: string,
  covered: string,
): string[] {
  const uids = (selectors: PlanInput['trusted']) =>
    selectors.flatMap((selector) => (selector.kind === 'uid' ? [String(selector.uid)] : [])).join(', ');
  const field = `meta mark & ${hex(SELECTION_FIELD)}`;
  if (trusted.length > 0) {
    const listed = uids(trusted);
    return [`${field} == ${covered} goto ${cover}`, ...(listed ? [`meta skuid { ${listed} } goto ${cover}`] : [])];
  }
  const passed = uids(blocked);
  return [
    ...(selections.blocked === undefined ? [] : [`${field} == ${hex(selectionMark(selections.blocked))} return`]),
    ...(passed && owner === 0 ? [`meta skuid { ${passed} } return`] : []),
    // A packet without a socket has no skuid and matches no range.
    `meta skuid 0-${lastUid} goto ${cover}`,
  ];
}

function servers(spec: VpnSpec, family: Family): string[] {
  if (!spec.accepted[family]) return [];
  return spec.dnsAddresses.filter((server) => server.family === family).map((server) => server.address);
}

const protocol = (family: Family): string => (family === IPV6 ? 'ipv6' : 'ipv4');

/** Connections take the servers in turn. */
function redirection(family: Family, spec: VpnSpec): string[] {
  const addresses = servers(spec, family);
  if (addresses.length === 0) return [];
  const ip = family === IPV6 ? 'ip6' : 'ip';
  const choice =
    addresses.length === 1
      ? addresses[0]
      : `numgen inc mod ${addresses.length} map { ${addresses.map((address, index) => `${index} : ${address}`).join(', ')} }`;
  return [`meta nfproto ${protocol(family)} meta l4proto { tcp, udp } th dport 53 dnat ${ip} to ${choice}`];
}

/** A query that was meant for loopback or the LAN carries that link's source address. */
function source(family: Family, spec: VpnSpec): string[] {
  const own = spec.addresses.find((address) => address.family === family)?.address;
  if (own === undefined || servers(spec, family).length === 0) return [];
  const ip = family === IPV6 ? 'ip6' : 'ip';
  return [`${ip} saddr != ${own} snat ${ip} to ${own}`];
}

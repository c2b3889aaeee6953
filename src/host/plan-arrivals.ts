/**
 * What may come out of a VPN's vNIC, judged before conntrack, fragment by fragment. Of destinations: the addresses that the VPN was
 * given, and groups. Of sources: those to which an answer goes back by the vNIC. A server that speaks in the name of a host
 * elsewhere would have the answer sent there, outside the tunnel, and in the name of this host to one of its own programs.
 */
import type { VpnSpec } from '../model/vpn-spec.js';
import { FAMILIES, type Family, IPV6 } from '../model/vpn-types.js';
import type { Shapes } from './plan-firewall.js';

/** Nobody answers an error, and routers inside the VPN have what addresses they like: those of a local network here, too. */
const ERRORS = [
  'icmp type { destination-unreachable, time-exceeded, parameter-problem } return',
  'icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } return',
];

/** `sets`: names of the prefix sets there are. */
export function planArrivals(
  slot: number,
  spec: VpnSpec,
  shapes: Shapes,
  sets: ReadonlySet<string>,
): { chains: string[]; rules: [chain: string, text: string][] } {
  const [arrive, from] = [`arrive_${slot}`, `arrive_from_${slot}`];
  return {
    chains: [from, arrive],
    rules: [
      ...sources(slot, shapes, sets).map((text): [string, string] => [from, text]),
      ...arriving(spec, from).map((text): [string, string] => [arrive, text]),
    ],
  };
}

function arriving(spec: VpnSpec, from: string): string[] {
  return [
    // route_localnet opens 127.0.0.0/8 to the vNIC, which only translated answers may use: as destination it is none of these. What
    // goes to no address at all goes to this host.
    'ip saddr { 0.0.0.0/8, 127.0.0.0/8 } drop',
    'ip6 saddr :: drop',
    // Behind a TUN there is no shorter way for anybody.
    'icmp type redirect drop',
    'icmpv6 type nd-redirect drop',
    'fib saddr type local drop',
    `jump ${from}`,
    ...FAMILIES.map((family) => [family, own(spec, family)] as const)
      .filter(([, addresses]) => addresses.length > 0)
      .map(([family, addresses]) => `${ip(family)} daddr { ${addresses.join(', ')} } accept`),
    // Groups are everybody's: a fragment from here would be put into what others sent there.
    'ip frag-off & 0x3fff != 0 drop',
    'exthdr frag exists drop',
    'ip daddr { 224.0.0.0/4, 255.255.255.255 } accept',
    'ip6 daddr ff00::/8 accept',
    'drop',
  ];
}

/** In the order of the VPN's ladder (plan-rules.ts): its own prefixes, what is excluded from it, local networks, the rest. */
function sources(slot: number, shapes: Shapes, sets: ReadonlySet<string>): string[] {
  const rules = [...ERRORS];
  for (const family of FAMILIES) {
    const [included, excluded] = [`in${digit(family)}_${slot}`, `out${digit(family)}_${slot}`];
    if (sets.has(included)) rules.push(`${ip(family)} saddr @${included} return`);
    if (sets.has(excluded)) rules.push(`${ip(family)} saddr @${excluded} drop`);
  }
  rules.push('jump local_sources');
  for (const family of FAMILIES) {
    // Without a default route the rest is outside as well. What the kernel itself answers, pings, goes back by the vNIC's address.
    if (shapes[family].kind !== 'everything') rules.push(`${kernelAnswersNot(family)} drop`);
  }
  return rules;
}

function kernelAnswersNot(family: Family): string {
  return family === IPV6 ? 'meta nfproto ipv6 meta l4proto != ipv6-icmp' : 'meta nfproto ipv4 meta l4proto != icmp';
}

function own(spec: VpnSpec, family: Family): string[] {
  return spec.addresses.filter((address) => address.family === family).map(({ address }) => address);
}

const ip = (family: Family): string => (family === IPV6 ? 'ip6' : 'ip');
const digit = (family: Family): number => (family === IPV6 ? 6 : 4);

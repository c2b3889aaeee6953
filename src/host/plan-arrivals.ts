/**
 * What may come out of a VPN's vNIC, judged before conntrack, fragment by fragment. Of destinations: the addresses that the VPN was
 * given, and groups. Of sources: those to which an answer goes back by the vNIC. A server that speaks in the name of a host
 * elsewhere would have the answer sent there, outside the tunnel, and in the name of this host to one of its own programs.
 */
import type { VpnSpec } from '../model/vpn-spec.js';
import { FAMILIES, type Family, IPV6 } from '../model/vpn-types.js';
import type { Shapes } from './plan-firewall.js';

/** `sets`: names of the prefix sets there are. */
export function planArrivals(
  slot: number,
  spec: VpnSpec,
  shapes: Shapes,
  sets: ReadonlySet<string>,
): { chains: string[]; rules: [chain: string, text: string][] } {
  const [arrive, local] = [`arrive_${slot}`, `arrive_local_${slot}`];
  return {
    chains: [local, arrive],
    rules: [
      ...fromLocalNetwork(slot, sets).map((text): [string, string] => [local, text]),
      ...arriving(slot, spec, shapes, sets).map((text): [string, string] => [arrive, text]),
    ],
  };
}

/** Every packet comes through here, so what most of them are not is asked with one look-up. */
function arriving(slot: number, spec: VpnSpec, shapes: Shapes, sets: ReadonlySet<string>): string[] {
  return [
    // route_localnet opens 127.0.0.0/8 to the vNIC, which only translated answers may use: as destination it is none of these.
    'ip saddr 127.0.0.0/8 drop',
    // A family that the VPN does not accept, also for groups that somebody listens to.
    ...FAMILIES.filter((family) => shapes[family].kind === 'refused').map(
      (family) => `meta nfproto ipv${digit(family)} drop`,
    ),
    // No stations on the way, by which it would leave again (IPv4's are a setting of the link, link-settings.ts).
    'exthdr rt exists drop',
    // An answer to no address goes to this host. In IPv4 only groups hear from it.
    'ip6 saddr :: drop',
    // In the middle of a connection: its source is who it was begun with, or the kernel's answer has the vNIC's address, which leaves by
    // no other link. Most of what comes, so before what costs.
    ...toOwn(spec).map((daddr) => `tcp flags & syn == 0 ${daddr} accept`),
    // Behind a TUN there is no shorter way for anybody.
    'icmp type redirect drop',
    // Nor a router: what one says would configure this host.
    'icmpv6 type { nd-router-advert, nd-redirect } drop',
    'fib saddr type local drop',
    ...FAMILIES.flatMap((family) => sources(family, slot, shapes, sets)),
    ...toOwn(spec).map((daddr) => `${daddr} accept`),
    // Groups are everybody's: a fragment from here would be put into what others sent there.
    'ip frag-off & 0x3fff != 0 drop',
    'exthdr frag exists drop',
    'ip saddr 0.0.0.0/8 drop',
    'ip daddr { 224.0.0.0/4, 255.255.255.255 } accept',
    'ip6 daddr ff00::/8 accept',
    'drop',
  ];
}

/** Those whose answers the VPN's ladder (plan-rules.ts) leads elsewhere: local networks, what is excluded, the rest. */
function sources(family: Family, slot: number, shapes: Shapes, sets: ReadonlySet<string>): string[] {
  const [included, excluded] = [`in${digit(family)}_${slot}`, `out${digit(family)}_${slot}`];
  const saddr = `${ip(family)} saddr`;
  const rules = [`${saddr} @local${digit(family)} jump arrive_local_${slot}`];
  if (sets.has(excluded)) rules.push(`${saddr} @${excluded} jump foreign`);
  // Without a default route the rest is outside as well. What the kernel itself answers, pings, goes back by the vNIC's address.
  if (shapes[family].kind !== 'everything') {
    const rest = sets.has(included) ? `${saddr} != @${included}` : `meta nfproto ipv${digit(family)}`;
    rules.push(`${rest} meta l4proto != ${family === IPV6 ? 'icmpv6' : 'icmp'} drop`);
  }
  return rules;
}

/** The VPN's own prefixes count more than the networks that this host is in. */
function fromLocalNetwork(slot: number, sets: ReadonlySet<string>): string[] {
  const included = FAMILIES.map((family) => [family, `in${digit(family)}_${slot}`] as const);
  return [
    ...included.flatMap(([family, set]) => (sets.has(set) ? [`${ip(family)} saddr @${set} return`] : [])),
    'jump foreign',
  ];
}

/** The addresses that the VPN was given, as matches. */
function toOwn({ addresses }: VpnSpec): string[] {
  return FAMILIES.flatMap((family) => {
    const own = addresses.filter((address) => address.family === family).map(({ address }) => address);
    return own.length === 0 ? [] : [`${ip(family)} daddr { ${own.join(', ')} }`];
  });
}

const ip = (family: Family): string => (family === IPV6 ? 'ip6' : 'ip');
const digit = (family: Family): number => (family === IPV6 ? 6 : 4);

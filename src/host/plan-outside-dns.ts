/**
 * Queries to DNS servers that are not inside the VPN (dns-servers.ts): they leave by the link that any packet of who is covered would, with
 * that link's address as source. A VPN's share of the firewall.
 *
 * What was meant for a resolver on loopback has a source that leaves by no link and that no answer may have on the way in, but for
 * route_localnet, which on a link with the world behind it would open this host's loopback to the world. So the vNIC's address stands in
 * for it where routes are looked up: on the way out before the translation, on the way in behind it, until it is for this host. Conntrack
 * hears nothing of that.
 */
import { FAMILIES, type Family, IPV6 } from '../model/vpn-types.js';
import { addChain, addRule, hex, INET } from './nft-text.js';
import { SELECTION_FIELD, selectionMark } from './numbers.js';
import type { PlanInput } from './plan.js';
import type { Element } from './plan-firewall.js';

const LOOPBACK: Readonly<Record<Family, string>> = { 1: '127.0.0.1', 2: '::1' };
const ip = (family: Family): string => (family === IPV6 ? 'ip6' : 'ip');
const BY_SELECTION = `ct direction reply ct mark & ${hex(SELECTION_FIELD)}`;

export interface OutsideDnsPlan {
  chains: string[];
  rules: [chain: string, text: string][];
  /** Of what is marked as the VPN's query. */
  cover: string[];
  elements: Element[];
  /** Whether the hooks of loopbackAnswers() are needed. */
  loopbackAnswers: boolean;
}

export function planOutsideDns({ slot, spec, selections, outsideServers }: PlanInput): OutsideDnsPlan {
  const own = (family: Family) => spec.addresses.flatMap((each) => (each.family === family ? [each.address] : []));
  const families = FAMILIES.flatMap((family): [Family, string][] => {
    const [address] = own(family);
    return address !== undefined && outsideServers.some((server) => server.family === family)
      ? [[family, address]]
      : [];
  });
  if (families.length === 0) return { chains: [], rules: [], cover: [], elements: [], loopbackAnswers: false };
  const [source, routed, received] = [`dns_source_${slot}`, `dns_routed_${slot}`, `dns_received_${slot}`];
  const each = (chain: string, text: (family: Family, address: string) => string): [string, string][] =>
    families.map(([family, address]) => [chain, text(family, address)]);
  const key = hex(selectionMark(selections.covered ?? 0));
  return {
    chains: [source, routed, received],
    cover: families.map(
      ([family, address]) => `${ip(family)} saddr ${LOOPBACK[family]} ${ip(family)} saddr set ${address}`,
    ),
    rules: [
      [source, 'oifname "lo" return'],
      [source, 'meta l4proto != { tcp, udp } return'],
      [source, 'th dport != 53 return'],
      [source, 'ct status dnat masquerade'],
      // A resolver that was told of the server may have bound itself to the vNIC, and what is led out by a mark has chosen its address.
      ...each(source, (family) => `${ip(family)} saddr { ${own(family).join(', ')} } masquerade`),
      ...each(
        routed,
        (family, address) => `${ip(family)} daddr ${LOOPBACK[family]} ${ip(family)} daddr set ${address}`,
      ),
      ...each(
        received,
        (family, address) =>
          `${ip(family)} daddr ${address} ${fromLoopback(family)} ${ip(family)} daddr set ${LOOPBACK[family]}`,
      ),
    ],
    elements: [
      { set: `${INET} source_selection`, key, verdict: `goto ${source}` },
      { set: `${INET} answer_routed`, key, verdict: `goto ${routed}` },
      { set: `${INET} answer_received`, key, verdict: `goto ${received}` },
    ],
    loopbackAnswers: true,
  };
}

/** Of a query that was meant for a resolver on loopback, as conntrack knows it. */
export function fromLoopback(family: Family): string {
  return `ct original ${ip(family)} saddr ${LOOPBACK[family]}`;
}

/** Hooks that every packet pays for: there while some VPN needs them. Behind the translation, each way. */
export function loopbackAnswers(): string[] {
  const chains = [
    ['answers_routed', 'type filter hook prerouting priority -90', 'answer_routed'],
    ['answers_received', 'type filter hook input priority 110', 'answer_received'],
  ] as const;
  return chains.flatMap(([chain, hook, map]) => [
    addChain(INET, chain, hook),
    addRule(INET, chain, 'iifname { "lo", "vpn-tun*" } return'),
    addRule(INET, chain, `${BY_SELECTION} vmap @${map}`),
  ]);
}

export function loopbackAnswersRemoval(): string[] {
  return ['answers_routed', 'answers_received'].flatMap((chain) => [
    `flush chain ${INET} ${chain}`,
    `delete chain ${INET} ${chain}`,
  ]);
}

/**
 * By which way a VPN's DNS servers are reached: as any packet of who is covered to that address is. Judged once, when the VPN is set up:
 * a server that is in the VPN then has a route into it, so that no network that this host comes to later can claim its address. Pure.
 */
import { type Prefix, prefixContains } from '../model/address.js';
import { BusinessError } from '../model/errors.js';
import type { VpnSpec } from '../model/vpn-spec.js';
import type { Family } from '../model/vpn-types.js';
import type { HostPolicy } from './host-policy.js';
import { isPrivateNetwork } from './lan.js';

/** A server that is not asked by the vNIC. */
export interface OutsideServer {
  family: Family;
  address: string;
  /** What leads it there: a local network that the policy allows, an excluded prefix, or that the VPN has no route to it. */
  way: 'lan' | 'excluded' | 'uncovered';
}

/** `lan`: networks that covered traffic reaches directly. */
export function outsideServers(spec: VpnSpec, lan: readonly Prefix[]): OutsideServer[] {
  return spec.dnsAddresses.flatMap(({ family, address }) => {
    const way = spec.accepted[family] ? wayOf(spec, family, address, lan) : undefined;
    return way === undefined ? [] : [{ family, address, way }];
  });
}

/** The order of the ladder (plan-rules.ts): what the app named, local networks, everything else. Undefined: the vNIC. */
function wayOf(
  { addresses, routes }: VpnSpec,
  family: Family,
  server: string,
  lan: readonly Prefix[],
): OutsideServer['way'] | undefined {
  const own = addresses.map(({ address, prefixLength }) => ({ address, prefixLength, isExcluded: false }));
  const named = routes
    .filter((route) => route.family === family)
    .map(({ destination, prefixLength, isExcluded }) => ({ address: destination, prefixLength, isExcluded }));
  // What the app said of a prefix counts more than that an address lies in it, so it comes first.
  const [best] = [...named, ...own]
    .filter((prefix) => prefix.prefixLength > 0 && prefixContains(prefix, server))
    .sort((a, b) => b.prefixLength - a.prefixLength);
  if (best && !best.isExcluded) return undefined;
  const isLocal = lan.some((prefix) => prefixContains(prefix, server));
  const everything = named.find(({ prefixLength }) => prefixLength === 0);
  if (everything === undefined || everything.isExcluded) return best ? 'excluded' : 'uncovered';
  if (isLocal) return 'lan';
  return best && 'excluded';
}

/**
 * Throws BusinessError 2200001 for a server that the policy keeps from being asked: under lockdown nobody asks one outside a VPN, and
 * without local networks nobody one of theirs. `onLink`: networks that this host is in, allowed or not.
 */
export function requirePolicy(
  {
    owner,
    spec,
    outside,
    onLink,
  }: { owner: number; spec: VpnSpec; outside: readonly OutsideServer[]; onLink: readonly Prefix[] },
  { lan, lockdown }: Pick<HostPolicy, 'lan' | 'lockdown'>,
): void {
  const isLocked = lockdown.has(0) || lockdown.has(owner) || (owner === 0 && lockdown.size > 0);
  const [first] = outside;
  if (first && isLocked) {
    const reason = `${first.address} would be asked outside the VPN (${WAYS[first.way]}), which lockdown does not allow: ${INSIDE}`;
    throw new BusinessError(2200001, 'config.dnsAddresses', reason);
  }
  const isOff = lan === 'off' || lan.length === 0;
  if (!isOff) return;
  const unreachable = spec.dnsAddresses.find(
    ({ family, address }) =>
      spec.accepted[family] &&
      !outside.some((server) => server.address === address) &&
      !isNamed(spec, address) &&
      onLink.some((prefix) => isPrivateNetwork(prefix) && prefixContains(prefix, address)),
  );
  if (!unreachable) return;
  const reason = `${unreachable.address} is on a local network, which the policy ("lan": ${JSON.stringify(lan)}) does not allow: ${INSIDE}`;
  throw new BusinessError(2200001, 'config.dnsAddresses', reason);
}

const WAYS: Readonly<Record<OutsideServer['way'], string>> = {
  lan: 'it is on a local network',
  excluded: 'it is in an excluded prefix',
  uncovered: 'the VPN has no route to it',
};
const INSIDE = 'choose a server inside the VPN, or give the VPN a route to it (AllowedIPs in a file)';

/** By a route of the app's, or a network of the vNIC's addresses. */
function isNamed({ addresses, routes }: VpnSpec, server: string): boolean {
  const named = routes.map(({ destination, prefixLength }) => ({ address: destination, prefixLength }));
  return [...named, ...addresses].some((prefix) => prefix.prefixLength > 0 && prefixContains(prefix, server));
}

export function prefixOf({ destination, prefixLength }: { destination: string; prefixLength: number }): Prefix {
  return { address: destination, prefixLength };
}

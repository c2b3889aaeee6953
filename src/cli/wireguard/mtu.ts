/** The MTU of a tunnel whose file names none, from the paths to its peers: 80 bytes under the path's, as wg-quick does, or less. */
import { DEFAULT_MTU, MIN_IPV6_MTU, MIN_MTU } from '../../model/limits.js';
import { IPV6 } from '../../model/vpn-types.js';
import type { QuickFile } from './quick-file.js';
import { acceptedFamilies } from './vpn-config.js';

/**
 * IPv6 header 40, UDP 8, WireGuard's header 16, tag 16. Over IPv4 it would be 60; but a peer may roam to IPv6, and both ends should
 * agree, so wg-quick takes 80 always.
 */
const OVERHEAD = 80;
/**
 * ChaCha20 works in blocks of 64 bytes (RFC 8439), and OpenSSL does a last, partial one by itself: a packet of 1408 bytes takes a
 * twelfth less processor time to seal or to open than one of 1420, and carries one percent less.
 */
const CIPHER_BLOCK = 64;
/** Only loopback has this. What listens there sends on by a path that cannot be seen from here. */
const LOOPBACK_MTU = 65_535;

/**
 * The smallest path decides, where wg-quick takes the largest: there is one MTU for all peers, and what is too large for one of
 * them would be lost. Rounded down to whole blocks of the cipher. Without an endpoint 1408. Never under 1280 with IPv6 inside, nor under 576: then the datagrams are
 * fragmented outside.
 *
 * @param routeMtus in bytes, of the route to each endpoint (`routeMtu` of vpn-manager's tunnel)
 * @example tunnelMtu([1500, 1492], true) // 1408
 */
export function tunnelMtu(routeMtus: readonly number[], carriesIpv6: boolean): number {
  const seen = routeMtus.map((mtu) => (mtu >= LOOPBACK_MTU ? DEFAULT_MTU : mtu));
  const path = seen.length > 0 ? Math.min(...seen) : DEFAULT_MTU;
  const whole = Math.floor((path - OVERHEAD) / CIPHER_BLOCK) * CIPHER_BLOCK;
  return Math.max(whole, carriesIpv6 ? MIN_IPV6_MTU : MIN_MTU);
}

/** What the file says, else `tunnelMtu`. */
export function mtuOf(file: QuickFile, routeMtus: readonly number[]): number {
  return file.interface.mtu?.value ?? tunnelMtu(routeMtus, acceptedFamilies(file)[IPV6]);
}

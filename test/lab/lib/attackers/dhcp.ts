/**
 * What a hostile DHCP server makes a client do to its routes, done as the client would do it: classless static routes (option
 * 121, RFC 3442; TunnelVision, CVE-2024-3661) and leases that make somebody else's network look on-link (TunnelCrack
 * LocalNet, CVE-2023-36672). IPv6 has the same by route information (RFC 4191) and on-link prefixes.
 */
import type { LabHost } from '../host.js';
import { ADDRESSES } from '../standard-lab.js';

const { internet, server } = ADDRESSES;
const MORE_SPECIFIC = ['0.0.0.0/1', '128.0.0.0/1', `${internet.ipv4}/32`, `${server.ipv4}/32`];
const MORE_SPECIFIC_6 = ['::/1', '8000::/1', `${internet.ipv6}/128`, `${server.ipv6}/128`];

/** More specific than any default route, via the attacker. Returns what takes them back. */
export async function pushRoutes(
  host: LabHost,
  device: string,
  gateway: { ipv4: string; ipv6: string },
): Promise<() => Promise<void>> {
  const routes = [
    ...MORE_SPECIFIC.map((prefix) => `${prefix} via ${gateway.ipv4} dev ${device}`),
    ...MORE_SPECIFIC_6.map((prefix) => `${prefix} via ${gateway.ipv6} dev ${device}`),
  ];
  await host.ip(...routes.map((route) => `route add ${route}`));
  return () => host.ip(...routes.map((route) => `route del ${route}`));
}

/** Public networks on the link: the host asks the link for their addresses. Returns what takes them back. */
export async function leasePublicPrefix(host: LabHost, device: string): Promise<() => Promise<void>> {
  const addresses = ['203.0.113.200/24', '198.51.100.200/24', '2001:db8:f::200/64', '2001:db8:2::200/64'];
  await host.configure(device, addresses);
  return () => host.ip(...addresses.map((address) => `address del ${address} dev ${device}`));
}

/**
 * What the machine's resolver is told about a VPN, and the strict grammar that every value passes before it goes to D-Bus,
 * to a program's standard input or into a file.
 */
import { canonicalAddress, literalFamily } from '../../model/address.js';
import { BusinessError } from '../../model/errors.js';
import { quote } from '../../model/quote.js';

export interface ResolverRequest {
  link: { name: string; ifindex: number };
  /** Canonical IP literals, in the order in which they are asked. */
  servers: readonly string[];
  /** Lower case, without the dot at the end. */
  searchDomains: readonly string[];
  /** The VPN answers for every name, not only for its domains. */
  exclusive: boolean;
}

/** What the log takes; the service's `Log` fits. */
export type ResolverLog = (
  level: 'error' | 'warning' | 'info' | 'debug',
  event: string,
  fields?: Record<string, string | number | boolean | undefined>,
) => void;

/** A way to tell one kind of resolver. Both calls may be repeated. */
export interface BackEnd {
  readonly kind: 'systemd-resolved' | 'resolvconf' | 'file';
  /** Returns whether it was not so already, as far as the back end can tell. */
  apply(request: ResolverRequest): Promise<boolean>;
  /** The resolver is as if it had never been told; also when it is gone, or when the link is. */
  restore(): Promise<void>;
}

/** checkVpnConfig has refused bad values long before, naming the entry; this is the lock at the door itself. */
export function checkRequest({ link, servers, searchDomains, exclusive }: ResolverRequest): ResolverRequest {
  if (!/^[a-z0-9-]{1,15}$/.test(link.name)) fault(`${quote(link.name)} is no link of a VPN`);
  if (!Number.isInteger(link.ifindex) || link.ifindex < 1 || link.ifindex > 0x7fffffff) {
    fault(`${quote(link.ifindex)} is no interface index`);
  }
  for (const server of servers) if (canonicalAddress(server) !== server) fault(`${quote(server)} is no DNS server`);
  for (const domain of searchDomains) if (!isDomain(domain)) fault(`${quote(domain)} is no domain name`);
  return { link: { ...link }, servers: [...servers], searchDomains: [...searchDomains], exclusive };
}

function isDomain(name: string): boolean {
  return (
    name.length <= 253 && /^[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*$/.test(name) && literalFamily(name) === undefined
  );
}

function fault(reason: string): never {
  throw new BusinessError(2200003, undefined, reason);
}

/** What the service cannot do without, checked before anything is touched, each named with its fix. */
import { accessSync, constants, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { NftablesError, nftablesAvailable } from '../kernel/nftables.js';

const CAP_NET_ADMIN = 12n;

/** 69: the machine lacks something; 77: we lack a right. */
export class FacilityError extends Error {
  override readonly name = 'FacilityError';
  readonly exitCode: 69 | 77;

  constructor(exitCode: 69 | 77, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** The oldest kernel that has all we need; `release` as uname(2) gives it. */
export function isTooOld(release: string): boolean {
  const [major = 0, minor = 0] = release.split('.').map((part) => Number.parseInt(part, 10));
  return major < 5 || (major === 5 && minor < 15);
}

export function checkFacilities(): void {
  if (isTooOld(release())) throw new FacilityError(69, `vpnd needs Linux 5.15 or newer; this is ${release()}`);
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1] ?? '0';
  if ((BigInt(`0x${effective}`) & (1n << CAP_NET_ADMIN)) === 0n) {
    throw new FacilityError(77, 'vpnd needs CAP_NET_ADMIN: run it as root, or as a service with that capability');
  }
  try {
    accessSync('/dev/net/tun', constants.R_OK | constants.W_OK);
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    if (missing) throw new FacilityError(69, 'there is no /dev/net/tun: load the module with `modprobe tun`');
    throw new FacilityError(77, '/dev/net/tun cannot be opened for reading and writing by this user');
  }
  if (!nftablesAvailable()) {
    throw new FacilityError(
      69,
      'libnftables.so.1 is missing: install libnftables1 (Debian) or nftables (Alpine, Fedora)',
    );
  }
}

/** Root of a user namespace may do nothing to a network that is not that namespace's own. */
export function foreignNamespace(): FacilityError {
  return new FacilityError(
    77,
    'vpnd may not make a firewall here: this network namespace belongs to another user namespace, as in a rootless container that uses the network of its host; start vpnd outside of the container, or give the container a network of its own',
  );
}

/** A trial of the firewall; what nft or the kernel has against it comes out as a FacilityError. */
export function withFirewallNamed(trial: () => void): void {
  try {
    trial();
  } catch (error) {
    if (!(error instanceof NftablesError)) throw error;
    const fix =
      'it takes a kernel with nf_tables and its modules nft_ct, nft_fib_inet, nft_masq, nft_nat and nft_reject_inet, and a libnftables no older than 1.0.6 is known to do';
    throw new FacilityError(69, `no VPN can be made here, because the firewall is refused (${error.message}); ${fix}`);
  }
}

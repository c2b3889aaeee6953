/**
 * Ends the sockets that a VPN must not leave as they are (sockets.ts says which), and lists the connections that came in from
 * outside. Some 2 ms for the listings, and 5 µs for each socket there is; another 7 µs for one that ends.
 */
import { networkInterfaces } from 'node:os';
import {
  type SocketEntry,
  stateMask,
  TCP_CLOSE,
  TCP_ESTABLISHED,
  TCP_LISTEN,
  TCP_STATES,
} from '../kernel/inet-diag.js';
import { SockDiag } from '../kernel/sock-diag.js';
import { canonicalAddress } from '../model/address.js';
import { BusinessError } from '../model/errors.js';
import type { Coverage } from './coverage.js';
import { type Connection, coveredOutbound, fromAddresses, inboundConnections } from './sockets.js';

const CONNECTED = stateMask([TCP_ESTABLISHED]);
const UNCONNECTED = stateMask([TCP_CLOSE]);

/** The kernel compares every socket with every address; with more it is quicker to look at what it has. */
const MAX_FILTERED_ADDRESSES = 16;

export class SocketEnder {
  readonly #diag = new SockDiag();
  /** Of a kernel that could once it is not asked again. */
  #isAble = false;

  /** Before anything is changed. Throws BusinessError 2200003 where the kernel cannot end sockets. */
  async require(): Promise<void> {
    this.#isAble ||= await this.#diag.canDestroySockets();
    if (this.#isAble) return;
    const reason =
      'connections from before the VPN cannot be ended: the kernel needs CONFIG_INET_DIAG_DESTROY, and tcp_diag and udp_diag';
    throw new BusinessError(2200003, undefined, reason);
  }

  /**
   * Ends what a VPN covers and what was made before it; returns how many sockets. To be called when rules and lock stand, so
   * that no more of these can come. `beforehand` is told which.
   */
  async endCovered(
    coverage: Coverage,
    beforehand: (chosen: readonly SocketEntry[]) => Promise<void> = async () => undefined,
  ): Promise<number> {
    const entries = [
      ...(await this.#tcp()),
      ...(await this.#diag.list({ protocol: 'udp', states: CONNECTED })),
      ...(await this.#diag.list({ protocol: 'udp', states: UNCONNECTED, filter: { portOrigin: 'kernel' } })),
      ...(await this.#diag.list({ protocol: 'udplite', states: CONNECTED })),
      ...(await this.#diag.list({ protocol: 'raw', states: CONNECTED | UNCONNECTED })),
    ];
    const chosen = coveredOutbound(entries, coverage, ownAddresses());
    await beforehand(chosen);
    return this.#diag.destroy(chosen);
  }

  /** Ends whatever has one of these addresses (canonical literals) and is of no spared user's; returns how many sockets. */
  async endFrom(addresses: ReadonlySet<string>, isSpared: (uid: number) => boolean = () => false): Promise<number> {
    if (addresses.size === 0) return 0;
    const filter = addresses.size > MAX_FILTERED_ADDRESSES ? {} : { filter: { localAddresses: [...addresses] } };
    const entries: SocketEntry[] = [];
    for (const protocol of ['tcp', 'udp', 'udplite'] as const) {
      const states = protocol === 'tcp' ? TCP_STATES & ~stateMask([TCP_LISTEN]) : CONNECTED | UNCONNECTED;
      entries.push(...(await this.#diag.list({ protocol, states, ...filter })));
    }
    entries.push(...(await this.#diag.list({ protocol: 'raw', states: CONNECTED | UNCONNECTED })));
    const chosen = fromAddresses(entries, addresses);
    return this.#diag.destroy(chosen.filter(({ uid }) => uid === undefined || !isSpared(uid)));
  }

  /** The TCP connections that came in from outside. */
  async inbound(): Promise<Connection[]> {
    return inboundConnections(await this.#tcp(), ownAddresses());
  }

  close(): void {
    this.#diag.close();
  }

  async #tcp(): Promise<SocketEntry[]> {
    const query = { protocol: 'tcp', states: TCP_STATES } as const;
    return [
      ...(await this.#diag.list({ ...query, filter: { portOrigin: 'bind' } })),
      ...(await this.#diag.list({ ...query, filter: { portOrigin: 'kernel' } })),
    ];
  }
}

/** Of this host, on every link that is up. */
function ownAddresses(): Set<string> {
  const links = Object.values(networkInterfaces());
  return new Set(
    links.flatMap((addresses) => (addresses ?? []).map(({ address }) => canonicalAddress(address) ?? address)),
  );
}

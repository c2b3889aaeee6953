/**
 * The connections that a VPN finds when it comes, and leaves when it goes: sockets that must end, and what the kernel's table of
 * connections remembers of them.
 */
import { deleteConnections } from '../kernel/conntrack.js';
import { listConnections } from '../kernel/conntrack-list.js';
import type { SocketEntry } from '../kernel/inet-diag.js';
import { NetlinkSocket } from '../kernel/netlink-socket.js';
import { FAMILIES } from '../model/vpn-types.js';
import type { Coverage } from './coverage.js';
import { SELECTION_FIELD, selectionMark } from './numbers.js';
import type { Plan } from './plan.js';
import { SocketEnder } from './socket-ender.js';
import type { Connection, Flow } from './sockets.js';

/** IP protocol numbers. */
const TCP = 6;
const UDP = 17;
const IP_PROTOCOL = { tcp: TCP, udp: UDP, udplite: 136 } as const;
const DNS_PORT = 53;

export class Connections {
  readonly #ender = new SocketEnder();
  readonly #table = new NetlinkSocket(undefined, 'NETLINK_NETFILTER');

  /** Before anything is changed. Throws BusinessError 2200003 where the kernel cannot end sockets. */
  require(): Promise<void> {
    return this.#ender.require();
  }

  /** TCP connections that came in from outside. */
  inbound(): Promise<Connection[]> {
    return this.#ender.inbound();
  }

  /**
   * When rules and firewall stand: what the VPN covers and was not made for it ends. `remember` hears before where all that led to.
   */
  async begin(plan: Plan, coverage: Coverage, remember: (flows: readonly Flow[]) => Promise<void>): Promise<void> {
    if (plan.hasDns) await this.#forgetUntranslated();
    await this.#ender.endCovered(coverage, async (sockets) => remember(await this.#flowsOf(sockets)));
  }

  /** Whom a socket without a connection has asked is known to conntrack, if it ran already. */
  async #flowsOf(sockets: readonly SocketEntry[]): Promise<Flow[]> {
    const flows = sockets.flatMap(({ protocol, local, remote }): Flow[] =>
      protocol === 'raw' || remote.port === 0 ? [] : [{ protocol: IP_PROTOCOL[protocol], local, remote }],
    );
    const unconnected = sockets.filter(({ protocol, remote }) => protocol === 'udp' && remote.port === 0);
    if (unconnected.length === 0) return flows;
    const ports = new Set(unconnected.map(({ local }) => local.port));
    for (const family of FAMILIES) {
      for (const { protocol, from, to } of await listConnections(this.#table, family)) {
        if (protocol === UDP && ports.has(from.port)) flows.push({ protocol, local: from, remote: to });
      }
    }
    return flows;
  }

  /**
   * When the vNIC is gone and everything else still stands: what has its addresses ends, but for what is covered by one of the
   * other VPNs that has the same.
   */
  async end(plan: Plan, others: readonly Plan[]): Promise<void> {
    const addresses = new Set(addressesOf(plan));
    const sharing = new Set(
      others.filter((other) => addressesOf(other).some((each) => addresses.has(each))).map(({ owner }) => owner),
    );
    await this.endFrom(addresses, (uid) => sharing.has(uid) || (sharing.has(0) && uid !== plan.owner));
  }

  async endFrom(addresses: ReadonlySet<string>, isSpared?: (uid: number) => boolean): Promise<void> {
    await this.#ender.endFrom(addresses, isSpared);
  }

  /** When the firewall is gone: what was translated to servers that are out of reach now. */
  async forget({ selections, hasDns }: Plan): Promise<void> {
    // Root's VPN may take over the user's sockets, with servers of its own.
    if (!hasDns) await this.#forgetUntranslated();
    if (selections.covered === undefined) return;
    const mark = { value: selectionMark(selections.covered), mask: SELECTION_FIELD };
    await this.#table.batch([deleteConnections({ mark })]);
  }

  /** Queries that were sent before would go on to where they went. */
  async #forgetUntranslated(): Promise<void> {
    const mark = { value: 0, mask: SELECTION_FIELD };
    const to = FAMILIES.flatMap((family) => [UDP, TCP].map((protocol) => ({ family, protocol, port: DNS_PORT })));
    await this.#table.batch(to.map((each) => deleteConnections({ mark, to: each })));
  }

  close(): void {
    this.#ender.close();
    this.#table.close();
  }
}

function addressesOf({ addresses }: Plan): string[] {
  return addresses.flatMap((operation) => (operation.kind === 'address' ? [operation.address] : []));
}

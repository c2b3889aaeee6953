/**
 * The connections that a VPN finds when it comes, and leaves when it goes: sockets that must end, and what the kernel's table of
 * connections remembers of them.
 */
import { deleteConnections } from '../kernel/conntrack.js';
import { NetlinkSocket } from '../kernel/netlink-socket.js';
import { FAMILIES } from '../model/vpn-types.js';
import type { Coverage } from './coverage.js';
import { SELECTION_FIELD, selectionMark } from './numbers.js';
import type { Plan } from './plan.js';
import { SocketEnder } from './socket-ender.js';
import type { Connection } from './sockets.js';

/** IP protocol numbers. */
const TCP = 6;
const UDP = 17;
const DNS_PORT = 53;
/** The kernel looks through its whole table for each. */
const MAX_FORGOTTEN_PORTS = 16;

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
   * When rules and firewall stand: what the VPN covers and was not made for it ends. `besideRoot`: root's VPN stands, by which
   * the user's sockets may have asked.
   */
  async begin(plan: Plan, coverage: Coverage, besideRoot: boolean): Promise<void> {
    if (plan.hasDns) await this.#forgetUntranslated();
    await this.#ender.endCovered(coverage);
    if (!besideRoot) return;
    // Only the user's own: of others in-flight answers would be lost. One with more sockets than that has them wait.
    const ports = (await this.#ender.unconnectedPorts(coverage)).slice(0, MAX_FORGOTTEN_PORTS);
    const any = { value: 0, mask: 0 };
    await this.#table.batch(
      ports.flatMap((fromPort) =>
        FAMILIES.map((family) =>
          deleteConnections({ mark: any, to: { family, protocol: UDP, port: DNS_PORT }, fromPort }),
        ),
      ),
    );
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

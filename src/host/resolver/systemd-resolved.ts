/**
 * systemd-resolved over D-Bus (org.freedesktop.resolve1(5)): servers and domains of the vNIC as a link of its own. What is
 * told stands until it is taken back, the link goes, or resolved forgets it.
 */
import { addressBytes, familyOf } from '../../model/address.js';
import { IPV4 } from '../../model/vpn-types.js';
import type { BackEnd, ResolverRequest } from './request.js';
import { DbusError, type SystemBus } from './system-bus.js';

export const RESOLVED = 'org.freedesktop.resolve1';
const MANAGER = {
  destination: RESOLVED,
  path: '/org/freedesktop/resolve1',
  interface: 'org.freedesktop.resolve1.Manager',
};

/** resolved takes Linux' numbers of the families. */
const AF_INET = 2;
const AF_INET6 = 10;

/** There is nothing left to take back: the link is gone, or resolved is. */
const GONE = new Set([
  'org.freedesktop.resolve1.NoSuchLink',
  'org.freedesktop.DBus.Error.ServiceUnknown',
  'org.freedesktop.DBus.Error.NameHasNoOwner',
]);

export class SystemdResolved implements BackEnd {
  readonly kind = 'systemd-resolved';
  readonly #bus: () => Pick<SystemBus, 'call'> | undefined;
  #ifindex: number | undefined;

  /** `bus`: the connection that there is at the moment. */
  constructor(bus: () => Pick<SystemBus, 'call'> | undefined) {
    this.#bus = bus;
  }

  async apply({ link: { ifindex }, servers, searchDomains, exclusive }: ResolverRequest): Promise<boolean> {
    if (this.#ifindex !== undefined && this.#ifindex !== ifindex) await this.restore();
    this.#ifindex = ifindex;
    const isDefault = exclusive && servers.length > 0;
    // '~.' first: it must survive when the list is too long for this version of resolved.
    const domains = [...(isDefault ? [['.', true]] : []), ...searchDomains.map((domain) => [domain, false])];
    await shortening(servers.map(serverArgument), (list) => this.#call('SetLinkDNS', 'ia(iay)', ifindex, list));
    await shortening(domains, (list) => this.#call('SetLinkDomains', 'ia(sb)', ifindex, list));
    await this.#call('SetLinkDefaultRoute', 'ib', ifindex, isDefault);
    // Whoever was asked before answers differently; nft's redirect moves also queries that resolved sends elsewhere.
    await this.#call('FlushCaches', '');
    return true;
  }

  async restore(): Promise<void> {
    if (this.#ifindex === undefined) return;
    try {
      await this.#call('RevertLink', 'i', this.#ifindex);
      await this.#call('FlushCaches', '');
    } catch (error) {
      if (!(error instanceof DbusError && GONE.has(error.errorName))) throw error;
    }
    this.#ifindex = undefined;
  }

  async #call(member: string, signature: string, ...body: unknown[]): Promise<void> {
    const bus = this.#bus();
    if (bus === undefined) throw new DbusError(member, 'org.freedesktop.DBus.Error.NameHasNoOwner', 'no bus');
    await bus.call(MANAGER, member, signature, ...body);
  }
}

function serverArgument(server: string): [number, Buffer] {
  return [familyOf(server) === IPV4 ? AF_INET : AF_INET6, Buffer.from(addressBytes(server))];
}

/** Versions of resolved differ in how many entries a link may have: one that refuses them all is offered half. */
async function shortening<T>(list: readonly T[], call: (list: readonly T[]) => Promise<void>): Promise<void> {
  for (let length = list.length; ; length = Math.floor(length / 2)) {
    try {
      return await call(list.slice(0, length));
    } catch (error) {
      const isTooLong = error instanceof DbusError && /E2BIG|argument list too long/i.test(error.message);
      if (!isTooLong || length <= 1) throw error;
    }
  }
}

/**
 * What all VPNs share of the host's surroundings: the table of local networks, the firewall's knowledge of links, reverse path
 * filters. Read from the kernel and brought in line when the first VPN comes, when links or policy change, and taken back when
 * nothing needs it. One call at a time; the owner's lane sees to that.
 */
import type { NetlinkSocket } from '../kernel/netlink-socket.js';
import { addRoute, deleteRoute, type RouteSettings } from '../kernel/rtnetlink.js';
import { isLinkName } from '../model/link-name.js';
import type { Firewall, Surroundings } from './firewall.js';
import type { HostPolicy } from './host-policy.js';
import { discoveryRoutes, lanChanges, lanRoutes } from './lan.js';
import {
  type HostLink,
  type LanRoute,
  type LinkFacts,
  type OnLinkRoute,
  type Outside,
  readLinkFacts,
} from './links.js';
import type { Lockdown } from './lockdown.js';
import { LAN_TABLE, ROUTE_PROTOCOL } from './numbers.js';
import type { Sysctls } from './sysctl.js';

/** The most devices that one nft chain takes. */
const FRAME_LINKS = 256;

/** Who needs the surroundings right now. */
export interface Needs {
  /** Some VPN is up. */
  vpn: boolean;
  /** Root's is. */
  rootVpn: boolean;
  /** Some VPN has a name server outside: what it answers may be for a vNIC's address. */
  outsideDns: boolean;
}

export class Neighbourhood {
  readonly #netlink: NetlinkSocket;
  readonly #firewall: Firewall;
  readonly #lockdown: Lockdown;
  readonly #sysctls: Sysctls;
  readonly #outside: () => Promise<Outside>;
  #standing: { lan: readonly LanRoute[]; text: string } = { lan: [], text: '' };
  /** As of the last refresh, while something needs it. */
  #onLink: readonly OnLinkRoute[] | undefined;

  /** `outside`: what tables other than main say. */
  constructor(parts: {
    netlink: NetlinkSocket;
    firewall: Firewall;
    lockdown: Lockdown;
    sysctls: Sysctls;
    outside(): Promise<Outside>;
  }) {
    this.#outside = parts.outside;
    this.#netlink = parts.netlink;
    this.#firewall = parts.firewall;
    this.#lockdown = parts.lockdown;
    this.#sysctls = parts.sysctls;
  }

  /** Local networks that covered traffic may reach directly, as of the last refresh. */
  get lan(): readonly LanRoute[] {
    return this.#standing.lan;
  }

  /** Throws KernelError or NftablesError; what was not done then is tried again at the next refresh. */
  async refresh(policy: HostPolicy, needs: Needs): Promise<void> {
    const isNeeded = needs.vpn || this.#lockdown.isInForce;
    const facts = await readLinkFacts(this.#netlink, isNeeded ? await this.#outside() : undefined);
    const lan = isNeeded ? lanRoutes(facts.onLink, policy.lan).filter(({ dev }) => isLinkName(dev)) : [];
    this.#onLink = isNeeded ? facts.onLink : undefined;
    const surroundings = surroundingsOf(facts, lan, policy, needs);
    const text = JSON.stringify(surroundings);
    await this.#syncLan(facts.lan, [...lan, ...discoveryRoutes(facts.toGroups, lan)]);
    if (text !== this.#standing.text) {
      this.#standing = { lan, text: '' };
      await this.#firewall.surround(surroundings);
      await this.#lockdown.surround(surroundings);
    }
    this.#standing = { lan, text };
    this.#sysctls.update(facts.links, needs.rootVpn || needs.outsideDns);
  }

  /**
   * What stands, or what `refresh` would find: with many VPNs there are too many links to be listed for each. `onLink`: also networks
   * that the policy does not allow.
   */
  async survey(policy: HostPolicy): Promise<{ lan: readonly LanRoute[]; onLink: readonly OnLinkRoute[] }> {
    const onLink = this.#onLink ?? (await readLinkFacts(this.#netlink)).onLink;
    return { lan: lanRoutes(onLink, policy.lan).filter(({ dev }) => isLinkName(dev)), onLink };
  }

  async #syncLan(standing: readonly LanRoute[], wanted: readonly LanRoute[]): Promise<void> {
    const { add, remove } = lanChanges(standing, wanted);
    await this.#netlink.batch(remove.map((route) => deleteRoute(lanRoute(route), route.ifindex)));
    const failures = await this.#netlink.batch(add.map((route) => addRoute(lanRoute(route), route.ifindex)));
    // A link that has gone meanwhile is told of soon.
    const failure = failures.find(({ error }) => !['EEXIST', 'ENODEV', 'ENETDOWN', 'EINVAL'].includes(error.errnoName));
    if (failure) throw failure.error;
  }
}

function lanRoute({ family, destination, prefixLength, metric, dev, source }: LanRoute): RouteSettings {
  const route = { family, destination, prefixLength, metric, dev, table: LAN_TABLE, protocol: ROUTE_PROTOCOL } as const;
  return { ...route, type: 'unicast', ...(source !== undefined && { source }) };
}

function surroundingsOf(
  { links, onLink }: LinkFacts,
  lan: readonly LanRoute[],
  { forwarding }: HostPolicy,
  { rootVpn }: Needs,
): Surroundings {
  const named = links.filter(({ name }) => isLinkName(name));
  const policed = (way: string) =>
    rootVpn ? [...forwarding].flatMap(([link, word]) => (word === way ? [link] : [])) : [];
  const withAddress = new Set(onLink.map(({ link }) => link.ifindex));
  const carriesPackets = ({ kind, isOuter, ifindex }: HostLink) => kind === '' || isOuter || withAddress.has(ifindex);
  return {
    outer: [...named.flatMap(({ name, isOuter }) => (isOuter ? [name] : [])), ...policed('direct')].sort(),
    forwardBlocked: policed('block').sort(),
    lan: lan.map(({ dev, destination, prefixLength }) => ({ dev, destination, prefixLength })),
    frames: named
      .filter(carriesPackets)
      .map(({ name }) => name)
      .slice(0, FRAME_LINKS),
  };
}

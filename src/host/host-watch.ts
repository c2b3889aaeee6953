/**
 * Hears of changes to this network namespace, without polling: what others do to the state that is ours, and what happens to
 * links, addresses and the main table. Our own changes are told apart by the port id of the socket that made them: for
 * routes and rules already in the kernel. It decides nothing and repairs nothing.
 *
 * Of the routes of main, and of tables that others' rules name, there may be a flood. They have sockets of their own, so that it can
 * cost no notification of ours; none of them is decoded.
 */
import type { Epoll } from '../kernel/epoll.js';
import { changesOfOthers, routesOfTable, routesOfTables } from '../kernel/netlink-filter.js';
import {
  NETLINK_NETFILTER,
  NETLINK_ROUTE,
  NetlinkMonitor,
  NFNLGRP_NFTABLES,
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV4_NETCONF,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_IPV4_RULE,
  RTNLGRP_IPV6_IFADDR,
  RTNLGRP_IPV6_ROUTE,
  RTNLGRP_IPV6_RULE,
  RTNLGRP_LINK,
} from '../kernel/netlink-monitor.js';
import { netlinkPortsOf } from '../kernel/netlink-port.js';
import { changedTable } from '../kernel/nftables-events.js';
import { RT_TABLE_MAIN, RTPROT_KERNEL } from '../kernel/rtnetlink.js';
import { readEvent } from '../kernel/rtnetlink-events.js';
import { KernelError } from '../model/errors.js';
import { Debounce } from './debounce.js';
import { LinkTracker } from './link-tracker.js';
import type { WatchedTables } from './machine-rules.js';
import { isLocalPriority, isOurPriority, isOurTable, NFT_TABLE } from './numbers.js';

/** rtm_table of every table above 255. */
const RT_TABLE_COMPAT = 252;
const LINKS_PAUSE = { quietMs: 50, limitMs: 500 };
const NFT_TABLES = new Set([NFT_TABLE, `${NFT_TABLE}_lockdown`]);
/** The kernel did it by itself, as a consequence of something else. */
const KERNEL = 0;

/** Something that is ours was added, changed or removed by somebody else, or notifications were lost. */
export interface ForeignChange {
  kind: 'rule' | 'route' | 'nft' | 'link' | 'address' | 'lost';
  /** In words: 'rule 13100', 'routes of table 50002', 'nft table vpnd', 'address of vpn-tun0'. The same for the same object. */
  what: string;
  /** Of the vNIC, for `link` and `address`. */
  ifindex?: number;
}

export interface HostWatchSettings {
  /** Port ids of the netlink sockets through which we make changes (`NetlinkSocket.portId`). */
  ownPorts: readonly number[];
  /** Our name of the vNIC with this ifindex while it stands: from when it is whole until it is taken down. */
  liveLink(ifindex: number): string | undefined;
  /** Never empty; each object once. */
  onForeignChange(changes: readonly ForeignChange[]): void;
  /** Links, addresses, routes of table main and of watched tables, rp_filter or others' rules may have changed: read them again. Not more than every 50 ms. */
  onLinks(): void;
}

export class HostWatch {
  readonly #settings: HostWatchSettings;
  readonly #monitors: NetlinkMonitor[] = [];
  readonly #tables: NetlinkMonitor;
  readonly #tracker = new LinkTracker();
  readonly #changes = new Map<string, ForeignChange>();
  readonly #links: Debounce;
  /** Port ids of libnftables' sockets, as far as they have been met. */
  #nftPorts = new Set<number>();

  /** Throws KernelError. Close it before the epoll is stopped. */
  constructor(epoll: Epoll, settings: HostWatchSettings) {
    this.#settings = settings;
    this.#links = new Debounce(LINKS_PAUSE, () => settings.onLinks());
    const onRead = (): void => this.#deliver();
    const onRoutes = {
      onMessage: () => this.#links.touch(),
      onLost: () => this.#links.touch(),
      onRead,
    };
    this.#tables = new NetlinkMonitor(epoll, TABLES_SETTINGS, onRoutes);
    this.#monitors.push(this.#tables);
    try {
      this.#monitors.push(
        new NetlinkMonitor(epoll, oursSettings(settings.ownPorts), {
          onMessage: (type, payload, portId) => this.#onRtnetlink(type, payload, portId),
          onLost: () => {
            this.#add({ kind: 'lost', what: 'notifications' });
            this.#links.touch();
          },
          onRead,
        }),
        new NetlinkMonitor(epoll, MAIN_SETTINGS, onRoutes),
      );
      this.#watchNftables(epoll, onRead);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** From now on these tables' changes are told, by `onLinks`. */
  watchTables({ tables, outside, ways }: WatchedTables): void {
    const loud = new Set([...tables].filter((table) => !outside.has(table)));
    this.#tables.setFilter(routesOfTables(loud, outside, ways));
  }

  close(): void {
    this.#links.cancel();
    for (const monitor of this.#monitors.splice(0)) monitor.close();
  }

  #watchNftables(epoll: Epoll, onRead: () => void): void {
    try {
      const settings = { protocol: NETLINK_NETFILTER, groups: [NFNLGRP_NFTABLES] };
      this.#monitors.push(
        new NetlinkMonitor(epoll, settings, {
          onMessage: (type, payload, portId) => this.#onNftables(type, payload, portId),
          onLost: () => this.#add({ kind: 'lost', what: 'notifications' }),
          onRead,
        }),
      );
    } catch (error) {
      // A kernel without netfilter has no table that could be changed.
      if (!(error instanceof KernelError && error.errnoName === 'EPROTONOSUPPORT')) throw error;
    }
  }

  #onRtnetlink(type: number, payload: Buffer, portId: number): void {
    const event = readEvent(type, payload);
    switch (event?.kind) {
      case 'link': {
        const { ifindex } = event.link;
        const news = this.#tracker.take(event.link, event.isGone);
        if (news === 'other') this.#links.touch();
        else if (news === 'vnic') this.#addOfVnic('link', ifindex);
        return;
      }
      case 'address':
        return event.isGone ? this.#onAddressGone(event.ifindex) : undefined;
      case 'route':
        return this.#onRoute(event, portId);
      case 'rule':
        if ((isOurPriority(event.priority) || isLocalPriority(event.priority)) && event.protocol === RTPROT_KERNEL) {
          this.#add({ kind: 'rule', what: `rule ${event.priority}` });
        } else this.#links.touch();
        return;
      case 'rp_filter':
        if (!this.#tracker.isVnic(event.ifindex)) this.#links.touch();
        else this.#addOfVnic('link', event.ifindex);
    }
  }

  #onAddressGone(ifindex: number): void {
    if (this.#tracker.isVnic(ifindex)) this.#addOfVnic('address', ifindex);
    else this.#links.touch();
  }

  #onRoute({ table, ifindex }: { table: number; ifindex: number | undefined }, portId: number): void {
    // A vNIC of ours that ends, or a link of the LAN table that went down: they take their routes along.
    const isConsequence = portId === KERNEL && ifindex !== undefined && this.#settings.liveLink(ifindex) === undefined;
    if (!isOurTable(table) || isConsequence) return;
    this.#add({ kind: 'route', what: `routes of table ${table}` });
  }

  #onNftables(type: number, payload: Buffer, portId: number): void {
    const table = changedTable(type, payload);
    if (table === undefined || !NFT_TABLES.has(table)) return;
    const what = `nft table ${table}`;
    // A rule set is hundreds of messages, and whose a socket is costs a look at all of ours.
    if (!this.#changes.has(what) && !this.#isOwnNft(portId)) this.#add({ kind: 'nft', what });
  }

  /** libnftables keeps its socket to itself, and may replace it: looked for when somebody unknown changed a table of ours. */
  #isOwnNft(portId: number): boolean {
    if (!this.#nftPorts.has(portId)) this.#nftPorts = netlinkPortsOf(NETLINK_NETFILTER);
    return this.#nftPorts.has(portId);
  }

  #addOfVnic(kind: 'link' | 'address', ifindex: number): void {
    const name = this.#settings.liveLink(ifindex);
    if (name !== undefined) this.#add({ kind, what: `${kind} of ${name}`, ifindex });
  }

  #add(change: ForeignChange): void {
    this.#changes.set(change.what, change);
  }

  #deliver(): void {
    if (this.#changes.size === 0) return;
    const changes = [...this.#changes.values()];
    this.#changes.clear();
    this.#settings.onForeignChange(changes);
  }
}

const NO_TABLE: ReadonlySet<number> = new Set();
const TABLES_SETTINGS = {
  protocol: NETLINK_ROUTE,
  groups: [RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE],
  filter: routesOfTables(NO_TABLE, NO_TABLE, NO_TABLE),
};

const MAIN_SETTINGS = {
  protocol: NETLINK_ROUTE,
  groups: [RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE],
  filter: routesOfTable(RT_TABLE_MAIN),
};

function oursSettings(ownPorts: readonly number[]) {
  const routes = [RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE];
  const rules = [RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE];
  const links = [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_NETCONF];
  const filter = changesOfOthers(ownPorts, RT_TABLE_COMPAT);
  return { protocol: NETLINK_ROUTE, groups: [...routes, ...rules, ...links], filter };
}

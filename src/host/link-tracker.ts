/**
 * What changed about a link, from notifications alone: the kernel tells a link's whole state for many reasons, most of which
 * concern nobody. A vNIC is told a few times before it stands; from then on every state but that one is somebody's doing.
 */
import type { LinkEntry } from '../kernel/rtnetlink-list.js';
import { DYING_LINK_GROUP, LINK_GROUP } from './numbers.js';

interface Known {
  last: LinkEntry;
  /** As it was when it came up first. */
  standing: LinkEntry | undefined;
}

/** A vNIC that stood is another or gone; or a link that is none of ours came, went, or changed. */
export type LinkNews = 'vnic' | 'other';

/** Ours, by its tag, or by its name in the moment before it has one. */
export function isVnic({ group, name, kind }: Pick<LinkEntry, 'group' | 'name' | 'kind'>): boolean {
  return group === LINK_GROUP || group === DYING_LINK_GROUP || (kind === 'tun' && /^vpn-tun[0-9]+$/.test(name));
}

export class LinkTracker {
  readonly #links = new Map<number, Known>();
  /** They stay ours when somebody takes name and tag away. */
  readonly #vnics = new Set<number>();

  take(link: LinkEntry, isGone: boolean): LinkNews | undefined {
    const { ifindex } = link;
    const known = this.#links.get(ifindex);
    if (isVnic(link)) this.#vnics.add(ifindex);
    const isOurs = this.#vnics.has(ifindex);
    if (isGone) {
      this.#links.delete(ifindex);
      this.#vnics.delete(ifindex);
      return isOurs ? 'vnic' : 'other';
    }
    const standing = known?.standing ?? (link.isUp ? link : undefined);
    this.#links.set(ifindex, { last: link, standing });
    if (known && isSame(known.last, link)) return undefined;
    if (!isOurs) return 'other';
    return standing && !isSame(standing, link) ? 'vnic' : undefined;
  }

  isVnic(ifindex: number): boolean {
    return this.#vnics.has(ifindex);
  }
}

function isSame(a: LinkEntry, b: LinkEntry): boolean {
  return a.name === b.name && a.isUp === b.isUp && a.mtu === b.mtu && a.group === b.group && a.master === b.master;
}

/**
 * Deletes vNICs. Each delete waits some 20 ms for the kernel's grace periods, so it has a netlink socket of its own, and
 * those that come up while one is under way go together: moved into one link group, deleted by group, one wait for all.
 */
import { ifindexOf } from '../kernel/ifindex.js';
import { NetlinkSocket } from '../kernel/netlink-socket.js';
import { deleteLink, deleteLinkGroup, setLinkGroup } from '../kernel/rtnetlink.js';
import { KernelError } from '../model/errors.js';
import { DYING_LINK_GROUP } from './numbers.js';

export interface LinkName {
  ifindex: number;
  name: string;
}

const GONE = new Set(['ENODEV', 'ENOENT']);

export class LinkDeleter {
  readonly #socket = new NetlinkSocket();
  #waiting: { link: LinkName; done: (error?: Error) => void }[] = [];
  #running = false;

  /** Resolves when the link is gone, checked by asking the kernel; one that was gone already is fine. */
  delete(link: LinkName): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ link, done: (error) => (error ? reject(error) : resolve()) });
      if (!this.#running) void this.#run();
    });
  }

  get isRunning(): boolean {
    return this.#running;
  }

  get portId(): number {
    return this.#socket.portId;
  }

  close(): void {
    this.#socket.close();
  }

  async #run(): Promise<void> {
    this.#running = true;
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0);
      const failures = await this.#deleteAll(batch.map((entry) => entry.link)).catch((error: Error) => [error]);
      for (const { link, done } of batch) {
        done(errorOf(link, failures));
      }
    }
    this.#running = false;
  }

  async #deleteAll(links: LinkName[]): Promise<Error[]> {
    const [only] = links;
    const requests =
      links.length === 1 && only
        ? [deleteLink(only)]
        : [...links.map((link) => setLinkGroup(link, DYING_LINK_GROUP)), deleteLinkGroup(DYING_LINK_GROUP)];
    const failures = await this.#socket.batch(requests);
    return failures.map((failure) => failure.error).filter((error) => !GONE.has(error.errnoName));
  }
}

/** Why the link is still there, or why that cannot be told; undefined when it is gone, whatever failed. */
function errorOf({ name, ifindex }: LinkName, failures: readonly Error[]): Error | undefined {
  try {
    if (ifindexOf(name) !== ifindex) return undefined;
    return failures[0] ?? new KernelError('RTM_DELLINK', name, 'EBUSY');
  } catch (error) {
    return failures[0] ?? (error as Error);
  }
}

/**
 * Which selections of the mark field are in use. A socket that was marked keeps its mark for good, also when its VPN is gone:
 * so selections are given out in turn, the one freed last comes last; and root's VPN has numbers of its own, since it covers
 * sockets of every user.
 */
import { BusinessError } from '../model/errors.js';
import { ROOT_SELECTIONS, SELECTIONS } from './numbers.js';

const USERS = SELECTIONS - ROOT_SELECTIONS;

export class Selections {
  readonly #used = new Set<number>();
  readonly #last = { users: 0, root: 0 };

  /** Throws BusinessError 2200003 when all are in use. */
  take(owner: number): number {
    const [kind, first, count] =
      owner === 0 ? (['root', USERS, ROOT_SELECTIONS] as const) : (['users', 0, USERS] as const);
    for (let step = 0; step < count; step++) {
      const index = (this.#last[kind] + step) % count;
      const selection = first + index + 1;
      if (this.#used.has(selection)) continue;
      this.#used.add(selection);
      this.#last[kind] = index + 1;
      return selection;
    }
    const reason = `all ${count} mark values for VPNs with DNS servers or application lists are in use`;
    throw new BusinessError(2200003, undefined, reason);
  }

  delete(selection: number): void {
    this.#used.delete(selection);
  }
}

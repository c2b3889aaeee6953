/**
 * The second level of dispatch. A rule for each VPN in one list would make every process walk all of them; so rules for uids
 * that are near each other stand in a section of their own behind one guard (`uidrange 1984-2015 goto …`), and so do rules
 * for vNIC addresses of one network. A section stands from its first VPN to its last.
 *
 *   guard    13100   uidrange 1984-2015 goto 13200
 *   section  13200   nop                                 the target of the guard, whoever comes and goes
 *            13200   uidrange 2001-2001 goto a ladder    one for each user with a VPN
 *            13201   goto 14000                          everybody else of these uids
 *
 * Whom no guard takes in passes over all sections: 13199 goto 14000.
 */
import { clearHostBits } from '../model/address.js';
import type { VpnSpec } from '../model/vpn-spec.js';
import { FAMILIES, type Family } from '../model/vpn-types.js';
import { ADDRESS_SECTIONS, PRIORITY, USER_SECTIONS } from './numbers.js';
import type { Operation } from './operation.js';

/** What a section is for: the selector of its guard. */
export type Bucket =
  | { kind: 'uid'; key: string; first: number; last: number }
  | { kind: 'address'; key: string; family: Family; from: string; fromPrefixLength: number };

/** Sections that a plan's rules go to, by bucket, and the rules of those that the plan is the first in. */
export interface PlanSections {
  priorities: ReadonlyMap<string, number>;
  fresh: readonly Operation[];
}

const UIDS = 32;
const PREFIX_LENGTHS: Record<Family, number> = { 1: 16, 2: 32 };

export function uidBucket(uid: number, lastUid: number): Bucket {
  const first = uid - (uid % UIDS);
  return { kind: 'uid', key: `uid ${first}`, first, last: Math.min(first + UIDS - 1, lastUid) };
}

export function addressBucket(family: Family, address: string): Bucket {
  const fromPrefixLength = PREFIX_LENGTHS[family];
  const from = clearHostBits(address, fromPrefixLength);
  return { kind: 'address', key: `from ${from}`, family, from, fromPrefixLength };
}

/** None for root's VPN, which has the end of each list to itself. */
export function bucketsOf(owner: number, spec: VpnSpec, lastUid: number): Bucket[] {
  if (owner === 0) return [];
  const addresses = spec.addresses.filter(({ family }) => spec.accepted[family]);
  const all = [uidBucket(owner, lastUid), ...addresses.map(({ family, address }) => addressBucket(family, address))];
  return [...new Map(all.map((bucket) => [bucket.key, bucket])).values()];
}

export class Sections {
  readonly #standing = new Map<string, { bucket: Bucket; priority: number; plans: number }>();

  /** Every bucket a plan needs, once. One for which there is no place left has no priority: its rules go without a section. */
  acquire(buckets: readonly Bucket[]): PlanSections {
    const priorities = new Map<string, number>();
    const fresh: Operation[] = [];
    for (const bucket of buckets) {
      const standing = this.#standing.get(bucket.key);
      const priority = standing?.priority ?? this.#freePriority(bucket.kind);
      if (priority === undefined) continue;
      priorities.set(bucket.key, priority);
      if (standing) standing.plans++;
      else {
        this.#standing.set(bucket.key, { bucket, priority, plans: 1 });
        fresh.push(...sectionRules(bucket, priority));
      }
    }
    return { priorities, fresh };
  }

  /** Returns the rules that nobody needs any more. */
  release(keys: Iterable<string>): Operation[] {
    const unused: Operation[] = [];
    for (const key of keys) {
      const standing = this.#standing.get(key);
      if (!standing || --standing.plans > 0) continue;
      this.#standing.delete(key);
      unused.push(...sectionRules(standing.bucket, standing.priority));
    }
    return unused;
  }

  /** The rules of all sections that stand. */
  all(): Operation[] {
    return [...this.#standing.values()].flatMap(({ bucket, priority }) => sectionRules(bucket, priority));
  }

  #freePriority(kind: Bucket['kind']): number | undefined {
    const [first, count] =
      kind === 'uid' ? [PRIORITY.userSections, USER_SECTIONS] : [PRIORITY.addressSections, ADDRESS_SECTIONS];
    const taken = new Set([...this.#standing.values()].map(({ priority }) => priority));
    for (let index = 0; index < count; index++) {
      if (!taken.has(first + 2 * index)) return first + 2 * index;
    }
    return undefined;
  }
}

/** End, target, guard: what leads there comes last. */
function sectionRules(bucket: Bucket, priority: number): Operation[] {
  const families = bucket.kind === 'uid' ? FAMILIES : [bucket.family];
  return families.flatMap((family): Operation[] => {
    const rule = { kind: 'rule', family } as const;
    const guard = { ...rule, action: 'goto', target: priority, iif: 'lo' } as const;
    return [
      { ...rule, priority: priority + 1, action: 'goto', target: targetBehind(bucket.kind) },
      { ...rule, priority, action: 'nop' },
      bucket.kind === 'uid'
        ? { ...guard, priority: PRIORITY.user, uidRange: { first: bucket.first, last: bucket.last } }
        : {
            ...guard,
            priority: PRIORITY.fromUserAddress,
            from: bucket.from,
            fromPrefixLength: bucket.fromPrefixLength,
          },
    ];
  });
}

function targetBehind(kind: Bucket['kind']): number {
  return kind === 'uid' ? PRIORITY.rootVpn : PRIORITY.rootOnly;
}

/** Adds and removes the objects of a plan by netlink: many in one go, with what failed told apart from what is to be undone. */
import type { NetlinkRequest, NetlinkSocket } from '../kernel/netlink-socket.js';
import { additions, type Operation, removals, restorations } from './operation.js';

/** Already gone is as good as removed. */
export const GONE: ReadonlySet<string> = new Set(['ENOENT', 'ESRCH', 'ENODEV', 'EADDRNOTAVAIL']);

/**
 * Makes the vNIC ready (`link`), then adds the operations. Fails on the first that failed; those behind it were tried as well.
 * What failed goes into `failed`: an object that was there already is somebody else's, and is not to be removed.
 */
export async function addObjects(
  netlink: NetlinkSocket,
  link: readonly NetlinkRequest[],
  operations: readonly Operation[],
  ifindex: number,
  failed: Set<Operation>,
): Promise<void> {
  const failures = await netlink.batch(chain(link, additions(operations, ifindex)));
  for (const { index } of failures) {
    const operation = operations[index - link.length];
    if (operation) failed.add(operation);
  }
  if (failures[0]) throw failures[0].error;
}

/** Adds what is missing and puts right what is not as it was; what stands stays. `ifindex` is the vNIC's. */
export async function restoreObjects(
  netlink: NetlinkSocket,
  operations: readonly Operation[],
  ifindex: number,
): Promise<void> {
  const failures = await netlink.batch(restorations(operations, ifindex));
  const failure = failures.find(({ error }) => error.errnoName !== 'EEXIST' && !GONE.has(error.errnoName));
  if (failure) throw failure.error;
}

export function removeObjects(netlink: NetlinkSocket, operations: readonly Operation[]): Promise<void> {
  return remove(netlink, removals(operations));
}

/** Rules as they were listed. Of several that are alike the first goes. */
export function removeEntries(netlink: NetlinkSocket, rules: readonly { remove: NetlinkRequest }[]): Promise<void> {
  return remove(
    netlink,
    rules.map((rule) => rule.remove),
  );
}

async function remove(netlink: NetlinkSocket, requests: Iterable<NetlinkRequest>): Promise<void> {
  const failures = await netlink.batch(requests);
  const [failure] = failures.filter(({ error }) => !GONE.has(error.errnoName));
  if (failure) throw failure.error;
}

/** On demand: a plan may have 10,000 routes. */
function* chain(first: Iterable<NetlinkRequest>, second: Iterable<NetlinkRequest>): Generator<NetlinkRequest> {
  yield* first;
  yield* second;
}

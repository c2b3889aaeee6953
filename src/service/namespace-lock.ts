/**
 * One service for each network namespace, wherever its files are: its sweep would take a second one's VPNs for a dead one's. Held until
 * the process ends, however it ends.
 */
import { SERVICE_QUEUE } from '../host/numbers.js';
import { claimQueue, type QueueClaim, queueHolder } from '../kernel/queue-claim.js';
import { KernelError } from '../model/errors.js';
import { FacilityError, foreignNamespace } from './facilities.js';
import { InUseError } from './listen.js';

/** Throws InUseError when another service lives here, FacilityError when this one may not or cannot ask. */
export async function lockNamespace(): Promise<QueueClaim> {
  const claim = await claimQueue(SERVICE_QUEUE).catch((error: unknown) => {
    if (error instanceof KernelError && error.errnoName === 'EPERM') throw foreignNamespace();
    if (error instanceof KernelError && error.errnoName === 'EINVAL') {
      throw new FacilityError(
        69,
        'the kernel has no nfnetlink_queue: load the module with `modprobe nfnetlink_queue`, or use a kernel with CONFIG_NETFILTER_NETLINK_QUEUE',
      );
    }
    throw error;
  });
  if (claim) return claim;
  const pid = queueHolder(SERVICE_QUEUE);
  const who = pid === undefined ? '' : ` (process ${pid})`;
  throw new InUseError(`another service serves this network namespace${who}, and there can be one only: stop it first`);
}

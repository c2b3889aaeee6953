/** What packets.ts and its reading thread share: the start values, the batches, and a control block in shared memory. */

/** Many packets in one transferable buffer; packet i ends at `ends[i]` and begins where the one before ends. */
export interface PacketBatch {
  bytes: Uint8Array;
  ends: number[];
}

export interface ReaderInput {
  fd: number;
  /** An eventfd that is readable when the thread is to end. */
  wakeFd: number;
  control: Int32Array;
}

/** control[PENDING]: batches posted and not taken yet. control[STOP]: 1 when the thread is to end. */
export const PENDING = 0;
export const STOP = 1;

/**
 * A consumer that is this far behind is not read for: packets then stay, and are dropped, in the kernel's own queue, as on
 * any link that is too slow, instead of filling the memory of this process.
 */
export const MAX_PENDING_BATCHES = 32;

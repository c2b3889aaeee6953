/**
 * IP packets of a TUN file descriptor (tun(4), IFF_TUN | IFF_NO_PI) as an async iterable with a `write`. Works for blocking
 * and non-blocking fds alike and never blocks the event loop: reading is done by a thread that waits in poll(2), started by
 * the first iteration; a write to a TUN does not wait and is made directly.
 *
 * No net.Socket: a TUN answers a write with EIO while its link is down and with EINVAL for what is no IP packet, and
 * net.Socket closes the fd on either, which would take the vNIC away. No segmentation offload: a TUN with IFF_VNET_HDR is refused.
 */
import { Worker } from 'node:worker_threads';
import { checked } from '../kernel/errno.js';
import { libc, libcAsync } from '../kernel/ffi.js';
import { vnetHeaderOf } from '../kernel/tun-offload.js';
import { MAX_PENDING_BATCHES, type PacketBatch, PENDING, type ReaderInput, STOP } from './reader-protocol.js';

const F_DUPFD_CLOEXEC = 1030;
const EFD_CLOEXEC = 0o2000000;

/** `rejected`: packets the kernel did not take (link down, no IP packet, queue full, VPN gone). */
export interface PacketCounters {
  readonly read: number;
  readonly written: number;
  readonly rejected: number;
}

export interface PacketStream extends AsyncIterable<Uint8Array> {
  /**
   * Every packet the kernel sends into the vNIC. Ends when the VPN is destroyed or the stream closed. One iteration at a
   * time; leaving it (`break`, a throw) closes the stream. While one runs it keeps the process alive, as a server does.
   */
  [Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, void>;
  /** Hands one IP packet to the kernel. False, and counted, when the kernel did not take it; never throws for that. */
  write(packet: Uint8Array): boolean;
  /** Ends the iteration and releases the thread. The fd given to packets() stays open: it is its owner's. Idempotent. */
  close(): Promise<void>;
  readonly counters: PacketCounters;
}

/**
 * @param fd a TUN fd, such as setUp() returns. The stream works on a duplicate, so that closing the number, or its reuse
 *   for another file, cannot mislead the reading thread; the device lives until both are closed.
 *   Throws for one of withOffload().
 * @example const tunnel = packets(await connection.setUp(config));
 *          for await (const packet of tunnel) send(encrypt(packet));
 */
export function packets(fd: number): PacketStream {
  if (vnetHeaderOf(fd)) {
    throw new Error(
      `fd ${fd} is a TUN with offload (IFF_VNET_HDR); packets() takes one of setUp(config) without withOffload()`,
    );
  }
  return new TunPackets(checked(libc.fcntl(fd, F_DUPFD_CLOEXEC, 0), 'F_DUPFD_CLOEXEC', `fd ${fd}`));
}

class TunPackets implements PacketStream {
  readonly counters = { read: 0, written: 0, rejected: 0 };
  readonly #fd: number;
  #reader: Reader | undefined;
  #closed: Promise<void> | undefined;

  constructor(fd: number) {
    this.#fd = fd;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, void> {
    if (this.#closed) return;
    if (this.#reader) throw new Error('packets() are being read already: one iteration at a time');
    const reader = new Reader(this.#fd);
    this.#reader = reader;
    try {
      for (let batch = await reader.next(); batch; batch = await reader.next()) {
        let start = 0;
        for (const end of batch.ends) {
          this.counters.read++;
          yield batch.bytes.subarray(start, end);
          start = end;
        }
      }
    } finally {
      await this.close();
    }
  }

  write(packet: Uint8Array): boolean {
    const taken = this.#closed === undefined && libc.write(this.#fd, packet, packet.byteLength) >= 0;
    this.counters[taken ? 'written' : 'rejected']++;
    return taken;
  }

  close(): Promise<void> {
    this.#closed ??= this.#release();
    return this.#closed;
  }

  async #release(): Promise<void> {
    await this.#reader?.stop();
    // The last close of a TUN removes the link, which takes about 20 ms: not on this thread.
    await libcAsync.close(this.#fd);
  }
}

/** The main thread's side of reader-worker.ts: a queue of batches, and the two ways to wake the thread up. */
class Reader {
  readonly #control = new Int32Array(new SharedArrayBuffer(8));
  readonly #wakeFd = libc.eventfd(0, EFD_CLOEXEC);
  readonly #batches: PacketBatch[] = [];
  readonly #ended: Promise<void>;
  #running = true;
  #failure: Error | undefined;
  #waiting: (() => void) | undefined;

  constructor(fd: number) {
    const workerData: ReaderInput = { fd, wakeFd: this.#wakeFd, control: this.#control };
    const worker = new Worker(new URL('./reader-worker.js', import.meta.url), { workerData, execArgv: [] });
    readers.add(this);
    worker.on('message', (batch: PacketBatch) => {
      this.#batches.push(batch);
      this.#waiting?.();
    });
    worker.on('error', (error) => {
      this.#failure = error as Error;
    });
    this.#ended = new Promise((resolve) => {
      worker.on('exit', () => {
        this.#running = false;
        readers.delete(this);
        libc.close(this.#wakeFd);
        this.#waiting?.();
        resolve();
      });
    });
  }

  /** The next batch; undefined at the end. What was read before stop() is dropped, like packets in a queue of a dead link. */
  async next(): Promise<PacketBatch | undefined> {
    while (this.#batches.length === 0 && this.#running) {
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
    }
    if (this.#failure) throw this.#failure;
    const batch = this.#stopped ? undefined : this.#batches.shift();
    if (batch) {
      Atomics.sub(this.#control, PENDING, 1);
      Atomics.notify(this.#control, PENDING);
    }
    return batch;
  }

  stop(): Promise<void> {
    this.wake();
    return this.#ended;
  }

  /** Synchronous, because process.on('exit') has no time for more: the process cannot end while poll(2) is pending. */
  wake(): void {
    if (!this.#running) return;
    Atomics.store(this.#control, STOP, 1);
    // Lifts the brake of a reader that waits for its consumer.
    Atomics.sub(this.#control, PENDING, MAX_PENDING_BATCHES);
    Atomics.notify(this.#control, PENDING);
    libc.write(this.#wakeFd, ONE, 8);
  }

  get #stopped(): boolean {
    return Atomics.load(this.#control, STOP) !== 0;
  }
}

/** The value an eventfd counts up by: a 64-bit 1 in the machine's byte order. */
const ONE = new Uint8Array(new BigUint64Array([1n]).buffer);

const readers = new Set<Reader>();
process.on('exit', () => {
  for (const reader of readers) reader.wake();
});

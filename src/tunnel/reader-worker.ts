/**
 * The reading thread of packets(): waits in poll(2) on the TUN fd and an eventfd, reads what there is and posts it in
 * batches. Decides nothing; ends when the eventfd fires or the TUN is gone (EBADFD, EFAULT, ENODEV: the VPN was destroyed).
 */
import { parentPort, workerData } from 'node:worker_threads';
import { errno, libc } from '../kernel/ffi.js';
import { MAX_PENDING_BATCHES, type PacketBatch, PENDING, type ReaderInput, STOP } from './reader-protocol.js';

const POLLIN = 1;
const F_GETFL = 3;
const O_NONBLOCK = 0o4000;
const EINTR = 4;
const EAGAIN = 11;
const MAX_PACKET_BYTES = 65_535;
const MAX_BATCH_BYTES = 256 * 1024;
const MAX_BATCH_PACKETS = 128;

const { fd, wakeFd, control } = workerData as ReaderInput;
const canBlock = (libc.fcntl(fd, F_GETFL, 0) & O_NONBLOCK) === 0;
const scratch = Buffer.alloc(MAX_BATCH_BYTES + MAX_PACKET_BYTES);
const pollFds = pollSet([fd, wakeFd]);

run();

function run(): void {
  for (let open = true; open && Atomics.load(control, STOP) === 0; ) {
    if (!wait(-1)) continue;
    const ends: number[] = [];
    open = fill(ends);
    if (ends.length > 0) post(ends);
  }
}

/** Reads until the TUN is empty or the batch full. False when the TUN is gone. */
function fill(ends: number[]): boolean {
  let used = 0;
  while (used < MAX_BATCH_BYTES && ends.length < MAX_BATCH_PACKETS) {
    const length = libc.read(fd, scratch.subarray(used), MAX_PACKET_BYTES);
    if (length < 0 && errno() !== EINTR) return errno() === EAGAIN;
    if (length === 0) return false;
    if (length > 0) {
      used += length;
      ends.push(used);
    }
    // A blocking fd is only read when poll(2) has just said that it will not wait.
    if (canBlock && !wait(0)) return true;
  }
  return true;
}

function post(ends: number[]): void {
  for (let pending = Atomics.load(control, PENDING); pending >= MAX_PENDING_BATCHES; ) {
    Atomics.wait(control, PENDING, pending);
    pending = Atomics.load(control, PENDING);
  }
  const bytes = new Uint8Array(scratch.subarray(0, ends.at(-1)));
  Atomics.add(control, PENDING, 1);
  const batch: PacketBatch = { bytes, ends };
  parentPort?.postMessage(batch, [bytes.buffer]);
}

/** True when the TUN has something to say (a packet, or that it is gone). */
function wait(timeoutMs: number): boolean {
  const ready = libc.poll(pollFds, 2, timeoutMs);
  return ready > 0 && pollFds.readInt16LE(6) !== 0 && pollFds.readInt16LE(14) === 0;
}

/** struct pollfd { int fd; short events; short revents; } for each fd, waiting for input. */
function pollSet(fds: readonly number[]): Buffer {
  const set = Buffer.alloc(128);
  fds.forEach((each, index) => {
    set.writeInt32LE(each, index * 8);
    set.writeInt16LE(POLLIN, index * 8 + 4);
  });
  return set;
}

/** The thread of a tunnel (tunnel.ts): sets the data path up, runs it, and answers its owner between two turns. */
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { Arena } from '../kernel/arena.js';
import { BootClock } from '../kernel/boot-clock.js';
import { libc } from '../kernel/ffi.js';
import { probeOffload, TUN_F_TSO4, TUN_F_USO4, vnetHeaderOf } from '../kernel/tun-offload.js';
import { type SumBlocks, sumBlocksIn, wasmMemory } from './checksum-simd.js';
import { TunnelCounters } from './counters.js';
import { DataPath } from './data-path.js';
import type { CreateProtocol, TunnelProtocol } from './protocol.js';
import type { TunnelInput, TunnelReply, TunnelRequest, TunnelStatus } from './tunnel-messages.js';
import { canSegment } from './tunnel-socket.js';

/** Runs, batch, buffers, and 64 KiB for what a protocol keeps here. */
const ARENA_BYTES = 768 * 1024;

const SCHED_BATCH = 3;

/**
 * sched(7): a thread that is woken does not take the processor from one that works. With more work than processors, who makes
 * the packets then makes more of them before we get to see them, and all is done in fewer, larger batches.
 */
function workInBatches(): void {
  libc.sched_setscheduler(0, SCHED_BATCH, Buffer.alloc(4));
}

async function run(port: MessagePort, input: TunnelInput): Promise<void> {
  const { tunFd, wakeFd, stop } = input;
  let { socketFd } = input;
  const { createProtocol } = (await import(input.protocol)) as { createProtocol: CreateProtocol };
  const { arena, sumBlocks } = memory();
  const clock = new BootClock(arena);
  const counters = new TunnelCounters();
  const protocol = createProtocol({ arena, mtu: input.mtu, nowMs: clock.now() }, input.options);
  try {
    workInBatches();
    const flags = probeOffload(tunFd);
    const offload = {
      vnetHeader: vnetHeaderOf(tunFd),
      tcp: (flags & TUN_F_TSO4) !== 0,
      udp: (flags & TUN_F_USO4) !== 0,
    };
    const path = new DataPath({ arena, clock, tunFd, socketFd, wakeFd, offload, counters, sumBlocks }, protocol);
    const answer = (request: TunnelRequest): unknown => {
      if (request.kind === 'call') return protocol.call(request.request, clock.now());
      if (request.kind === 'socket') {
        path.replaceSocket(request.fd);
        socketFd = request.fd;
        return;
      }
      const status: TunnelStatus = { counters, offload: { ...offload, socket: canSegment(socketFd) } };
      return status;
    };
    port.postMessage({ id: 0 } satisfies TunnelReply);
    path.run(() => {
      drain(wakeFd);
      if (Atomics.load(stop, 0) !== 0) path.end();
      for (let next = receiveMessageOnPort(port); next; next = receiveMessageOnPort(port)) {
        reply(port, next.message as TunnelRequest, answer);
      }
    });
  } finally {
    zeroKeys(protocol);
  }
}

/** What the answer throws, and an answer that cannot be copied, is the asker's affair. */
function reply(port: MessagePort, request: TunnelRequest, answer: (request: TunnelRequest) => unknown): void {
  const { id } = request;
  try {
    port.postMessage({ id, result: answer(request) } satisfies TunnelReply);
  } catch (error) {
    port.postMessage({ id, error: (error as Error).message } satisfies TunnelReply);
  }
}

/** Without vectors on a processor that has none, or where address space is limited (RLIMIT_AS): a WebAssembly.Memory takes 8 GiB of it. */
function memory(): { arena: Arena; sumBlocks?: SumBlocks } {
  try {
    const vectors = wasmMemory(ARENA_BYTES);
    return { arena: new Arena(vectors.buffer), sumBlocks: sumBlocksIn(vectors) };
  } catch {
    return { arena: new Arena(ARENA_BYTES) };
  }
}

function drain(wakeFd: number): void {
  libc.read(wakeFd, Buffer.alloc(8), 8);
}

function zeroKeys(protocol: TunnelProtocol): void {
  protocol.close();
}

if (parentPort) {
  await run(parentPort, workerData as TunnelInput);
  // An open port would keep this thread alive.
  parentPort.close();
}

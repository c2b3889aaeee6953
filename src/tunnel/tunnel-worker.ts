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
  const memory = wasmMemory(ARENA_BYTES);
  const arena = new Arena(memory.buffer);
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
    const path = new DataPath(
      { arena, clock, tunFd, socketFd, wakeFd, offload, counters, sumBlocks: sumBlocks(memory) },
      protocol,
    );
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
        port.postMessage(replyTo(next.message as TunnelRequest, answer));
      }
    });
  } finally {
    zeroKeys(protocol);
  }
}

function replyTo(request: TunnelRequest, answer: (request: TunnelRequest) => unknown): TunnelReply {
  try {
    return { id: request.id, result: answer(request) };
  } catch (error) {
    return { id: request.id, error: (error as Error).message };
  }
}

/** Undefined on a processor without vectors: the loop does it then. */
function sumBlocks(memory: Parameters<typeof sumBlocksIn>[0]): SumBlocks | undefined {
  try {
    return sumBlocksIn(memory);
  } catch {
    return undefined;
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

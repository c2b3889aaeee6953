/** The thread of a tunnel (tunnel.ts): sets the data path up, runs it, and answers its owner between two turns. */
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { Arena } from '../kernel/arena.js';
import { libc } from '../kernel/ffi.js';
import { probeOffload, TUN_F_TSO4, TUN_F_USO4, vnetHeaderOf } from '../kernel/tun-offload.js';
import { TunnelCounters } from './counters.js';
import { DataPath } from './data-path.js';
import type { CreateProtocol, TunnelProtocol } from './protocol.js';
import type { TunnelInput, TunnelReply, TunnelRequest, TunnelStatus } from './tunnel-messages.js';
import { canSegment } from './tunnel-socket.js';

/** Runs, batch, buffers, and 64 KiB for what a protocol keeps here. */
const ARENA_BYTES = 768 * 1024;

async function run(port: MessagePort, input: TunnelInput): Promise<void> {
  const { tunFd, wakeFd, stop } = input;
  let { socketFd } = input;
  const { createProtocol } = (await import(input.protocol)) as { createProtocol: CreateProtocol };
  const arena = new Arena(ARENA_BYTES);
  const counters = new TunnelCounters();
  const protocol = createProtocol({ arena, mtu: input.mtu }, input.options);
  try {
    const flags = probeOffload(tunFd);
    const offload = {
      vnetHeader: vnetHeaderOf(tunFd),
      tcp: (flags & TUN_F_TSO4) !== 0,
      udp: (flags & TUN_F_USO4) !== 0,
    };
    const path = new DataPath({ arena, tunFd, socketFd, wakeFd, offload, counters }, protocol);
    const answer = (request: TunnelRequest): unknown => {
      if (request.kind === 'call') return protocol.call(request.request, performance.now());
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

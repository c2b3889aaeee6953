/**
 * One end of a tunnel with the protocol of plain-protocol.ts, as a process in a host of the lab. plain-tunnel.ts starts it and
 * speaks with it: each line of standard input is a request, each line of standard output its answer, both JSON.
 */
import { closeSync, readdirSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { libc } from '../../../src/kernel/ffi.js';
import { openTun, type Tun } from '../../../src/kernel/tun.js';
import { openTunnel, type Tunnel } from '../../../src/tunnel/tunnel.js';
import { openTunnelSocket, type TunnelSocket } from '../../../src/tunnel/tunnel-socket.js';
import type { PlainOptions } from './plain-protocol.js';

export type PlainEndRequest =
  /** `sendBufferBytes`: SO_SNDBUF; the kernel doubles it. */
  | { command: 'open'; name: string; port: number; offload: boolean; sendBufferBytes?: number | undefined }
  | { command: 'start'; mtu: number; options: PlainOptions }
  | { command: 'call'; request: unknown }
  | { command: 'status' }
  | { command: 'move'; port: number; sendBufferBytes?: number | undefined }
  | { command: 'resources' }
  /** Closes the tunnel; TUN and socket stay. */
  | { command: 'close' }
  /** With the tunnel running; nothing wakes its thread before. */
  | { command: 'exit'; how: 'exit' | 'throw' }
  /** Starts and closes one tunnel after the other, and says what of them is left. */
  | { command: 'cycle'; times: number; mtu: number; options: PlainOptions };

export interface Resources {
  fds: number;
  threads: number;
}

let tun: Tun | undefined;
let socket: TunnelSocket | undefined;
let tunnel: Tunnel | undefined;

function setSendBuffer(fd: number, bytes: number | undefined): void {
  const [SOL_SOCKET, SO_SNDBUF] = [1, 7];
  const value = Buffer.alloc(4);
  value.writeInt32LE(bytes ?? 0);
  if (bytes !== undefined && libc.setsockopt(fd, SOL_SOCKET, SO_SNDBUF, value, 4) < 0) throw new Error('SO_SNDBUF');
}

const resources = (): Resources => ({
  fds: readdirSync('/proc/self/fd').length,
  threads: readdirSync('/proc/self/task').length,
});

async function start(mtu: number, options: PlainOptions): Promise<Tunnel> {
  if (tun === undefined || socket === undefined) throw new Error('start comes after open');
  const protocol = new URL('./plain-protocol.js', import.meta.url);
  return openTunnel({ tunFd: tun.fd, socketFd: socket.fd, mtu, protocol, options });
}

async function answer(request: PlainEndRequest): Promise<unknown> {
  switch (request.command) {
    case 'open':
      tun = openTun(request.name, { vnetHeader: request.offload });
      socket = openTunnelSocket(request.port);
      setSendBuffer(socket.fd, request.sendBufferBytes);
      return socket.port;
    case 'start':
      tunnel = await start(request.mtu, request.options);
      void tunnel.ended.then((error) => console.log(JSON.stringify({ ended: error?.message ?? 'without an error' })));
      return undefined;
    case 'call':
      return tunnel?.call(request.request);
    case 'status':
      return tunnel?.status();
    case 'move': {
      const next = openTunnelSocket(request.port);
      setSendBuffer(next.fd, request.sendBufferBytes);
      await tunnel?.replaceSocket(next.fd);
      if (socket !== undefined) closeSync(socket.fd);
      socket = next;
      return next.port;
    }
    case 'resources':
      return resources();
    case 'close':
      await tunnel?.close();
      return undefined;
    case 'exit':
      if (request.how === 'exit') process.exit(7);
      setImmediate(() => {
        throw new Error('thrown on the main thread');
      });
      return undefined;
    case 'cycle': {
      const left: Resources[] = [];
      for (let times = 0; times < request.times; times++) {
        const each = await start(request.mtu, request.options);
        await each.status();
        await each.close();
        left.push(await settled());
      }
      return left;
    }
  }
}

/** Descriptors are closed, and threads end, a moment after the promise. */
async function settled(): Promise<Resources> {
  for (let last = resources(); ; ) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    const now = resources();
    if (now.fds === last.fds && now.threads === last.threads) return now;
    last = now;
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { number, ...request } = JSON.parse(line) as PlainEndRequest & { number: number };
  void answer(request).then(
    (value) => console.log(JSON.stringify({ number, value })),
    (error: Error) => console.log(JSON.stringify({ number, error: error.message })),
  );
}

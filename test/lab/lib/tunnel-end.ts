/**
 * One end of this tunnel as a process in a host of the lab, without service or vpnctl: it makes a TUN itself and starts the
 * WireGuard of src/tunnel on it. our-tunnel.ts starts it and speaks with it: each line of standard input is a request, each
 * line of standard output its answer, both JSON, keys and other bytes in base64. Keys come this way because others can read
 * a command line.
 */
import { closeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { openTun } from '../../../src/kernel/tun.js';
import { openTunnelSocket } from '../../../src/tunnel/tunnel-socket.js';
import type { DeviceChange } from '../../../src/tunnel/wireguard/device-config.js';
import { startWireGuard, type WireGuardTunnel } from '../../../src/tunnel/wireguard-tunnel.js';
import { decodeBytes, encodeBytes, type TunnelEndRequest } from './tunnel-end-protocol.js';

let tun: { fd: number } | undefined;
let socket: { fd: number; port: number } | undefined;
let tunnel: WireGuardTunnel | undefined;

async function answer(request: TunnelEndRequest): Promise<unknown> {
  switch (request.command) {
    case 'open':
      tun = openTun(request.name, { vnetHeader: request.offload });
      socket = openTunnelSocket(request.port);
      return { port: socket.port };
    case 'start': {
      if (tun === undefined || socket === undefined) throw new Error('start comes after open');
      const { mtu, change } = request;
      tunnel = await startWireGuard({ tunFd: tun.fd, socketFd: socket.fd, mtu, change: change as DeviceChange });
      void tunnel.ended.then((error) => console.log(encodeBytes({ ended: error?.stack ?? 'the TUN is gone' })));
      return {};
    }
    case 'configure':
      await tunnel?.configure(request.change as DeviceChange);
      return {};
    case 'move': {
      const next = openTunnelSocket(request.port);
      await tunnel?.replaceSocket(next.fd);
      if (socket !== undefined) closeSync(socket.fd);
      socket = next;
      return { port: next.port };
    }
    case 'status':
      return tunnel?.status();
    case 'close':
      await tunnel?.close();
      if (tun !== undefined) closeSync(tun.fd);
      if (socket !== undefined) closeSync(socket.fd);
      return {};
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { number, ...request } = decodeBytes(line) as TunnelEndRequest & { number: number };
  try {
    console.log(encodeBytes({ number, value: await answer(request) }));
  } catch (error) {
    console.log(encodeBytes({ number, error: (error as Error).stack }));
  }
  if (request.command === 'close') break;
}
// It would keep the process alive.
process.stdin.destroy();

/** The far end of a VPN without any protocol: one UDP datagram, one IP packet. Opens the TUN itself (tun(4)). */
import { execFileSync } from 'node:child_process';
import { createSocket, type RemoteInfo } from 'node:dgram';
import { once } from 'node:events';
import { openSync } from 'node:fs';
import { errno, libc } from '../../../../src/kernel/ffi.js';
import { packets } from '../../../../src/tunnel/index.js';
import type { Tunnel } from './specification.js';

const TUNSETIFF = 0x400454ca;
const IFF_TUN_NO_PI = 0x1001;

export async function serveTunnel({ port, device, moveTo }: Tunnel): Promise<void> {
  const fd = openTun(device);
  if (moveTo !== undefined) execFileSync('ip', ['link', 'set', device, 'netns', String(moveTo)]);
  const tun = packets(fd);
  const socket = createSocket({ type: 'udp6', recvBufferSize: 1 << 22, sendBufferSize: 1 << 22 });
  let client: RemoteInfo | undefined;
  socket.on('message', (packet, sender) => {
    client = sender;
    tun.write(packet);
  });
  socket.bind(port, '::');
  await once(socket, 'listening');
  void (async () => {
    for await (const packet of tun) if (client) socket.send(packet, client.port, client.address, () => {});
  })();
}

/** A TUN of this name; the link exists as long as the fd is open. */
export function openTun(device: string): number {
  const fd = openSync('/dev/net/tun', 'r+');
  const request = Buffer.alloc(128);
  request.write(device, 'latin1');
  request.writeUInt16LE(IFF_TUN_NO_PI, 16);
  if (libc.ioctl(fd, TUNSETIFF, request) < 0) throw new Error(`TUNSETIFF ${device}: errno ${errno()}`);
  return fd;
}

/** The far end of a VPN without any protocol: one UDP datagram, one IP packet. */
import { execFileSync } from 'node:child_process';
import { createSocket, type RemoteInfo } from 'node:dgram';
import { once } from 'node:events';
import { openTun } from '../../../../src/kernel/tun.js';
import { packets } from '../../../../src/tunnel/index.js';
import type { Tunnel } from './specification.js';

export async function serveTunnel({ port, device, moveTo }: Tunnel): Promise<void> {
  const { fd } = openTun(device);
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

/** Says who it is and whom it sees: the test's way to know which path a connection took. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { Whoami } from './specification.js';

export async function serveWhoami({ name, port, address = '::' }: Whoami): Promise<void> {
  const server = createServer((client) => {
    client.on('error', () => {});
    client.write(`${name} ${plain(client.remoteAddress ?? '')} ${client.remotePort}\n`);
    client.pipe(client);
  });
  server.listen(port, address);
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  socket.on('message', (message, client) => {
    const head = Buffer.from(`${name} ${plain(client.address)} ${client.port} `);
    socket.send([head, message], client.port, client.address, () => {});
  });
  socket.bind(port, address);
  await Promise.all([once(server, 'listening'), once(socket, 'listening')]);
}

/** An IPv4 client of a dual-stack socket. */
function plain(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/, '');
}

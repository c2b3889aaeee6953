/** HTTP: as many bytes as the path says. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { Http } from './specification.js';

const CHUNK = Buffer.alloc(64 * 1024, 'vpn');

export async function serveHttp({ port, address = '::' }: Http): Promise<void> {
  const server = createServer((request, response) => {
    let left = Number(request.url?.slice(1));
    response.setHeader('content-length', left);
    response.setHeader('x-client', request.socket.remoteAddress?.replace(/^::ffff:/, '') ?? '');
    const push = () => {
      while (left > 0) {
        const chunk = CHUNK.subarray(0, Math.min(left, CHUNK.length));
        left -= chunk.length;
        if (!response.write(chunk)) return;
      }
      response.end();
    };
    response.on('drain', push);
    push();
  });
  server.listen(port, address);
  await once(server, 'listening');
}

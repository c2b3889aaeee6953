/**
 * TCP transfers that compare what was sent with what arrived, for transfer.ts. `serve ADDRESS PORT` answers each connection
 * that has ended its sending with the number of bytes and their SHA-256; `send ADDRESS PORT BYTES` prints its own and the
 * answer.
 */
import { createCipheriv, createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createConnection, createServer } from 'node:net';

const CHUNK_BYTES = 1 << 20;

function serve(address: string, port: number): void {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const hash = createHash('sha256');
    let bytes = 0;
    socket.on('data', (data) => {
      hash.update(data);
      bytes += data.length;
    });
    socket.on('end', () => socket.end(`${bytes} ${hash.digest('hex')}`));
    socket.on('error', () => socket.destroy());
  });
  server.listen(port, address, () => console.log('ready'));
}

async function send(address: string, port: number, bytes: number): Promise<void> {
  const socket = createConnection({ host: address, port });
  let answer = '';
  socket.setEncoding('latin1').on('data', (text) => {
    answer += text;
  });
  const ended = once(socket, 'end');
  await once(socket, 'connect');
  // Nothing repeats and nothing is zero: a piece out of place, twice or missing changes the hash.
  const stream = createCipheriv('aes-128-ctr', randomBytes(16), randomBytes(16));
  const hash = createHash('sha256');
  const zeros = Buffer.alloc(CHUNK_BYTES);
  for (let left = bytes; left > 0; left -= CHUNK_BYTES) {
    const chunk = stream.update(zeros.subarray(0, Math.min(left, CHUNK_BYTES)));
    hash.update(chunk);
    if (!socket.write(chunk)) await once(socket, 'drain');
  }
  socket.end();
  await ended;
  console.log(`${bytes} ${hash.digest('hex')}\n${answer}`);
}

const [, , command, address = '', port = '', bytes = ''] = process.argv;
if (command === 'serve') serve(address, Number(port));
else await send(address, Number(port), Number(bytes));

/**
 * The process of one tunnel, started by `vpnctl up` in a session of its own: the order comes over standard input, the result goes
 * over descriptor 3 as one JSON line, and standard error is the log. Who started it can give up by closing descriptor 3.
 */
import { rmSync } from 'node:fs';
import { Socket } from 'node:net';
import { keepMemoryPrivate } from '../tunnel/private-memory.js';
import type { PeerRoutes } from './peer-routes.js';
import { defect, EX_SOFTWARE } from './terminal/output.js';
import { exitCodeOf, live } from './tunnel-life.js';
import { note } from './tunnel-log.js';
import { decodeOrder } from './tunnel-order.js';

const RESULT_FD = 3;

/** Either it is up, or why it is not. */
export type StartResult = { link: string; socket: string; routes: PeerRoutes } | { exitCode: number; message: string };

async function readAll(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  const whole = Buffer.concat(chunks);
  for (const chunk of chunks) chunk.fill(0);
  return whole;
}

process.on('uncaughtException', (error) => {
  note(defect(error));
  process.exit(EX_SOFTWARE);
});
const result = new Socket({ fd: RESULT_FD });
const starter = new AbortController();
// It has nothing to say: what comes is its end.
result.on('close', () => starter.abort()).on('error', () => result.destroy());
result.resume();
const tell = (what: StartResult) => result.end(`${JSON.stringify(what)}\n`);

try {
  keepMemoryPrivate();
  const bytes = await readAll(process.stdin);
  const order = decodeOrder(bytes);
  bytes.fill(0);
  const code = await live(order, starter.signal, ({ link, socket, routes }) => {
    note(`${link}: up, ${order.name}`);
    tell({ link, socket, routes });
  });
  // What went well leaves nothing behind.
  if (code === 0 && order.log !== undefined) rmSync(order.log, { force: true });
  process.exit(code);
} catch (error) {
  const message = error instanceof Error ? error.message : String(error);
  note(message);
  const exitCode = exitCodeOf(error);
  tell({ exitCode, message });
  if (result.destroyed) process.exit(exitCode);
  result.on('close', () => process.exit(exitCode));
}

/**
 * A unix socket of a user's own, for others of the same user: mode 0600 from its first moment, few clients at once, each with so
 * long to be done. The file of a process that died is replaced, that of one that listens is not.
 */
import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';

/** wg(8) and vpnctl connect, ask and go. */
const MAX_CLIENTS = 8;

export interface LocalServer {
  readonly path: string;
  /** Takes nobody any more and removes the file at once; settles when the clients that are being served have gone. */
  close(): Promise<void>;
}

/** Settles when it listens; `serve` is to end each client. Rejects with an Error, EADDRINUSE as its code when somebody else listens there. */
export async function listenLocal(
  path: string,
  patienceMs: number,
  serve: (client: Socket) => void,
): Promise<LocalServer> {
  await removeStale(path);
  // A client that has asked may close its side and still wait for the answer, as nc(1) does.
  const server = createServer({ allowHalfOpen: true }, (client) => {
    // A client that goes away in the middle is nobody's problem.
    client.on('error', () => client.destroy());
    const late = setTimeout(() => client.destroy(), patienceMs);
    client.on('close', () => clearTimeout(late));
    serve(client);
  });
  server.maxConnections = MAX_CLIENTS;
  await listen(server, path);
  server.on('error', () => {});
  return { path, close: () => new Promise((resolve) => server.close(() => resolve())) };
}

/** bind(2) is made before listen returns, and with this mask nobody else can connect in between. */
function listen(server: Server, path: string): Promise<void> {
  const before = process.umask(0o177);
  try {
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, () => {
        server.off('error', reject);
        chmodSync(path, 0o600);
        resolve();
      });
    });
  } finally {
    process.umask(before);
  }
}

async function removeStale(path: string): Promise<void> {
  const entry = lstatSync(path, { throwIfNoEntry: false });
  if (entry?.isSocket() && !(await isListening(path))) unlinkSync(path);
}

/** Whether somebody takes connections there. A listener whose queue is full is one, too. */
export function isListening(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    const settle = (listening: boolean) => {
      probe.destroy();
      resolve(listening);
    };
    probe.on('connect', () => settle(true));
    probe.on('error', ({ code }: NodeJS.ErrnoException) => settle(code !== 'ECONNREFUSED' && code !== 'ENOENT'));
  });
}

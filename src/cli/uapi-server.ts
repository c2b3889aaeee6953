/**
 * WireGuard's cross-platform socket, by which wg(8) shows and sets a tunnel: /run/wireguard/LINK.sock where this user may make
 * files there, else in the folder for the tunnel's sockets, where wg does not look. The text is src/tunnel/wireguard/uapi.ts.
 */
import { accessSync, constants, lstatSync, mkdirSync } from 'node:fs';
import type { Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import {
  parseUapiRequest,
  printUapiDevice,
  printUapiErrno,
  type UapiDevice,
  UapiError,
  UapiReader,
  type UapiRequest,
} from '../tunnel/wireguard/uapi.js';
import { listenLocal } from './local-server.js';

/** Where wg(8) looks for implementations in user space. */
const WIREGUARD_FOLDER = '/run/wireguard';
/** A client is done long before; one that is not shall not keep its place. */
const PATIENCE_MS = 30_000;

export interface UapiBackend {
  /** Of the tunnel's socket. */
  readonly fwmark: number;
  get(): Promise<UapiDevice>;
  /** Rejects with a UapiError that has the errno for the answer; any other error is EIO. */
  set(request: UapiRequest & { operation: 'set' }): Promise<void>;
}

export interface UapiServer {
  readonly path: string;
  /** Ends its clients as well. */
  close(): void;
}

/** `link`: the vNIC's name. `ownFolder`: where the socket goes when it cannot be in `shared`, where wg looks. */
export async function startUapiServer(
  link: string,
  ownFolder: string,
  backend: UapiBackend,
  shared = WIREGUARD_FOLDER,
): Promise<UapiServer> {
  const clients = new Set<Socket>();
  const serve = (client: Socket) => {
    clients.add(client);
    client.on('close', () => clients.delete(client));
    serveClient(client, backend);
  };
  const name = `${link}.sock`;
  const listen = async (folder: () => string) => listenLocal(join(folder(), name), PATIENCE_MS, serve);
  const server = await listen(() => usable(shared)).catch(() => listen(() => ownFolder));
  return {
    path: server.path,
    close: () => {
      void server.close();
      for (const client of clients) client.destroy();
    },
  };
}

/** Root makes it as wireguard-go does. Throws when it is not to be had, or when others could put something in the way. */
function usable(folder: string): string {
  const uid = process.geteuid?.() ?? 0;
  if (uid === 0 && folder === WIREGUARD_FOLDER) mkdirSync(folder, { recursive: true, mode: 0o700 });
  const { mode, uid: owner } = lstatSync(folder);
  // Where a group may write, only the sticky bit keeps one of it from putting his own socket in our socket's place.
  const isReplaceable = (mode & 0o020) !== 0 && (mode & 0o1000) === 0;
  if ((owner !== 0 && owner !== uid) || (mode & 0o002) !== 0 || isReplaceable) {
    throw new Error(`${folder} is open to others`);
  }
  accessSync(folder, constants.W_OK | constants.X_OK);
  return folder;
}

/** Requests are worked one after the other, and nothing more is read meanwhile. */
function serveClient(client: Socket, backend: UapiBackend): void {
  const reader = new UapiReader();
  const work = async (data: Buffer) => {
    try {
      const texts = reader.push(data);
      data.fill(0);
      for (const text of texts) await answer(client, text, backend);
    } catch (error) {
      // What else comes is not looked at.
      client.removeAllListeners('data').end(printUapiErrno(errnoOf(error)));
    }
    client.resume();
  };
  let last = Promise.resolve();
  client.on('data', (data: Buffer) => {
    client.pause();
    last = last.then(() => work(data));
  });
  // The end can come while the last request is being worked.
  client.on('end', () => last.then(() => client.end()));
  client.on('close', () => reader.wipe());
}

async function answer(client: Socket, text: string, backend: UapiBackend): Promise<void> {
  let reply: string;
  try {
    const request = parseUapiRequest(text, interfaceIndex, backend.fwmark);
    if (request.operation === 'set') await backend.set(request);
    reply = request.operation === 'get' ? printUapiDevice(await backend.get()) : printUapiErrno(0);
  } catch (error) {
    reply = printUapiErrno(errnoOf(error));
  }
  if (client.writable) client.write(reply);
}

function errnoOf(error: unknown): number {
  return error instanceof UapiError ? error.errno : new UapiError('EIO', '').errno;
}

/** The kernel's scope id of a link-local address is its interface's number. */
function interfaceIndex(name: string): number | undefined {
  const addresses = networkInterfaces()[name] ?? [];
  for (const address of addresses) if (address.family === 'IPv6' && address.scopeid > 0) return address.scopeid;
  return undefined;
}

/**
 * A tunnel from its first step to its last, as a client of the API that anybody could write: a socket, `protect`, `setUp`,
 * WireGuard between the two, `destroy`. Whatever step fails, those before it are taken back, and nothing is left.
 *
 * The socket is protected before there is a VPN, and WireGuard begins when there is one, so no packet of either side ever goes
 * the wrong way: until WireGuard runs, covered traffic waits in the vNIC.
 */
import { close as closeFile, closeSync, readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { KernelError } from '../model/errors.js';
import { withOffload } from '../tunnel/index.js';
import { openTunnelSocket, type TunnelSocket } from '../tunnel/tunnel-socket.js';
import type { PeerChange } from '../tunnel/wireguard/device-config.js';
import { startWireGuard } from '../tunnel/wireguard-tunnel.js';
import { createVpnConnection } from '../vpn/vpn.js';
import { startControlServer } from './control.js';
import { startEndpointSearch } from './endpoint-search.js';
import { startFirstSearch } from './first-search.js';
import { startHandshakeWatch } from './handshake-watch.js';
import { runHook } from './hooks.js';
import { checkPeerRoutes, type PeerRoutes } from './peer-routes.js';
import { ProtectedResolver } from './protected-resolver.js';
import { makeRuntimeFolder } from './runtime-folder.js';
import { saveConfig, withDevice } from './save-config.js';
import { TunnelDevice } from './tunnel-device.js';
import type { Note } from './tunnel-log.js';
import { type TunnelOrder, wipeKeys } from './tunnel-order.js';
import { describeTunnel } from './tunnel-status.js';
import { startUapiServer } from './uapi-server.js';
import { UndoStack } from './undo-stack.js';
import { chooseEndpoint, machineSources } from './wireguard/endpoints.js';
import { EX_CONFIG, FileProblem } from './wireguard/problem.js';
import type { Hook, QuickPeer } from './wireguard/quick-file.js';

const closeFd = promisify(closeFile);

export interface RunningTunnel {
  readonly link: string;
  /** Where wg(8) can ask. */
  readonly socket: string;
  /** What is in the way to the peers. */
  readonly routes: PeerRoutes;
  /** Settles when WireGuard ends by itself: undefined when others ended the VPN. */
  readonly ended: Promise<Error | undefined>;
  /** Takes it down; settles with sentences about what did not work. */
  down(): Promise<string[]>;
  /** Settles when who asked for the end over the control socket has been told. */
  readonly told: Promise<void>;
}

export interface TunnelSurroundings {
  note: Note;
  /** Somebody asks for the end over the control socket; settles when all is down, with what did not work. */
  onDown(): Promise<string[]>;
  /** Gives up a start. */
  signal: AbortSignal;
}

/** Rejects with a BusinessError, KernelError, FileProblem or Error. The order's keys are zeroed. */
export async function startTunnel(order: TunnelOrder, surroundings: TunnelSurroundings): Promise<RunningTunnel> {
  const undo = new UndoStack();
  try {
    return await start(order, surroundings, undo);
  } catch (error) {
    for (const problem of await undo.unwind()) surroundings.note(problem);
    throw error;
  } finally {
    wipeKeys(order.change);
  }
}

async function start(
  order: TunnelOrder,
  { note, onDown, signal }: TunnelSurroundings,
  undo: UndoStack,
): Promise<RunningTunnel> {
  const { file, config, mtu, change } = order;
  const connection = createVpnConnection({});
  const folder = makeRuntimeFolder();
  const resolver = new ProtectedResolver(connection, config.dnsAddresses ?? []);
  const protect = (fd: number) => connection.protect(fd);
  let isGone = false;

  const socket = openSocket(order);
  let device: TunnelDevice | undefined;
  undo.push('the tunnel’s socket', () => (device ? device.close() : closeSync(socket.fd)));
  await protect(socket.fd);
  signal.throwIfAborted();

  const tunFd = await connection.setUp(withOffload(config));
  undo.push('the vNIC', () => closeFd(tunFd));
  // When it has ended without us, what there is now may be another VPN of this user.
  undo.push('the VPN', () => (isGone ? undefined : connection.destroy()));
  const link = linkOf(tunFd);
  await runHooks(order, 'preUp', link, signal);

  const wireguard = await startWireGuard({ tunFd, socketFd: socket.fd, mtu, change });
  let isClosing = false;
  undo.push('WireGuard', () => {
    isClosing = true;
    return wireguard.close();
  });
  device = new TunnelDevice(wireguard, socket, protect);
  const ended = wireguard.ended.then((error) => {
    isGone = error === undefined && !isClosing;
    return error;
  });

  const running = device;
  const uapi = await startUapiServer(link, folder, running);
  undo.push('the socket for wg(8)', () => uapi.close());
  const since = new Date().toISOString();
  const describe = async () => {
    const { name, path } = order;
    const own = { name, file: path, link, pid: process.pid, since, listenPort: running.listenPort, socket: uapi.path };
    return describeTunnel(own, await running.status(), file.peers, (key) => handshakes.watch.problemOf(key));
  };
  const handshakes = startHandshakeWatch({ status: () => running.status(), note });
  undo.push('the watch over handshakes', () => handshakes.stop());
  const begin = async () => {
    await running.begin();
    return {};
  };
  const down = async () => {
    const problems = await onDown();
    return problems.length > 0 ? { problem: problems.join('; ') } : {};
  };
  const control = await startControlServer(link, folder, { status: describe, begin, down });
  let told: Promise<void> = Promise.resolve();
  undo.push('the control socket', () => {
    told = control.close();
  });
  const known = new Map(order.addresses);
  const sources = {
    ...machineSources(protect),
    lookup: async (host: string) => {
      try {
        known.set(host, await resolver.resolve(host));
      } catch (error) {
        if (!known.has(host)) throw error;
      }
      return known.get(host) ?? [];
    },
  };
  const search = {
    peers: file.peers,
    status: () => running.status(),
    choose: (endpoint: NonNullable<QuickPeer['endpoint']>, current: string | undefined) =>
      chooseEndpoint(file, endpoint, sources, current),
    move: (peer: PeerChange) => running.move(peer),
    note,
  };
  undo.push('the first search for endpoints', startFirstSearch(search));
  undo.push('the search for endpoints', startEndpointSearch(search));
  await runHooks(order, 'postUp', link, signal);
  signal.throwIfAborted();
  const routes = await checkPeerRoutes(order, { mark: running.fwmark, link, note });
  for (const line of routes.warnings) note(line);

  return {
    link,
    socket: uapi.path,
    routes,
    ended,
    down: async () => {
      const before = await runAllHooks(order, 'preDown', link);
      if (file.interface.saveConfig) before.push(...(await save(order, running)));
      const problems = await undo.unwind();
      return [...before, ...problems, ...(await runAllHooks(order, 'postDown', link))];
    },
    get told() {
      return told;
    },
  };
}

function openSocket({ file }: TunnelOrder): TunnelSocket {
  const { listenPort } = file.interface;
  try {
    return openTunnelSocket(listenPort?.value);
  } catch (error) {
    if (!(error instanceof KernelError) || listenPort === undefined) throw error;
    const why =
      error.errnoName === 'EADDRINUSE' ? 'another program has it' : `you may not have it (${error.errnoName})`;
    const reason = `ListenPort ${listenPort.value}: ${why}; choose another, or leave it out`;
    throw new FileProblem(EX_CONFIG, file.path, listenPort.line, reason);
  }
}

/** The kernel says which link a TUN descriptor belongs to. */
function linkOf(tunFd: number): string {
  const link = /^iff:\s*(\S+)$/m.exec(readFileSync(`/proc/self/fdinfo/${tunFd}`, 'latin1'))?.[1];
  if (link === undefined) throw new Error('the vNIC has no name');
  return link;
}

const KEYS: Readonly<Record<Hook, string>> = {
  preUp: 'PreUp',
  postUp: 'PostUp',
  preDown: 'PreDown',
  postDown: 'PostDown',
};

/** On the way up the first that fails is the end. */
async function runHooks({ file }: TunnelOrder, hook: Hook, link: string, signal: AbortSignal): Promise<void> {
  for (const { value, line } of file.interface.hooks[hook]) {
    signal.throwIfAborted();
    await runHook(value, link, signal).catch((error: Error) => {
      throw new FileProblem(EX_CONFIG, file.path, line, `${KEYS[hook]} ${error.message}`);
    });
  }
}

/** On the way down they are all run. */
async function runAllHooks({ file }: TunnelOrder, hook: Hook, link: string): Promise<string[]> {
  const problems: string[] = [];
  for (const { value, line } of file.interface.hooks[hook]) {
    await runHook(value, link).catch((error: Error) => {
      problems.push(`${file.path}:${line}: ${KEYS[hook]} ${error.message}`);
    });
  }
  return problems;
}

async function save({ path, file }: TunnelOrder, device: TunnelDevice): Promise<string[]> {
  try {
    saveConfig(path, withDevice(file, await device.get()));
    return [];
  } catch (error) {
    return [`${file.path} is not saved: ${(error as Error).message}`];
  }
}

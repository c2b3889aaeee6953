/**
 * A process of some user in a host of the lab that has sockets, and one that ends them (src/host/socket-ender.ts): this file
 * is both the program, which takes one JSON array a line (the name of an operation and its arguments) and answers each
 * with one line, and what starts it.
 */
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type Coverage, cgroupIds } from '../../../src/host/coverage.js';
import { SocketEnder } from '../../../src/host/socket-ender.js';
import { checked, errnoName } from '../../../src/kernel/errno.js';
import { libc } from '../../../src/kernel/ffi.js';
import { stateMask, TCP_ESTABLISHED } from '../../../src/kernel/inet-diag.js';
import { SockDiag } from '../../../src/kernel/sock-diag.js';
import { setSocketMark } from '../../../src/kernel/socket-options.js';
import { NativeSocket, type Transport } from './app/native-socket.js';
import type { LabHost } from './host.js';

export interface Opening {
  transport: Transport;
  /** Default: that of the remote address, else of the local one. */
  family?: 1 | 2;
  /** Bound to this first. Port 0: the kernel chooses. */
  local?: [address: string, port: number];
  remote?: [address: string, port: number];
  mark?: number;
}

/** A Coverage that can be sent to another process. */
export interface Covering {
  owner: number;
  usersWithOwnVpn?: number[];
  /** Directories of cgroups. */
  trusted?: string[];
  blocked?: string[];
  /** Where the VPN takes nothing. */
  stays?: string[];
  /** Of the vNIC. */
  addresses?: string[];
}

const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_ERROR = 4;
const SOCK_NONBLOCK = 0o4000;
const one = Buffer.from([1, 0, 0, 0]);

const sockets = new Map<number, NativeSocket>();
const ender = once(() => new SocketEnder());

const operations = {
  open: async ({ transport, family, local, remote, mark }: Opening): Promise<number> => {
    const [address = ''] = remote ?? local ?? [];
    const socket = new NativeSocket(family ?? (address.includes(':') ? 2 : 1), transport);
    sockets.set(socket.fd, socket);
    if (mark !== undefined) setSocketMark(socket.fd, mark);
    // So that a connection and a listener can have the same port. Never where the kernel chooses it: two sockets of a test
    // would then now and then share one, and a capture could not tell them apart.
    if (local && local[1] !== 0)
      checked(libc.setsockopt(socket.fd, SOL_SOCKET, SO_REUSEADDR, one, 4), 'setsockopt', 'SO_REUSEADDR');
    if (local) socket.bind(...local);
    if (remote) await socket.connect(...remote);
    return socket.fd;
  },
  connect: async (fd: number, address: string, port: number): Promise<void> => sockets.get(fd)?.connect(address, port),
  openMany: async (count: number, opening: Opening): Promise<void> => {
    for (let made = 0; made < count; made++) await operations.open(opening);
  },
  listen: async (fd: number): Promise<void> => {
    checked(libc.listen(fd, 100), 'listen', `fd ${fd}`);
  },
  /** A connection that is waiting, or will be within 20 s. */
  accept: async (fd: number): Promise<number> => {
    const waiting = Buffer.alloc(8);
    waiting.writeInt32LE(fd, 0);
    waiting.writeInt16LE(1, 4);
    checked(libc.poll(waiting, 1, 20_000), 'poll', `fd ${fd}`);
    return checked(libc.accept4(fd, null, null, SOCK_NONBLOCK), 'accept4', `fd ${fd}`);
  },
  localPort: async (fd: number): Promise<number> => {
    const name = Buffer.alloc(28);
    checked(libc.getsockname(fd, name, Buffer.from([28, 0, 0, 0])), 'getsockname', `fd ${fd}`);
    return name.readUInt16BE(2);
  },
  /** SO_ERROR, which is then cleared: the errno's name, or 'none'. */
  error: async (fd: number): Promise<string> => {
    const value = Buffer.alloc(4);
    checked(libc.getsockopt(fd, SOL_SOCKET, SO_ERROR, value, Buffer.from([4, 0, 0, 0])), 'getsockopt', 'SO_ERROR');
    return value.readInt32LE(0) === 0 ? 'none' : errnoName(value.readInt32LE(0));
  },
  send: async (fd: number, text: string, bytes = text.length): Promise<number> => {
    const data = Buffer.alloc(bytes, text);
    return checked(libc.send(fd, data, data.length, 0x4000), 'send', `fd ${fd}`);
  },
  /** Whether this comes within five seconds, in a stream or a datagram. */
  hears: async (fd: number, text: string): Promise<boolean> => {
    const buffer = Buffer.alloc(65536);
    let heard = '';
    for (let tries = 0; tries < 500 && !heard.includes(text); tries++) {
      const length = libc.recv(fd, buffer, buffer.length, 0);
      if (length > 0) heard += buffer.toString('latin1', 0, length);
      else await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return heard.includes(text);
  },
  close: async (fd: number): Promise<void> => {
    libc.close(fd);
  },

  require: (): Promise<void> => ender().require(),
  endCovered: async (covering: Covering): Promise<number> => ender().endCovered(await coverageOf(covering)),
  /** Ends every connected UDP socket, and the same again. */
  destroyTwice: async (): Promise<number[]> => {
    const diag = new SockDiag();
    const entries = await diag.list({ protocol: 'udp', states: stateMask([TCP_ESTABLISHED]) });
    const ended = [await diag.destroy(entries), await diag.destroy(entries)];
    diag.close();
    return ended;
  },
  endFrom: (addresses: string[]): Promise<number> => ender().endFrom(new Set(addresses)),
  /** One line each: `LOCAL PORT < REMOTE PORT`. */
  inbound: async (): Promise<string[]> =>
    (await ender().inbound()).map(
      ({ local, remote }) => `${local.address} ${local.port} < ${remote.address} ${remote.port}`,
    ),
  /** What each costs, in milliseconds, three times; the last one ends everything. */
  time: async (covering: Covering): Promise<Record<string, number[]>> => {
    const coverage = await coverageOf(covering);
    const took: Record<string, number[]> = {};
    const measure = async (name: string, work: () => Promise<unknown>): Promise<void> => {
      const start = performance.now();
      await work();
      took[name] = [...(took[name] ?? []), Math.round(performance.now() - start)];
    };
    for (let round = 0; round < 3; round++) {
      await measure('inbound', () => ender().inbound());
      await measure('endCovered that ends nothing', () => ender().endCovered({ ...coverage, owner: 4711 }));
      await measure('endFrom that ends nothing', () => ender().endFrom(new Set(['10.9.0.9', 'fd09::9'])));
    }
    await measure('endCovered', () => ender().endCovered(coverage));
    return took;
  },
};

async function coverageOf({ owner, usersWithOwnVpn = [], stays = [], addresses = [], ...lists }: Covering) {
  const listed = async (directories: string[]) => {
    const ids = await Promise.all(directories.map(cgroupIds));
    return { uids: new Set<number>(), cgroups: new Set(ids.flatMap((each) => [...each])) };
  };
  const coverage: Coverage = {
    owner,
    usersWithOwnVpn: new Set(usersWithOwnVpn),
    ...(lists.trusted && { trusted: await listed(lists.trusted) }),
    ...(lists.blocked && { blocked: await listed(lists.blocked) }),
    selections: {},
    addresses: new Set(addresses),
    takes: (_, address) => !stays.includes(address),
  };
  return coverage;
}

function once<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => {
    made ??= make();
    return made;
  };
}

type Operations = typeof operations;

export interface SocketProcess {
  pid: number;
  /** A failure has the errno's name as its `code`. */
  call<K extends keyof Operations>(name: K, ...args: Parameters<Operations[K]>): ReturnType<Operations[K]>;
  kill(): Promise<unknown>;
}

const FILE = fileURLToPath(import.meta.url);

/** `mayMark`: with CAP_NET_ADMIN. `cgroup`: a directory. */
export async function startSocketProcess(
  host: LabHost,
  uid: number,
  { mayMark = false, cgroup = '' } = {},
): Promise<SocketProcess> {
  const ambient = mayMark ? ['--inh-caps=+net_admin', '--ambient-caps=+net_admin'] : [];
  const user = ['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', ...ambient, '--'];
  const enter = cgroup === '' ? ['exec "$@"', 'sh'] : ['echo $$ > "$0/cgroup.procs" && exec "$@"', cgroup];
  const program = ['/run/node', host.path('dist/test/lab/lib/socket-process.js'), 'run'];
  const child = host.spawn('sh', ['-c', ...enter, ...user, ...program]);
  await child.waitFor(/^ready$/m);
  let answers = 0;
  const call = async (...order: unknown[]): Promise<unknown> => {
    child.write(`${JSON.stringify(order)}\n`);
    const [, line = ''] = await child.waitFor(new RegExp(`^ready\\n(?:.*\\n){${answers++}}(.*)\\n`), 60_000);
    const { result, error } = JSON.parse(line) as { result?: unknown; error?: string };
    if (error !== undefined) throw Object.assign(new Error(`${JSON.stringify(order)}: ${error}`), { code: error });
    return result;
  };
  return { pid: child.pid, call: call as SocketProcess['call'], kill: () => child.kill('SIGKILL') };
}

async function obey(): Promise<void> {
  console.log('ready');
  for await (const line of createInterface({ input: process.stdin })) {
    const [name, ...args] = JSON.parse(line) as [keyof Operations, ...unknown[]];
    try {
      const work = operations[name] as (...args: unknown[]) => Promise<unknown>;
      console.log(JSON.stringify({ result: (await work(...args)) ?? null }));
    } catch (error) {
      console.log(JSON.stringify({ error: (error as { errnoName?: string }).errnoName ?? String(error) }));
    }
  }
  process.exit(0);
}

if (process.argv[1] === FILE && process.argv[2] === 'run') await obey();

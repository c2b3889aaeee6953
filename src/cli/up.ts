/**
 * `vpnctl up FILE|NAME|-`: reads a wg-quick file, finds its peers, and starts the process that runs the tunnel. All that can be wrong
 * with the file is said before anything is done; what goes wrong later the process takes back by itself.
 */
import { spawn } from 'node:child_process';
import { closeSync, constants, openSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { socketPath } from '../ipc/methods.js';
import { ServiceConnection } from '../ipc/service-connection.js';
import { BusinessError } from '../model/errors.js';
import { quote } from '../model/quote.js';
import { IPV6 } from '../model/vpn-types.js';
import { keepMemoryPrivate } from '../tunnel/private-memory.js';
import { createVpnConnection } from '../vpn/vpn.js';
import type { PeerRoutes } from './peer-routes.js';
import { ProtectedResolver } from './protected-resolver.js';
import { makeRuntimeFolder } from './runtime-folder.js';
import { withTunnels } from './status.js';
import { live } from './tunnel-life.js';
import { encodeOrder, type TunnelOrder, wipeKeys } from './tunnel-order.js';
import type { StartResult } from './tunnel-process.js';
import { DEFAULT_WAIT_S, EX_TEMPFAIL, waitForHandshake } from './wait.js';
import { deviceChangeOf } from './wireguard/device-change.js';
import { chooseEndpoints, lookupOrElse, machineSources } from './wireguard/endpoints.js';
import { type FoundFile, findFile, STANDARD_INPUT } from './wireguard/find-file.js';
import { tunnelMtu } from './wireguard/mtu.js';
import { warning } from './wireguard/problem.js';
import { readQuickFile, readQuickStream } from './wireguard/read-file.js';
import { acceptedFamilies, vpnConfigOf } from './wireguard/vpn-config.js';

export interface UpOptions {
  which: string;
  /** Runs the tunnel in this process, until a signal. */
  foreground: boolean;
  allowHooks: boolean;
  /** For so many seconds at most; absent: not at all. */
  waitS?: number;
}

/** From the words behind `up`. Throws an Error that says what is wrong with them. */
export function parseUp(words: readonly string[]): UpOptions {
  const options = {
    foreground: { type: 'boolean' },
    'allow-hooks': { type: 'boolean' },
    wait: { type: 'string' },
  } as const;
  // Its value is optional, which parseArgs does not know: a word behind it is the file.
  const args = words.map((word) => (word === '--wait' ? `--wait=${DEFAULT_WAIT_S}` : word));
  const { values, positionals } = parseArgs({ args, options, allowPositionals: true });
  const [which, ...rest] = positionals;
  if (which === undefined || rest.length > 0) throw new Error('up needs one FILE or NAME');
  const allowHooks = values['allow-hooks'] === true;
  // Whose they are can be told of a file only.
  if (which === STANDARD_INPUT.path && allowHooks) throw new Error('--allow-hooks takes a file, not standard input');
  const foreground = values.foreground === true;
  if (foreground && values.wait !== undefined) throw new Error('--wait is for a tunnel in the background');
  if (values.wait !== undefined && !/^[1-9]\d{0,4}$/.test(values.wait)) {
    throw new Error(`--wait=${values.wait}: not a number of seconds from 1 to 99999`);
  }
  return { which, foreground, allowHooks, ...(values.wait !== undefined && { waitS: Number(values.wait) }) };
}

/**
 * Settles with the exit code: when the tunnel is up, or in the foreground when it is down. Rejects with FileProblem, BusinessError
 * or, for what happened in the tunnel's process, UpError.
 */
export async function up({ which, foreground, allowHooks, waitS }: UpOptions, say: UpOutput): Promise<number> {
  keepMemoryPrivate();
  const order = await orderOf(which, allowHooks, say.warn);
  try {
    if (foreground) {
      return await live(order, new AbortController().signal, ({ link, routes }) => {
        // The log, which is standard error here, has the warnings of routes.
        say.print(upSentence(order, link, routes));
        void warnOfServers(order, say.warn);
      });
    }
    const { link, log, routes } = await startProcess(order);
    for (const line of routes.warnings) say.warn(line);
    await warnOfServers(order, say.warn);
    say.print(`${upSentence(order, link, routes)}, log in ${log}`);
    if (waitS === undefined) return 0;
    const problem = await waitForHandshake(dirname(log), link, waitS);
    if (problem === undefined) return 0;
    say.warn(`${order.name} (${link}): ${problem}. It goes on trying; vpnctl status tells, vpnctl down ends it`);
    return EX_TEMPFAIL;
  } finally {
    wipeKeys(order.change);
  }
}

export interface UpOutput {
  print(line: string): void;
  warn(line: string): void;
}

/** What the tunnel's process said when it did not come up. */
export class UpError extends Error {
  override readonly name = 'UpError';
  readonly exitCode: number;

  constructor(exitCode: number, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

function upSentence({ name, waitingFor }: TunnelOrder, link: string, routes: PeerRoutes): string {
  const missing = [...new Set([...waitingFor, ...routes.waitingFor])];
  return `${name} (${link}): up${missing.length > 0 ? `, waiting for ${missing.join(' and ')}` : ''}`;
}

async function orderOf(which: string, allowHooks: boolean, warn: (line: string) => void): Promise<TunnelOrder> {
  const found = findFile(which);
  const { path, name } = found;
  const { file, warnings } = await read(found, allowHooks);
  await refuseSecond();
  const connection = createVpnConnection({});
  const resolver = new ProtectedResolver(connection, []);
  const lookup = lookupOrElse((host) => resolver.resolve(host));
  const endpoints = await chooseEndpoints(
    file,
    machineSources((fd) => connection.protect(fd), lookup),
  );
  const routeMtus = [...endpoints.chosen.values()].map(({ routeMtu }) => routeMtu);
  const mtu = file.interface.mtu?.value ?? tunnelMtu(routeMtus, acceptedFamilies(file)[IPV6]);
  const { config, warnings: more } = vpnConfigOf(file, { name, mtu });
  // A peer whose address is known is asked for again when the VPN's rules are there.
  const unknown = [...endpoints.notYet.values()].filter(({ endpoint }) => endpoint === undefined);
  const later = unknown.map(({ line, reason }) =>
    warning(path, line, `${reason}; until then nothing is sent to this peer`),
  );
  for (const line of [...warnings, ...more, ...later]) warn(line);
  const addresses = new Map<string, readonly string[]>();
  for (const [{ endpoint }, found] of [...endpoints.chosen, ...endpoints.notYet]) {
    if (endpoint && found.addresses.length > 0) addresses.set(endpoint.value.host, found.addresses);
  }
  const change = deviceChangeOf(file, endpoints);
  const waitingFor = [...new Set(unknown.map(({ what }) => what))];
  const absolute = found === STANDARD_INPUT ? path : resolve(path);
  return { name, path: absolute, file, config, mtu, change, addresses, waitingFor };
}

async function read(found: FoundFile, allowHooks: boolean): ReturnType<typeof readQuickStream> {
  return found === STANDARD_INPUT ? readQuickStream(process.stdin) : readQuickFile(found.path, { allowHooks });
}

/** The service would refuse it as well, later, and cannot say which file the one that is up is of. */
async function refuseSecond(): Promise<void> {
  const uid = process.geteuid?.();
  const service = new ServiceConnection(socketPath());
  const { vpns } = await withTunnels(await service.call('status', {}));
  service.shutdown();
  const own = vpns.find((vpn) => vpn.uid === uid);
  if (own === undefined) return;
  const { link, program, pid, isLegacy, vpnId, tunnel } = own;
  const name = tunnel?.name ?? vpnId ?? link;
  const which = isLegacy
    ? `${quote(name)} (${link}) is up${tunnel ? `, of ${quote(tunnel.file)}` : ''}; end it first: vpnctl down`
    : `${link} is the VPN of ${program} (${pid}), which has to end it first`;
  throw new UpError(1, new BusinessError(2203002, undefined, which).message);
}

/** Only the service knows which networks are local ones: it has named the DNS servers that are not asked by the tunnel. */
async function warnOfServers({ file, config }: TunnelOrder, warn: (line: string) => void): Promise<void> {
  if ((config.dnsAddresses ?? []).length === 0) return;
  let service: ServiceConnection | undefined;
  try {
    service = new ServiceConnection(socketPath());
    const { exceptions } = await service.call('leaks', {});
    const own = exceptions.filter(({ kind, uid }) => kind === 'dns' && uid === process.getuid?.());
    for (const { destinations = [], reason } of own) {
      for (const [address] of destinations.map((prefix) => prefix.split('/'))) {
        const line = file.interface.dnsServers.find(({ value }) => value === address)?.line;
        const fix = 'name it in AllowedIPs if it is to be asked through the VPN';
        warn(warning(file.path, line, `DNS server ${address}: ${reason}; ${fix}`));
      }
    }
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error);
    warn(warning(file.path, undefined, `vpnd does not say which DNS servers are asked outside the VPN: ${said}`));
  } finally {
    service?.shutdown();
  }
}

const PROGRAM = fileURLToPath(new URL('./tunnel-process.js', import.meta.url));
const RESULT = 3;

/** In a session of its own, so that it outlives the terminal. Its keys go through the pipe; its name is for ps. */
async function startProcess(order: TunnelOrder): Promise<{ link: string; log: string; routes: PeerRoutes }> {
  const log = join(makeRuntimeFolder(), `${order.name}.log`);
  const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW } = constants;
  const logFd = openSync(log, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0o600);
  const child = spawn(process.execPath, [PROGRAM, order.name], {
    detached: true,
    cwd: '/',
    stdio: ['pipe', logFd, logFd, 'pipe'],
  });
  closeSync(logFd);
  const bytes = encodeOrder({ ...order, log });
  // A process that ends before it has read says why in its result, or in its log.
  child.stdin?.on('error', () => {});
  (child.stdin as Writable).end(bytes, () => bytes.fill(0));
  const result = await readResult(child.stdio[RESULT] as Readable).catch(() => undefined);
  child.unref();
  if (result === undefined) throw new UpError(1, `the tunnel's process ended; see ${log}`);
  if ('exitCode' in result) throw new UpError(result.exitCode, result.message);
  return { link: result.link, log, routes: result.routes };
}

/** Rejects when the pipe ends without one. */
async function readResult(pipe: Readable): Promise<StartResult> {
  const chunks: Buffer[] = [];
  for await (const chunk of pipe) chunks.push(chunk as Buffer);
  return JSON.parse(Buffer.concat(chunks).toString()) as StartResult;
}

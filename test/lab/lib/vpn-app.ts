/** A process of some user in a host of the lab, told what to do by the test: uses the API, asks servers, opens sockets. */
import type { VpnConfig } from '../../../src/model/vpn-types.js';
import type { Operations } from './app/operations.js';
import type { LabHost } from './host.js';
import type { LabProcess, Result } from './process.js';

export interface VpnApp {
  readonly uid: number;
  readonly pid: number;
  readonly process: LabProcess;
  /** Runs one of app/operations.ts in the process. A failure is an AppError. */
  call<K extends keyof Operations>(operation: K, ...args: Parameters<Operations[K]>): ReturnType<Operations[K]>;
  kill9(): Promise<Result>;
}

/** What an operation failed with: the API's code or the errno's name. */
export class AppError extends Error {
  readonly code: number | string | undefined;

  constructor(code: number | string | undefined, message: string) {
    super(message);
    this.code = code;
  }
}

/** How long an operation may take on a machine that has other things to do. */
const PATIENCE_MS = 40_000;

export async function startApp(host: LabHost, uid: number, vpnd?: { socket: string }): Promise<VpnApp> {
  const process = host.spawnNode('dist/test/lab/lib/app/app.js', [], {
    uid,
    ...(vpnd && { env: { VPND_SOCKET: vpnd.socket } }),
  });
  await process.waitFor(/^ready$/m);
  let last = 0;
  const call = async (operation: string, ...args: unknown[]): Promise<unknown> => {
    const id = ++last;
    process.write(`${JSON.stringify({ id, operation, args })}\n`);
    const [line] = await process.waitFor(new RegExp(`^\\{"id":${id},.*\\n`, 'm'), PATIENCE_MS);
    const { result, error } = JSON.parse(line) as { result?: unknown; error?: { code?: number; message: string } };
    if (error) throw new AppError(error.code, `uid ${uid}: ${operation}: ${error.message}`);
    return result;
  };
  return { uid, pid: process.pid, process, call: call as VpnApp['call'], kill9: () => process.kill('SIGKILL') };
}

/** @example vpnConfig(['10.9.0.2/24', 'fd09::2/64'], { mtu: 1400 }) */
export function vpnConfig(addresses: readonly string[], more: Omit<VpnConfig, 'addresses'> = {}): VpnConfig {
  return { addresses: addresses.map(linkAddress), ...more };
}

type Route = NonNullable<VpnConfig['routes']>[number];

export function route(prefix: string, more: { gateway?: string; isExcludedRoute?: boolean } = {}): Route {
  const { gateway = '', ...rest } = more;
  return { destination: linkAddress(prefix), gateway: { address: gateway }, hasGateway: gateway !== '', ...rest };
}

function linkAddress(prefix: string): VpnConfig['addresses'][number] {
  const [address = '', length] = prefix.split('/');
  return { address: { address, family: address.includes(':') ? 2 : 1 }, prefixLength: Number(length) };
}

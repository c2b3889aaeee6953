/** A long-lived process of some user, perhaps in a cgroup, that asks, listens and attacks when the test says so. */
import type { Operations } from './app/operations.js';
import type { TestCgroup } from './cgroup.js';
import type { LabHost } from './host.js';
import type { ProbeOperations } from './prober/operations.js';
import type { LabProcess, Result } from './process.js';
import { AppError } from './vpn-app.js';

type AllOperations = Operations & ProbeOperations;

export interface Prober {
  readonly uid: number;
  readonly pid: number;
  readonly process: LabProcess;
  /** Runs one of prober/operations.ts or app/operations.ts in the process. A failure is an AppError. */
  call<K extends keyof AllOperations>(
    operation: K,
    ...args: Parameters<AllOperations[K]>
  ): ReturnType<AllOperations[K]>;
  /** Returns when a session has carried more than it had; throws with its end when it has ended. */
  goesOn(session: number): Promise<void>;
  kill9(): Promise<Result>;
}

export interface ProberOptions {
  uid: number;
  /** Entered before the process makes any socket. */
  cgroup?: TestCgroup;
  vpnd?: { socket: string };
  /** CAP_NET_RAW, which AF_PACKET asks for. */
  mayUsePacketSockets?: boolean;
}

const SCRIPT = 'dist/test/lab/lib/prober/program.js';
const PATIENCE_MS = 40_000;

export async function startProber(host: LabHost, options: ProberOptions): Promise<Prober> {
  const { uid, cgroup, vpnd, mayUsePacketSockets = false } = options;
  const env = vpnd && { env: { VPND_SOCKET: vpnd.socket } };
  const user = [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups'];
  const raw = ['--inh-caps=+net_raw', '--ambient-caps=+net_raw'];
  const process = mayUsePacketSockets
    ? host.spawn('setpriv', [...user, ...raw, '--', '/run/node', host.path(SCRIPT)], { ...env })
    : host.spawnNode(SCRIPT, [], { uid, ...env });
  await process.waitFor(/^ready$/m);
  cgroup?.add(process);
  let last = 0;
  const call = async (operation: string, ...args: unknown[]): Promise<unknown> => {
    const id = ++last;
    process.write(`${JSON.stringify({ id, operation, args })}\n`);
    const [line] = await process.waitFor(new RegExp(`^\\{"id":${id},.*\\n`, 'm'), PATIENCE_MS);
    const { result, error } = JSON.parse(line) as { result?: unknown; error?: { code?: number; message: string } };
    if (error) throw new AppError(error.code, `uid ${uid}: ${operation}: ${error.message}`);
    return result;
  };
  const prober: Prober = {
    uid,
    pid: process.pid,
    process,
    call: call as Prober['call'],
    goesOn: (session) => goesOn(prober, session),
    kill9: () => process.kill('SIGKILL'),
  };
  return prober;
}

/** Bounded by the session's own patience, after which it says `silence`. */
async function goesOn(prober: Prober, session: number): Promise<void> {
  const { echoed } = await prober.call('session', session);
  for (;;) {
    const now = await prober.call('session', session);
    if (now.error !== undefined) throw new Error(`session ended with ${now.error} after ${now.echoed}`);
    // The one on its way may have been answered before; the next has been sent since.
    if (now.echoed >= echoed + 2) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

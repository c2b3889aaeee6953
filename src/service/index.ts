/**
 * `vpn-manager/service`: the whole service in a Worker of this process, for tests, containers and embedded use. It needs
 * what vpnd needs: CAP_NET_ADMIN, /dev/net/tun, libnftables.
 *
 * @example const service = await startService({ socket: '/run/app/vpnd.sock' });
 *          process.env.VPND_SOCKET = service.socket;
 */
import { Worker } from 'node:worker_threads';
import { socketPath } from '../ipc/methods.js';
import { wakeEpoll } from '../kernel/epoll.js';
import type { LogLevel } from './log.js';
import type { FromWorker, ServiceWorkerData, ToWorker } from './worker.js';

/** How long the end of the process may wait for the end of its VPNs. */
const EXIT_TIMEOUT_MS = 5_000;

export interface ServiceOptions {
  /** Where to listen. Default: VPND_SOCKET, else /run/vpnd/vpnd.sock. */
  socket?: string;
  /** Default /var/lib/vpnd. */
  stateDir?: string;
  /** Default /etc/vpnd/policy.json, and the built-in policy when that is absent. */
  policy?: string;
  /** Default 'warning'; lines go to stderr. */
  logLevel?: LogLevel;
}

export interface RunningService {
  readonly socket: string;
  /** Reads the policy file again, as SIGHUP does for vpnd. */
  reload(): void;
  /** Ends every VPN and the Worker. The process is kept alive until then, as by a listening server. */
  close(): Promise<void>;
}

/** Resolves when the socket accepts. Rejects with a plain Error that says what is missing. */
export function startService(options: ServiceOptions = {}): Promise<RunningService> {
  const ended = new Int32Array(new SharedArrayBuffer(4));
  const data: ServiceWorkerData = {
    socket: options.socket ?? socketPath(),
    stateDir: options.stateDir ?? '/var/lib/vpnd',
    policyFile: options.policy,
    logLevel: options.logLevel ?? 'warning',
    ended,
  };
  // Tracked, numbers that the service opened and handed over would be closed again at the Worker's end, whosever they are then.
  const worker = new Worker(new URL('./worker.js', import.meta.url), { workerData: data, trackUnmanagedFds: false });
  const gone = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
  return new Promise((resolve, reject) => {
    worker.once('error', reject);
    worker.on('message', (message: FromWorker) => {
      if (message.kind === 'log') process.stderr.write(message.line);
      else if (message.kind === 'failed') reject(new Error(message.message));
      else resolve(running(worker, data, message.wakeFd, gone));
    });
  });
}

function running(worker: Worker, data: ServiceWorkerData, wakeFd: number, gone: Promise<void>): RunningService {
  const post = (word: ToWorker): void => worker.postMessage(word);
  // Also on process.exit() and an uncaught throw the VPNs end with their service: nobody would sweep after it.
  const onExit = (): void => {
    post('close');
    // Node waits for the Worker's own worker, which waits in the kernel: wake it, if the service does not get that far.
    if (Atomics.wait(data.ended, 0, 0, EXIT_TIMEOUT_MS) === 'timed-out') wakeEpoll(wakeFd);
  };
  process.on('exit', onExit);
  return {
    socket: data.socket,
    reload: () => post('reload'),
    close: async () => {
      post('close');
      await gone;
      process.off('exit', onExit);
    },
  };
}

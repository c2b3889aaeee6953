/** The life of a tunnel in this process: until a signal, `vpnctl down`, or the end of its VPN. */
import { BusinessError } from '../model/errors.js';
import { type RunningTunnel, startTunnel } from './running-tunnel.js';
import { RuntimeFolderError } from './runtime-folder.js';
import { note } from './tunnel-log.js';
import type { TunnelOrder } from './tunnel-order.js';
import { FileProblem } from './wireguard/problem.js';

const SIGNALS: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGINT', 'SIGHUP'];
/** How long a client may take to read that all is down. */
const FAREWELL_MS = 1_000;

/** sysexits(3) where it fits: 69 when the service cannot be reached, what a file's problem says; otherwise 1. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof FileProblem || error instanceof RuntimeFolderError) return error.exitCode;
  return error instanceof BusinessError && error.code === 2200002 ? 69 : 1;
}

/**
 * Settles when the tunnel is down, with the exit code: 0 when it was asked to go, 1 when its VPN ended otherwise. Rejects when it
 * does not come up. `signal` gives up a start; a signal to the process ends it at any time, and a second one at once.
 */
export async function live(
  order: TunnelOrder,
  signal: AbortSignal,
  onUp: (tunnel: RunningTunnel) => void,
): Promise<number> {
  const abort = new AbortController();
  const giveUp = () => abort.abort(new Error('given up before it was up'));
  signal.addEventListener('abort', giveUp);
  if (signal.aborted) giveUp();
  const asked = resolvable<string>();
  let isSignalled = false;
  for (const each of SIGNALS) {
    process.on(each, () => {
      // The way down can hang in a command of the file's; the service ends a VPN whose process has gone.
      if (isSignalled) process.exit(1);
      isSignalled = true;
      giveUp();
      asked.resolve(each);
    });
  }
  const isDown = resolvable<string[]>();
  const onDown = () => {
    asked.resolve('vpnctl down');
    return isDown.promise;
  };

  const tunnel = await startTunnel(order, { note, onDown, signal: abort.signal });
  signal.removeEventListener('abort', giveUp);
  onUp(tunnel);
  const end = await Promise.race([
    asked.promise.then((who) => ({ isAsked: true, sentence: `down, ${who}` })),
    tunnel.ended.then((error) => ({ isAsked: false, sentence: endedBy(error) })),
  ]);
  note(`${tunnel.link}: ${end.sentence}`);
  const problems = await tunnel.down();
  for (const problem of problems) note(problem);
  isDown.resolve(problems);
  await Promise.race([tunnel.told, new Promise((resolve) => setTimeout(resolve, FAREWELL_MS))]);
  return end.isAsked && problems.length === 0 ? 0 : 1;
}

function endedBy(error: Error | undefined): string {
  if (error) return `WireGuard failed: ${error.message}`;
  return 'the VPN was ended by others: a call of destroy, the service or its policy';
}

function resolvable<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => {};
  const promise = new Promise<T>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

/**
 * `vpnctl run --app ID -- command args...`: starts a program as an application that VPNs can name. The service puts this process
 * into the application's cgroup, and what it starts is born there. Signals go on to the program, and its end is this one's.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:os';
import { isatty } from 'node:tty';
import { parseArgs } from 'node:util';
import type { ServiceConnection } from '../ipc/service-connection.js';

export interface Launch {
  app: string;
  command: string;
  args: readonly string[];
}

/** What ends, pauses or tells a program something, when it is sent to this process. */
const FORWARDED: readonly NodeJS.Signals[] = ['SIGHUP', 'SIGTERM', 'SIGUSR1', 'SIGUSR2', 'SIGINT', 'SIGQUIT'];
/** What a terminal sends to both of us at once: passed on, it would come twice. */
const FROM_TERMINAL: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT'];
/** As of env(1), timeout(1) and shells. */
const CANNOT_RUN = 126;
const NOT_FOUND = 127;

/** From the words behind `run`. Throws an Error that says what is wrong with them. */
export function parseLaunch(words: readonly string[]): Launch {
  const end = words.indexOf('--');
  const options = { app: { type: 'string' } } as const;
  const { app } = parseArgs({ args: words.slice(0, end < 0 ? words.length : end), options }).values;
  if (app === undefined) throw new Error('run needs --app ID');
  const [command, ...args] = end < 0 ? [] : words.slice(end + 1);
  if (command === undefined || command === '') throw new Error('run needs a command behind --');
  return { app, command, args };
}

/** Runs it; settles with the exit code, 128 + n when signal n ended it. Rejects with a BusinessError when the service refuses. */
export async function run(service: ServiceConnection, { app, command, args }: Launch): Promise<number> {
  await service.call('enter', { app });
  // As long as the connection lives, the service keeps the cgroup. It has nothing else to say, not even that it ends.
  service.hold(true);
  let child: ChildProcess | undefined;
  // Before the program is there: it may ask for a signal with its first breath.
  for (const signal of FORWARDED) {
    process.on(signal, () => {
      if (!(isatty(0) && FROM_TERMINAL.includes(signal))) child?.kill(signal);
    });
  }
  child = spawn(command, args, { stdio: 'inherit' });
  return new Promise((resolve) => {
    child.on('error', (error: NodeJS.ErrnoException) => {
      process.stderr.write(`vpnctl: ${command}: ${error.code === 'ENOENT' ? 'not found' : error.message}\n`);
      resolve(error.code === 'ENOENT' ? NOT_FOUND : CANNOT_RUN);
    });
    child.on('exit', (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])));
  });
}

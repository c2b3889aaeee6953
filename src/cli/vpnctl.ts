#!/usr/bin/env node
/**
 * vpnctl: asks the service, as any client does, and runs the built-in VPN, which is one of its clients. It shows the caller's own
 * VPN, and root all of them. Exit codes: docs/wireguard.md; `run` ends as its command does.
 */
import { parseArgs } from 'node:util';
import { socketPath } from '../ipc/methods.js';
import { ServiceConnection } from '../ipc/service-connection.js';
import { VERSION } from '../ipc/version.js';
import { BusinessError, KernelError } from '../model/errors.js';
import type { LeakException } from '../model/leak-exception.js';
import { parseLaunch, run } from './run.js';
import { type Command, isCommand, unknownCommand, usage } from './terminal/commands.js';
import { complain, defect, EX_SOFTWARE, end, guardStreams, print } from './terminal/output.js';

const EX_USAGE = 64;
const EX_UNAVAILABLE = 69;
const EX_CONFIG = 78;

/** What is wrong with the words behind a command. */
class UsageError extends Error {}

/** Each settles with the exit code. What only some need is loaded by them: the others start in half the time. */
const RUN: Readonly<Record<Command, (words: string[]) => Promise<number>>> = {
  up: async (words) => {
    const { parseUp, up } = await import('./up.js');
    return up(parsed(parseUp, words), { print: (line) => void print(`${line}\n`), warn: complain });
  },
  down: async (words) => {
    const { isJson, rest } = options(words, 1);
    const { down } = await import('./down.js');
    const { lines, result, exitCode } = await down(rest[0], () => new ServiceConnection(socketPath()));
    void print(isJson ? json(result) : lines.map((line) => `${line}\n`).join(''));
    return exitCode;
  },
  status: async (words) => {
    const { isJson } = options(words, 0);
    const { aloneLines, statusLines, tunnelsAlone, withTunnels } = await import('./status.js');
    const show = (value: unknown, lines: string[]) => void print(isJson ? json(value) : `${lines.join('\n')}\n`);
    try {
      const status = await withTunnels(await new ServiceConnection(socketPath()).call('status', {}));
      show(status, statusLines(status, Date.now()));
      return 0;
    } catch (error) {
      const tunnels = error instanceof BusinessError && error.code === 2200002 ? await tunnelsAlone() : [];
      if (tunnels.length > 0) {
        show({ problem: (error as Error).message, tunnels }, aloneLines(tunnels, Date.now()));
      }
      throw error;
    }
  },
  leaks: async (words) => {
    const { isJson } = options(words, 0);
    const { exceptions } = await new ServiceConnection(socketPath()).call('leaks', {});
    void print(isJson ? json(exceptions) : exceptions.map(sentence).join(''));
    return 0;
  },
  reload: async (words) => {
    parsed((given) => parseArgs({ args: given, options: {} }), words);
    const { file, problem } = await new ServiceConnection(socketPath()).call('reload', {});
    if (problem !== undefined) {
      complain(problem);
      return EX_CONFIG;
    }
    void print(`the policy is that of ${file} now\n`);
    return 0;
  },
  events: async (words) => {
    parsed((given) => parseArgs({ args: given, options: {} }), words);
    const service = new ServiceConnection(socketPath());
    return new Promise((resolve, reject) => {
      service.onEvent = (event) => {
        void print(`${JSON.stringify(event)}\n`).then((problem) => problem && resolve(0));
      };
      service.onClose = () => {
        complain('the service ended');
        resolve(EX_UNAVAILABLE);
      };
      service.call('subscribe', {}).then(() => service.hold(true), reject);
    });
  },
  wg: async (words) => (await import('./wireguard/keys.js')).keyCommand(words),
  run: async (words) => {
    const launch = parsed(parseLaunch, words);
    return run(new ServiceConnection(socketPath()), launch);
  },
  help: async ([word, ...more]) => {
    if (more.length > 0) throw new UsageError('help takes one COMMAND');
    if (word !== undefined && !isCommand(word)) throw new UsageError(unknownCommand(word));
    void print(usage(word));
    return 0;
  },
};

async function main(given: readonly string[]): Promise<number> {
  // Options may stand in front of the command.
  const at = given.findIndex((word) => !word.startsWith('-'));
  const [command, words] = at < 0 ? [undefined, [...given]] : [given[at], given.filter((_, index) => index !== at)];
  if (command !== undefined && !isCommand(command)) return misused(unknownCommand(command), '');
  const own = words.slice(0, words.includes('--') ? words.indexOf('--') : words.length);
  if (own.includes('--help') || own.includes('-h')) {
    return RUN.help(command === undefined || command === 'help' ? [] : [command]);
  }
  if (command === undefined && words[0] === '--version') {
    void print(`${VERSION}\n`);
    return 0;
  }
  if (command === undefined) return misused(words[0] === undefined ? 'no command' : `unknown option ${words[0]}`);
  try {
    return await RUN[command](words);
  } catch (error) {
    if (error instanceof UsageError) return misused(error.message, usage(command));
    return failed(error);
  }
}

function misused(message: string, text = usage()): number {
  complain(`${message}\n${text}`.trimEnd());
  return EX_USAGE;
}

/** Errors that say what is wrong with the world; others are ours. */
function failed(error: unknown): number {
  const message = error instanceof Error ? error.message : String(error);
  const isOfTheWorld = error instanceof KernelError || (error instanceof Error && 'syscall' in error);
  const hasCode = error instanceof Error && 'exitCode' in error;
  complain(error instanceof BusinessError || hasCode || isOfTheWorld ? message : defect(error));
  if (error instanceof BusinessError) return error.code === 2200002 ? EX_UNAVAILABLE : 1;
  if (hasCode) return Number(error.exitCode);
  return isOfTheWorld ? 1 : EX_SOFTWARE;
}

function parsed<T>(parse: (words: string[]) => T, words: string[]): T {
  try {
    return parse(words);
  } catch (error) {
    // Node's advice about words that begin with "-" is longer than what is wrong.
    throw new UsageError((error as Error).message.split('. To specify')[0]);
  }
}

function options(words: string[], most: number): { isJson: boolean; rest: string[] } {
  const known = { json: { type: 'boolean' } } as const;
  const { values, positionals } = parsed((args) => parseArgs({ args, options: known, allowPositionals: true }), words);
  if (positionals.length > most) {
    throw new UsageError(
      most === 0 ? `${JSON.stringify(positionals[0])}: takes no more words` : 'one FILE, NAME or LINK',
    );
  }
  return { isJson: values.json === true, rest: positionals };
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

/** `uid 2001  lan  family=4 destinations=192.168.0.0/24 links=eth0: a local network …` */
function sentence({ kind, uid, lockdown, reason, ...match }: LeakException): string {
  const fields = Object.entries(match).map(
    ([name, value]) => `${name}=${Array.isArray(value) ? value.join(',') : value}`,
  );
  return `uid ${uid}${lockdown ? ' locked down' : ''}  ${kind}  ${fields.join(' ')}: ${reason}\n`;
}

guardStreams();
await end(await main(process.argv.slice(2)));

#!/usr/bin/env node
/**
 * vpnctl: asks the service, as any client does, and runs the built-in VPN, which is one of its clients. It shows the caller's own
 * VPN, and root all of them. Exit codes: 0, 1 when the service refused or something did not work, 64 usage, 65, 66 and 78 for a
 * file, 69 when the service cannot be reached; `run` ends as its command does.
 */
import { parseArgs } from 'node:util';
import { socketPath } from '../ipc/methods.js';
import { ServiceConnection } from '../ipc/service-connection.js';
import { VERSION } from '../ipc/version.js';
import { BusinessError, KernelError } from '../model/errors.js';
import type { LeakException } from '../model/leak-exception.js';
import { type Launch, parseLaunch, run } from './run.js';

const USAGE = `usage: vpnctl up [--allow-hooks] [--foreground] FILE|NAME
                                 sets up the VPN of a wg-quick file, and leaves it to a process in the background. NAME is
                                 NAME.conf in ~/.config/vpn-manager, /etc/vpn-manager or /etc/wireguard
         --allow-hooks           runs the file's PreUp, PostUp, PreDown and PostDown as you, and does its SaveConfig
         --foreground            stays, and logs to standard error; SIGTERM, SIGINT or vpnctl down ends it
       vpnctl down [NAME|LINK]   ends it. Exit 0 when nothing is up, 1 when NAME or LINK is not
       vpnctl status [--json]    what VPNs are up: your own, or as root everybody's; of your own tunnels also peers, endpoints,
                                 handshakes, bytes, cipher and offload. wg show works, too, where status says so
       vpnctl wg genkey|genpsk|pubkey
                                 keys, as wg(8) makes them
       vpnctl leaks [--json]     what may leave outside a VPN, and why: of your own, or as root of all
       vpnctl events             what happens to them, one JSON object a line, until interrupted
       vpnctl run --app ID -- COMMAND [ARGUMENT...]
                                 starts a program as the application ID, for machines where no desktop and no
                                 systemd does it: VPNs that name ID cover it, or leave it out
       vpnctl --help
The socket is VPND_SOCKET, else /run/vpnd/vpnd.sock.
`;

function fail(exitCode: number, message: string): never {
  process.stderr.write(`vpnctl: ${message}\n`);
  process.exit(exitCode);
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

async function main(): Promise<void> {
  const [first, ...words] = process.argv.slice(2);
  // What only some commands need is loaded by them: the others start in half the time.
  if (first === 'run') return launch(words);
  if (first === 'up' && !words.some(isHelp)) return startTunnel(words);
  if (first === 'wg' && !words.some(isHelp)) {
    const { keyCommand } = await import('./wireguard/keys.js');
    process.exitCode = await keyCommand(words);
    return;
  }
  const { values, positionals } = parseCommandLine();
  if (values.version) return print(VERSION);
  if (values.help) return void process.stdout.write(USAGE);
  const [command, ...rest] = positionals;
  if (!isCommand(command) || rest.length > (command === 'down' ? 1 : 0)) return fail(64, `what?\n${USAGE}`);
  try {
    if (command === 'down') return await endTunnel(rest[0]);
    const service = new ServiceConnection(socketPath());
    if (command === 'status') {
      const { statusLines, withTunnels } = await import('./status.js');
      const status = await withTunnels(await service.call('status', {}));
      print(values.json ? JSON.stringify(status, null, 2) : statusLines(status, Date.now()).join('\n'));
      service.shutdown();
      return;
    }
    if (command === 'leaks') {
      const { exceptions } = await service.call('leaks', {});
      process.stdout.write(
        values.json ? `${JSON.stringify(exceptions, null, 2)}\n` : exceptions.map(sentence).join(''),
      );
      service.shutdown();
      return;
    }
    service.onEvent = (event) => print(JSON.stringify(event));
    service.onClose = () => fail(69, 'the service ended');
    await service.call('subscribe', {});
    service.hold(true);
  } catch (error) {
    failWith(error);
  }
}

function isHelp(word: string): boolean {
  return word === '--help' || word === '-h';
}

function isCommand(word: string | undefined): word is 'status' | 'events' | 'leaks' | 'down' {
  return word === 'status' || word === 'events' || word === 'leaks' || word === 'down';
}

/** `uid 2001  lan  family=4 destinations=192.168.0.0/24 links=eth0: a local network …` */
function sentence({ kind, uid, lockdown, reason, ...match }: LeakException): string {
  const fields = Object.entries(match).map(
    ([name, value]) => `${name}=${Array.isArray(value) ? value.join(',') : value}`,
  );
  return `uid ${uid}${lockdown ? ' locked down' : ''}  ${kind}  ${fields.join(' ')}: ${reason}\n`;
}

async function launch(words: string[]): Promise<void> {
  const what = parsed<Launch>(parseLaunch, words);
  try {
    process.exit(await run(new ServiceConnection(socketPath()), what));
  } catch (error) {
    failWith(error);
  }
}

async function startTunnel(words: string[]): Promise<void> {
  const { parseUp, up } = await import('./up.js');
  const what = parsed(parseUp, words);
  try {
    process.exit(await up(what, { print, warn: (line) => void process.stderr.write(`vpnctl: ${line}\n`) }));
  } catch (error) {
    failWith(error);
  }
}

async function endTunnel(which: string | undefined): Promise<void> {
  const { down } = await import('./down.js');
  const { lines, exitCode } = await down(which, () => new ServiceConnection(socketPath()));
  for (const line of lines) print(line);
  process.exitCode = exitCode;
}

function parsed<T>(parse: (words: string[]) => T, words: string[]): T {
  try {
    return parse(words);
  } catch (error) {
    return fail(64, `${(error as Error).message}\n${USAGE}`);
  }
}

/** Errors that say what is wrong with the world; others are ours, with their stack. */
function failWith(error: unknown): never {
  if (error instanceof BusinessError) fail(error.code === 2200002 ? 69 : 1, error.message);
  if (error instanceof Error && 'exitCode' in error) fail(Number(error.exitCode), error.message);
  if (error instanceof KernelError || (error instanceof Error && 'syscall' in error)) fail(1, error.message);
  throw error;
}

function parseCommandLine() {
  try {
    const options = {
      json: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
      version: { type: 'boolean' },
    } as const;
    return parseArgs({ options, allowPositionals: true });
  } catch (error) {
    return fail(64, `${(error as Error).message}\n${USAGE}`);
  }
}

await main();

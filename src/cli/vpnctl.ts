#!/usr/bin/env node
/**
 * vpnctl: asks the service, as any client does. It shows the caller's own VPN, and root all of them. Exit codes: 0, 1 when the
 * service refused, 64 usage, 69 when it cannot be reached; `run` ends as its command does.
 */
import { parseArgs } from 'node:util';
import { type ServiceStatus, socketPath, type VpnStatus } from '../ipc/methods.js';
import { ServiceConnection } from '../ipc/service-connection.js';
import { BusinessError } from '../model/errors.js';
import type { LeakException } from '../model/leak-exception.js';
import { type Launch, parseLaunch, run } from './run.js';

const USAGE = `usage: vpnctl status [--json]    what VPNs are up: your own, or as root everybody's
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

function row({ link, uid, pid, program, since, addresses, dnsAddresses, mtu }: VpnStatus): string {
  const dns = dnsAddresses.length > 0 ? `  dns ${dnsAddresses.join(' ')}` : '';
  return `${link}  uid ${uid}  ${program} (${pid})  ${addresses.join(' ')}  mtu ${mtu}${dns}  since ${since}`;
}

function print(status: ServiceStatus): void {
  const lines = status.vpns.length > 0 ? status.vpns.map(row) : ['no VPN is up'];
  process.stdout.write(`${lines.join('\n')}\n`);
}

async function main(): Promise<void> {
  if (process.argv[2] === 'run') return launch(process.argv.slice(3));
  const { values, positionals } = parseCommandLine();
  if (values.help) return void process.stdout.write(USAGE);
  const [command, ...rest] = positionals;
  if (!isCommand(command) || rest.length > 0) return fail(64, `what?\n${USAGE}`);
  try {
    const service = new ServiceConnection(socketPath());
    if (command === 'status') {
      const status = await service.call('status', {});
      if (values.json) process.stdout.write(`${JSON.stringify(status, null, 2)}\n`);
      else print(status);
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
    service.onEvent = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);
    service.onClose = () => fail(69, 'the service ended');
    await service.call('subscribe', {});
    service.hold(true);
  } catch (error) {
    failWith(error);
  }
}

function isCommand(word: string | undefined): word is 'status' | 'events' | 'leaks' {
  return word === 'status' || word === 'events' || word === 'leaks';
}

/** `uid 2001  lan  family=4 destinations=192.168.0.0/24 links=eth0: a local network …` */
function sentence({ kind, uid, lockdown, reason, ...match }: LeakException): string {
  const fields = Object.entries(match).map(
    ([name, value]) => `${name}=${Array.isArray(value) ? value.join(',') : value}`,
  );
  return `uid ${uid}${lockdown ? ' locked down' : ''}  ${kind}  ${fields.join(' ')}: ${reason}\n`;
}

async function launch(words: string[]): Promise<void> {
  const what = launchOf(words);
  try {
    process.exit(await run(new ServiceConnection(socketPath()), what));
  } catch (error) {
    failWith(error);
  }
}

function launchOf(words: string[]): Launch {
  try {
    return parseLaunch(words);
  } catch (error) {
    return fail(64, `${(error as Error).message}\n${USAGE}`);
  }
}

function failWith(error: unknown): never {
  if (!(error instanceof BusinessError)) throw error;
  fail(error.code === 2200002 ? 69 : 1, error.message);
}

function parseCommandLine() {
  try {
    const options = { json: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } } as const;
    return parseArgs({ options, allowPositionals: true });
  } catch (error) {
    return fail(64, `${(error as Error).message}\n${USAGE}`);
  }
}

await main();

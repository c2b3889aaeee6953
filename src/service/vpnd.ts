#!/usr/bin/env node
/**
 * vpnd: the service in the foreground. SIGTERM and SIGINT end every VPN and exit 0, SIGHUP reads the policy again. Exit codes
 * are those of sysexits.h: 64 usage, 69 something is missing, 70 a defect, 73 socket or namespace in use, 74 output that
 * cannot be written, 77 no right, 78 bad policy. docs/service.md.
 */
import { parseArgs } from 'node:util';
import { socketPath } from '../ipc/methods.js';
import { VERSION } from '../ipc/version.js';
import { checkFacilities, FacilityError } from './facilities.js';
import { InUseError } from './listen.js';
import { createLog, describeError, isLogLevel, type Log } from './log.js';
import { notify } from './notify.js';
import { PolicyError } from './policy-json.js';
import { changeableByOthers } from './program-files.js';
import { Service } from './service.js';

const USAGE = `usage: vpnd [--socket PATH] [--state-dir DIR] [--policy FILE] [--log-level error|warning|info|debug]
       vpnd --version | --help
`;

function fail(exitCode: number, message: string): never {
  process.stderr.write(`vpnd: ${message}\n`);
  process.exit(exitCode);
}

function print(text: string): void {
  process.stdout.write(text, (error: NodeJS.ErrnoException | null | undefined) => {
    // Who does not want to read is no failure.
    if (error && error.code !== 'EPIPE') fail(74, `standard output cannot be written: ${error.code}`);
  });
}

function options() {
  try {
    const { values } = parseArgs({
      options: {
        socket: { type: 'string' },
        'state-dir': { type: 'string' },
        policy: { type: 'string' },
        'log-level': { type: 'string' },
        version: { type: 'boolean' },
        help: { type: 'boolean' },
      },
    });
    return values;
  } catch (error) {
    return fail(64, `${(error as Error).message}\n${USAGE}`);
  }
}

function exitCodeOf(error: unknown): number {
  if (error instanceof PolicyError) return 78;
  if (error instanceof InUseError) return 73;
  if (error instanceof FacilityError) return error.exitCode;
  return 70;
}

/** Who can change them is root the next time this starts. */
function warnOfFiles(log: Log): void {
  if (process.geteuid?.() !== 0) return;
  try {
    const found = changeableByOthers();
    const advice =
      "install it as root: npm pack && sudo npm i -g ./vpn-manager-*.tgz, and node from its archive by tar --no-same-owner; or make what is named root's alone";
    if (found) log('warning', 'program-changeable', { ...found, advice });
  } catch (error) {
    log('warning', 'program-unchecked', { cause: describeError(error) });
  }
}

async function main(): Promise<void> {
  // Found as what it is by pidof(1), ps(1) and killall(1), and not as node.
  process.title = 'vpnd';
  const values = options();
  if (values.help) return print(USAGE);
  if (values.version) return print(`${VERSION}\n`);
  const level = values['log-level'] ?? 'info';
  if (!isLogLevel(level)) return fail(64, `--log-level ${level} is not error, warning, info or debug`);
  const log = createLog(level, (line) => process.stderr.write(line));
  warnOfFiles(log);
  try {
    checkFacilities();
    // Begun after the handlers are in place: a signal that comes during the start must not kill it half way.
    const starting = Promise.resolve().then(() =>
      Service.start({
        socket: values.socket ?? socketPath(),
        stateDir: values['state-dir'] ?? '/var/lib/vpnd',
        policyFile: values.policy,
        log,
      }),
    );
    const end = async (): Promise<void> => {
      const service = await starting;
      notify('STOPPING=1');
      await service.close().catch((error) => fail(70, describeError(error)));
      process.exit(0);
    };
    // A start that fails is told below.
    process.on('SIGTERM', () => end().catch(() => {}));
    process.on('SIGINT', () => end().catch(() => {}));
    process.on('SIGHUP', () => void starting.then((service) => service.reload()).catch(() => {}));
    await starting;
    notify('READY=1');
  } catch (error) {
    fail(exitCodeOf(error), error instanceof PolicyError ? error.message : (error as Error).message);
  }
}

// A log that nobody reads, or that has no room, is not worth everybody's VPN.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
process.on('uncaughtException', (error) =>
  fail(70, `a defect: ${(error.stack ?? String(error)).replace(/\s*\n\s*/g, ' ')}`),
);
await main();

/** The service, started as its own process in a host of the lab, with a policy file and a socket of its own. */
import { writeFileSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { LabHost } from './host.js';
import type { LabProcess, Result } from './process.js';

export interface Vpnd {
  readonly socket: string;
  readonly policyFile: string;
  readonly pid: number;
  readonly process: LabProcess;
  /** Everything logged so far. */
  log(): string;
  /** Writes another policy and sends SIGHUP; the caller waits for the effect. */
  reload(policy: unknown): void;
  /** SIGTERM, then the exit status. */
  stop(): Promise<Result>;
  kill9(): Promise<Result>;
}

export interface VpndOptions {
  /** Default: uids 0, 2001, 2002 and 2003 are system applications with the permission. */
  policy?: unknown;
  args?: readonly string[];
  env?: Record<string, string>;
  /** Of an earlier Vpnd, to start a successor on the same socket and state. */
  directory?: string;
  /** The service sees an /etc in which there is resolv.conf, this passwd, and nothing else. */
  bareEtc?: { passwd?: string };
}

/** An /etc of its own for the command that follows. */
const BARE_ETC = `
set -e
cat /etc/resolv.conf > /run/bare-resolv.conf
mount -t tmpfs tmpfs /etc
cat /run/bare-resolv.conf > /etc/resolv.conf
[ -z "$BARE_PASSWD" ] || printf %s "$BARE_PASSWD" > /etc/passwd
exec "$@"
`;

const MANAGE_VPN = 'ohos.permission.MANAGE_VPN';
const TEST_UIDS = [0, 2001, 2002, 2003];
const DEFAULT_POLICY = {
  callers: TEST_UIDS.map((uid) => ({ match: { uid }, system: true, permissions: [MANAGE_VPN] })),
};

export async function startVpnd(host: LabHost, options: VpndOptions = {}): Promise<Vpnd> {
  const directory = options.directory ?? (await makeDirectory(host));
  const socket = join(directory, 'vpnd.sock');
  const policyFile = join(directory, 'policy.json');
  await writeFile(policyFile, JSON.stringify(options.policy ?? DEFAULT_POLICY), { mode: 0o644 });
  const paths = ['--socket', socket, '--state-dir', join(directory, 'state'), '--policy', policyFile];
  const words = [host.path('dist/src/service/vpnd.js'), ...paths, ...(options.args ?? [])];
  const env = { env: { ...options.env, BARE_PASSWD: options.bareEtc?.passwd ?? '' } };
  const process = options.bareEtc
    ? host.spawn('unshare', ['--mount', 'sh', '-c', BARE_ETC, 'sh', '/run/node', ...words], env)
    : host.spawnNode(words[0] ?? '', words.slice(1), env);
  await waitUntilServing(socket, process);
  return {
    socket,
    policyFile,
    pid: process.pid,
    process,
    log: () => process.stdout + process.stderr,
    reload: (policy) => {
      writeFileSync(policyFile, JSON.stringify(policy));
      globalThis.process.kill(process.pid, 'SIGHUP');
    },
    stop: () => process.kill('SIGTERM'),
    kill9: () => process.kill('SIGKILL'),
  };
}

async function makeDirectory(host: LabHost): Promise<string> {
  const directory = await mkdtemp(join(host.directory, 'vpnd-'));
  // Every test uid must reach the socket; who may do what is the service's decision.
  await chmod(directory, 0o755);
  await mkdir(join(directory, 'state'), { mode: 0o700 });
  return directory;
}

const PATIENCE_MS = 40_000;

/** It listens before it has swept what a predecessor left, and answers behind that. */
async function waitUntilServing(path: string, process: LabProcess): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await answers(path))) {
    if (!process.running) throw new Error(`vpnd ended at start:\n${process.stdout}${process.stderr}`);
    if (Date.now() > deadline) throw new Error(`vpnd does not answer on ${path}:\n${process.stdout}${process.stderr}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path, () => probe.write('{"jsonrpc":"2.0","id":1,"method":"status"}\n'));
    const settle = (answered: boolean) => {
      probe.destroy();
      resolve(answered);
    };
    probe.on('data', () => settle(true));
    probe.on('end', () => settle(false));
    probe.on('error', () => settle(false));
    probe.setTimeout(PATIENCE_MS, () => settle(false));
  });
}

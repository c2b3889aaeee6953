/** One host of the lab: runs commands, scripts and captures inside its network and mount namespace, as any user. */
import { spawnSync } from 'node:child_process';
import { type Capture, startCapture } from './capture.js';
import { execute, type LabProcess, type Result, start } from './process.js';

export interface RunOptions {
  /** Default: root. */
  uid?: number;
  /** Default: the uid. */
  gid?: number;
  /** Supplementary groups. Default: none. */
  groups?: readonly number[];
  env?: Record<string, string>;
  input?: string | Uint8Array;
  timeoutMs?: number;
  /** Default true: a non-zero exit is thrown with the output. */
  check?: boolean;
}

export type SpawnOptions = Pick<RunOptions, 'uid' | 'gid' | 'groups' | 'env' | 'input'>;

interface Link {
  operstate: string;
  addr_info: { family: string; scope: string }[];
}

/** Where the hosts see the repository and node; see lab.ts. */
export const REPOSITORY_IN_HOST = '/run/repo';
const NODE_IN_HOST = '/run/node';

export class LabHost {
  readonly name: string;
  /** The process that holds the namespaces: `nsenter -t PID -n -m` enters them. */
  readonly pid: number;
  /** Shared by all hosts of the lab and by the test itself. */
  readonly directory: string;

  constructor(name: string, pid: number, directory: string) {
    this.name = name;
    this.pid = pid;
    this.directory = directory;
  }

  run(command: string, args: readonly string[] = [], options: RunOptions = {}): Promise<Result> {
    const { timeoutMs, check, input } = options;
    return execute('nsenter', this.#enter(command, args, options), {
      env: environment(options),
      input,
      timeoutMs,
      check,
    });
  }

  runSync(command: string, args: readonly string[] = [], options: RunOptions = {}): Result {
    const child = spawnSync('nsenter', this.#enter(command, args, options), {
      env: environment(options),
      cwd: '/',
      encoding: 'utf8',
      timeout: options.timeoutMs ?? 60_000,
      killSignal: 'SIGKILL',
      maxBuffer: 1 << 28,
      ...(options.input === undefined ? {} : { input: options.input }),
    });
    const result = { status: child.status ?? 137, stdout: child.stdout, stderr: child.stderr };
    if (options.check !== false && result.status !== 0) {
      throw new Error(`${this.name}: ${[command, ...args].join(' ')}: exit ${result.status}\n${result.stderr}`);
    }
    return result;
  }

  spawn(command: string, args: readonly string[] = [], options: SpawnOptions = {}): LabProcess {
    return start('nsenter', this.#enter(command, args, options), { env: environment(options), input: options.input });
  }

  /** Runs a compiled script, named by its path in the repository (`dist/...`), or absolute. */
  node(script: string, args: readonly string[] = [], options: RunOptions = {}): Promise<Result> {
    return this.run(NODE_IN_HOST, [this.path(script), ...args], options);
  }

  spawnNode(script: string, args: readonly string[] = [], options: SpawnOptions = {}): LabProcess {
    return this.spawn(NODE_IN_HOST, [this.path(script), ...args], options);
  }

  /** The path of a repository's file inside the host. */
  path(file: string): string {
    return file.startsWith('/') || file.startsWith('-') ? file : `${REPOSITORY_IN_HOST}/${file}`;
  }

  /** What a command such as `ip -j` prints, parsed; nothing printed is an empty list. */
  async json<T = Record<string, unknown>[]>(command: string, args: readonly string[]): Promise<T> {
    const { stdout } = await this.run(command, args);
    return JSON.parse(stdout.trim() || '[]') as T;
  }

  /** `ip` commands, one a line, in one process. */
  async ip(...lines: string[]): Promise<void> {
    await this.run('ip', ['-batch', '-'], { input: `${lines.join('\n')}\n` });
  }

  async sysctl(...assignments: string[]): Promise<void> {
    await this.run('sysctl', ['-qw', ...assignments]);
  }

  /** Addresses for a device, and the device up. */
  async configure(device: string, addresses: readonly string[]): Promise<void> {
    const add = addresses.map((each) => `address add ${each} dev ${device}${each.includes(':') ? ' nodad' : ''}`);
    await this.ip(...add, `link set ${device} up`);
  }

  /** Waits for the carrier and the link-local address, which the kernel gives a moment after the command. */
  async linkIsUp(device: string): Promise<void> {
    for (let tries = 1; tries <= 1500; tries++) {
      const [link] = await this.json<Link[]>('ip', ['-j', 'address', 'show', 'dev', device]);
      const hasLocal = link?.addr_info.some((each) => each.family === 'inet6' && each.scope === 'link');
      if (link?.operstate === 'UP' && hasLocal) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error(`${this.name}: ${device} does not come up`);
  }

  capture(device: string, filter: readonly string[] = []): Promise<Capture> {
    return startCapture(this, device, filter);
  }

  /** The words after `nsenter`. setpriv also ties the command's life to this process. */
  #enter(command: string, args: readonly string[], options: SpawnOptions): string[] {
    const { uid, gid = uid, groups = [] } = options;
    const user = uid === undefined ? [] : [`--reuid=${uid}`, `--regid=${gid}`, groupsOption(groups)];
    const inside = ['setpriv', '--pdeathsig', 'KILL', ...user, '--', command, ...args];
    return ['-t', String(this.pid), '-n', '-m', '--', ...inside];
  }
}

function groupsOption(groups: readonly number[]): string {
  return groups.length === 0 ? '--clear-groups' : `--groups=${groups.join(',')}`;
}

/** The test runner's own variables would make a node child report to the runner. */
function environment(options: SpawnOptions): NodeJS.ProcessEnv {
  const { NODE_TEST_CONTEXT: _, ...inherited } = process.env;
  return { ...inherited, PATH: `${inherited.PATH}:/usr/sbin:/sbin`, LC_ALL: 'C', ...options.env };
}

/**
 * Applications started as a desktop starts them, in cgroups that are named as it names them: by fork and by exec, one or two
 * hundred. applications/launcher.py is the program; it waits with an answer until all that it asked have theirs.
 */
import type { TestCgroup } from './cgroup.js';
import type { LabHost } from './host.js';

/** `datagram`: UDP without connect(2). */
export type FlowKind = 'tcp' | 'udp' | 'datagram' | 'icmp';

/** `SIDE SOURCE` of every `KIND TARGET`; the errno's name, or `silence`. A connection that was used again says `again`. */
export type Answers = Record<string, string>;

export interface Start {
  name: string;
  cgroup: TestCgroup;
  uid: number;
  /** Default: fork. `child`: by a process of the application. */
  how?: 'fork' | 'exec' | 'child';
}

export interface Volleys {
  /** Below this each launch makes a cgroup for itself. */
  below: TestCgroup;
  /** Of the cgroups; `#` is the number of the launch. */
  pattern: string;
  uid: number;
  count: number;
  /** Number of the first. Default: 0. */
  first?: number;
  targets: readonly string[];
  /** Every so many by exec; default: none. */
  execEvery?: number;
}

/** TCP and UDP of launch N go to this port + N, pings say `volley N`. */
export const FIRST_PORT = 20_000;
const PROGRAM = 'test/lab/lib/applications/launcher.py';
const PATIENCE_MS = 120_000;

export type Launcher = Awaited<ReturnType<typeof startLauncher>>;

export async function startLauncher(host: LabHost) {
  const process = host.spawn('python3', ['-SE', host.path(PROGRAM)]);
  await process.waitFor(/^ready$/m);
  let answers = 0;
  let last: Promise<unknown> = Promise.resolve();
  const send = async (operation: string, args: readonly unknown[]): Promise<unknown> => {
    process.write(`${JSON.stringify([operation, ...args])}\n`);
    const [, line = ''] = await process.waitFor(new RegExp(`^ready\\n(?:.*\\n){${answers++}}(.*)\\n`), PATIENCE_MS);
    const { result, error } = JSON.parse(line) as { result?: unknown; error?: string };
    if (error !== undefined) throw new Error(`launcher: ${error}\n${process.stderr}`);
    return result;
  };
  /** One after the other, as their answers are. */
  const call = <T>(operation: string, ...args: unknown[]): Promise<T> => {
    const done = last.then(() => send(operation, args));
    last = done.catch(() => undefined);
    return done as Promise<T>;
  };
  const order = (
    operation: string,
    kinds: readonly FlowKind[],
    targets: ReadonlyMap<string, readonly string[]>,
    patienceMs: number,
  ) =>
    call<Record<string, Answers>>(
      'order',
      [...targets.keys()],
      [...targets.values()],
      [operation, kinds, patienceMs / 1000],
    );
  return {
    /** What went wrong, a line each. */
    complaints: (): string => process.stderr,
    start: ({ name, cgroup, uid, how = 'fork' }: Start): Promise<number> =>
      call('start', name, cgroup.directory, uid, how),
    /** Each asks its targets by new sockets. */
    ask: (targets: ReadonlyMap<string, readonly string[]>, kinds: readonly FlowKind[], patienceMs = 30_000) =>
      order('ask', kinds, targets, patienceMs),
    /** The same, and keeps the sockets. */
    open: (targets: ReadonlyMap<string, readonly string[]>, kinds: readonly FlowKind[], patienceMs = 30_000) =>
      order('open', kinds, targets, patienceMs),
    /** Asks by the sockets that were kept. */
    again: (names: readonly string[], patienceMs: number) =>
      order('again', [], new Map(names.map((name) => [name, []])), patienceMs),
    end: (names: readonly string[]): Promise<void> => call('end', names),
    /** Starts applications as fast as it can; each at once asks by UDP and ping, and keeps these sockets. Returns their names. */
    crowd: ({ below, pattern, uid, count, targets }: Volleys, patienceMs: number): Promise<string[]> =>
      call('crowd', below.directory, pattern, uid, count, targets, patienceMs / 1000),
    /** Returns how many could not send everything. */
    volleys: ({ below, pattern, uid, count, first = 0, targets, execEvery = 0 }: Volleys): Promise<number> =>
      call('volleys', below.directory, pattern, uid, count, first, targets, execEvery),
    /** So many processes use all the CPU they can get; 0: none any more. */
    load: (count: number): Promise<void> => call('load', count),
  };
}

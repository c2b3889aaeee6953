/**
 * Child processes of the lab: output collected, bounded in time, ended when this process ends. Nothing here knows about
 * namespaces; host.ts puts nsenter in front.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';

export interface Result {
  /** Exit status; 128 + n when signal n ended it, as a shell says it. */
  status: number;
  stdout: string;
  stderr: string;
}

export interface LabProcess {
  readonly pid: number;
  /** Everything written so far. */
  readonly stdout: string;
  readonly stderr: string;
  /** The same as bytes, for output that is no text. */
  readonly stdoutBytes: Buffer;
  /** Settles when the process has ended and its output is complete. Never rejects. */
  readonly exited: Promise<Result>;
  readonly running: boolean;
  write(text: string): void;
  /** SIGTERM by default, SIGKILL when that has not ended it within 20 s. */
  kill(signal?: NodeJS.Signals): Promise<Result>;
  /** Waits for a line (or any match) on stdout or stderr; rejects with the output when the process ends without it. */
  waitFor(pattern: RegExp, timeoutMs?: number): Promise<RegExpExecArray>;
}

export interface StartOptions {
  env?: NodeJS.ProcessEnv;
  /** Written to standard input, which is then closed. Without it, `write()` feeds a pipe that stays open. */
  input?: string | Uint8Array | undefined;
  /** Does not keep this process alive. */
  background?: boolean;
}

const SIGNALS: Record<string, number> = { SIGHUP: 1, SIGINT: 2, SIGABRT: 6, SIGKILL: 9, SIGSEGV: 11, SIGTERM: 15 };

export function start(command: string, args: readonly string[], options: StartOptions = {}): LabProcess {
  // A process group of its own: a Ctrl-C at the terminal is for the program that runs the lab, which then ends these in order.
  const child = spawn(command, args, { env: options.env ?? process.env, cwd: '/', detached: true });
  return new Child(child, [command, ...args], options);
}

class Child implements LabProcess {
  readonly exited: Promise<Result>;
  readonly #child: ChildProcess;
  readonly #words: readonly string[];
  readonly #output: { stdout: Buffer[]; stderr: Buffer[] } = { stdout: [], stderr: [] };
  #running = true;
  #changed: (() => void)[] = [];

  constructor(child: ChildProcess, words: readonly string[], options: StartOptions) {
    this.#child = child;
    this.#words = words;
    live.add(this);
    for (const name of ['stdout', 'stderr'] as const) {
      child[name]?.on('data', (chunk: Buffer) => {
        this.#output[name].push(chunk);
        this.#notify();
      });
    }
    // The child may end without reading what it was given.
    child.stdin?.on('error', () => {});
    if (options.input !== undefined) child.stdin?.end(options.input);
    if (options.background) {
      child.unref();
      for (const pipe of child.stdio) (pipe as Socket | null)?.unref();
    }
    this.exited = new Promise((resolve) => {
      const end = (status: number) => {
        live.delete(this);
        this.#running = false;
        this.#notify();
        resolve({ status, stdout: this.stdout, stderr: this.stderr });
      };
      child.on('error', (error) => {
        this.#output.stderr.push(Buffer.from(`${error.message}\n`));
        end(127);
      });
      child.on('close', (code, signal) => end(code ?? 128 + (SIGNALS[signal ?? ''] ?? 0)));
    });
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }
  get stdout(): string {
    return this.stdoutBytes.toString();
  }
  get stderr(): string {
    return Buffer.concat(this.#output.stderr).toString();
  }
  get stdoutBytes(): Buffer {
    return Buffer.concat(this.#output.stdout);
  }
  get running(): boolean {
    return this.#running;
  }

  write(text: string): void {
    this.#child.stdin?.write(text);
  }

  killNow(): void {
    this.#child.kill('SIGKILL');
  }

  async kill(signal: NodeJS.Signals = 'SIGTERM'): Promise<Result> {
    this.#child.kill(signal);
    const late = setTimeout(() => this.killNow(), 20_000);
    const result = await this.exited;
    clearTimeout(late);
    return result;
  }

  async waitFor(pattern: RegExp, timeoutMs = 40_000): Promise<RegExpExecArray> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const match = pattern.exec(this.stdout) ?? pattern.exec(this.stderr);
      if (match) return match;
      const left = deadline - Date.now();
      if (!this.#running || left <= 0) {
        const why = this.#running ? `not within ${timeoutMs} ms` : 'the process ended';
        throw new Error(`${this.#words.join(' ')}: no ${pattern}, ${why}\n${this.stdout}${this.stderr}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#changed.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  #notify(): void {
    const waiting = this.#changed;
    this.#changed = [];
    for (const wake of waiting) wake();
  }
}

/** Runs to the end, or SIGKILLs after `timeoutMs` (default 20 s); with `check` (default) a failure is thrown with its output. */
export async function execute(
  command: string,
  args: readonly string[],
  options: StartOptions & { timeoutMs?: number | undefined; check?: boolean | undefined } = {},
): Promise<Result> {
  const { timeoutMs = 20_000, check = true } = options;
  const child = start(command, args, { ...options, input: options.input ?? '' });
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    void child.kill('SIGKILL');
  }, timeoutMs);
  const result = await child.exited;
  clearTimeout(timer);
  if (late) throw new Error(`${[command, ...args].join(' ')}: not done within ${timeoutMs} ms\n${result.stderr}`);
  if (check && result.status !== 0) {
    throw new Error(`${[command, ...args].join(' ')}: exit ${result.status}\n${result.stdout}${result.stderr}`);
  }
  return result;
}

const live = new Set<Child>();
process.on('exit', () => {
  for (const child of live) child.killNow();
});

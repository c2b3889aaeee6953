/** The test's end of an app (agent.ts): starts it, gives it functions to run, reads what the kernel says of its descriptors. */
import { readFileSync, readlinkSync } from 'node:fs';
import type { LabHost, RunOptions } from '../../lab/lib/host.js';
import type { LabProcess } from '../../lab/lib/process.js';
import type { Agent, Form, Method, Outcome } from './agent.js';

const AGENT = 'dist/test/conformance/lib/agent.js';

/** fcntl's O_NONBLOCK and O_CLOEXEC as /proc/PID/fdinfo/FD writes them, octal. */
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;

export class App {
  readonly process: LabProcess;
  #nextId = 1;

  private constructor(process: LabProcess) {
    this.process = process;
  }

  static async start(host: LabHost, socket: string, user: Pick<RunOptions, 'uid' | 'gid' | 'groups'>): Promise<App> {
    const app = new App(host.spawnNode(AGENT, ['agent'], { ...user, env: { VPND_SOCKET: socket } }));
    await app.process.waitFor(/^@ready$/m, 60_000);
    return app;
  }

  get pid(): number {
    return this.process.pid;
  }

  /** Runs `task` in the app. It is sent as text: it can use its arguments only, which must survive JSON. */
  async do<A extends unknown[], T>(task: (agent: Agent, ...values: A) => T | Promise<T>, ...values: A): Promise<T> {
    const id = this.#nextId++;
    this.process.write(`${JSON.stringify({ id, source: task.toString(), values })}\n`);
    const [, line = ''] = await this.process.waitFor(new RegExp(`^@({"id":${id}[,}].*)$`, 'm'), 60_000);
    const answer = JSON.parse(line) as { result: T; failed?: string };
    if (answer.failed !== undefined) throw new Error(`in the app: ${answer.failed}`);
    return answer.result;
  }

  attempt(form: Form, method: Method, ...values: unknown[]): Promise<Outcome> {
    return this.do((agent, ...all) => agent.attempt(...all), form, method, ...values);
  }

  /** For a caller to whom createVpnConnection would say 202: makes the connection while the service cannot be asked. */
  async connectUnasked(socket: string): Promise<void> {
    await this.do((agent, path) => {
      agent.useSocket('/run/nobody/listens');
      agent.connection;
      agent.useSocket(path);
    }, socket);
  }

  /** A VPN in the promise form; its descriptor's number in the app. */
  async setUp(config: unknown): Promise<number> {
    const { data, ...rest } = await this.attempt('promise', 'setUp', config);
    if (typeof data !== 'number') throw new Error(`setUp: ${JSON.stringify(rest)}`);
    return data;
  }

  async destroy(): Promise<void> {
    const { error, thrown } = await this.attempt('promise', 'destroy');
    if (error ?? thrown) throw new Error(`destroy: ${JSON.stringify(error ?? thrown)}`);
  }

  /** The kernel's view of a descriptor of the app. `link`: the interface, for a TUN. */
  descriptor(fd: number): { file: string; flags: number; link: string | undefined } {
    const info = readFileSync(`/proc/${this.pid}/fdinfo/${fd}`, 'utf8');
    return {
      file: readlinkSync(`/proc/${this.pid}/fd/${fd}`),
      flags: Number.parseInt(/^flags:\s*([0-7]+)/m.exec(info)?.[1] ?? '', 8),
      link: /^iff:\s*(\S+)/m.exec(info)?.[1],
    };
  }

  async end(): Promise<void> {
    await this.process.kill('SIGKILL');
  }
}

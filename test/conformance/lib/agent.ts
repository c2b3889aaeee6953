/**
 * An app of the conformance tests: it runs as some uid on a host of the lab and does what the test tells it, one JSON line a
 * task: a function as source text with its arguments. It answers `@` and a JSON line with what the function returned.
 */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import fs from 'node:fs';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { BusinessError, type VpnConfig, vpn } from 'vpn-manager';
import { withOffload } from 'vpn-manager/tunnel';

export type Form = 'callback' | 'promise';
export type Method = 'setUp' | 'protect' | 'destroy';

/** An error as the app sees it. */
export interface SeenError {
  name: string;
  code: number;
  message: string;
  data: { field?: string; reason?: string };
  isError: boolean;
  isBusinessError: boolean;
  /** What JSON.stringify(error) gives. */
  json: string;
}

/** How a call ended. Exactly one of `thrown`, `error` and `data` is there; `data` is null where there is none. */
export interface Outcome {
  thrown?: SeenError;
  error?: SeenError;
  data?: number | null;
  /** What the call itself returned. */
  returned: 'nothing' | 'promise' | 'other';
  /** Whether the outcome came before the call had returned. */
  reentrant: boolean;
  /** The callback's arguments, as many as there were. */
  callbackArguments?: string[];
}

export interface Task {
  id: number;
  source: string;
  values: unknown[];
}

/** The fields are what the functions of the tests work with; they can use nothing else of their file. */
export class Agent {
  readonly vpn = vpn;
  readonly BusinessError = BusinessError;
  readonly withOffload = withOffload;
  readonly fs = fs;
  /** What one task leaves for a later one. */
  readonly kept: Record<string, unknown> = {};
  #connection: vpn.VpnConnection | undefined;

  get connection(): vpn.VpnConnection {
    this.#connection ??= vpn.createVpnConnection({});
    return this.#connection;
  }

  /** Where the next call looks for the service. */
  useSocket(path: string): void {
    process.env.VPND_SOCKET = path;
  }

  see(error: unknown): SeenError {
    const { name, code, message, data } = error as SeenError;
    const isBusinessError = error instanceof BusinessError;
    return { name, code, message, data, isError: error instanceof Error, isBusinessError, json: JSON.stringify(error) };
  }

  /** Calls a method of the connection in one of its two forms. */
  attempt(form: Form, method: Method, ...values: unknown[]): Promise<Outcome> {
    const call = this.connection[method] as (...all: unknown[]) => unknown;
    return this.outcome(form, (...callback) => call.apply(this.connection, [...values, ...callback]));
  }

  /** `call` is given a callback to pass on, or none in the promise form. */
  outcome(form: Form, call: (...callback: unknown[]) => unknown): Promise<Outcome> {
    return new Promise((resolve) => {
      let hasReturned = false;
      let returned: Outcome['returned'] = 'nothing';
      const end = (part: Partial<Outcome>): void => {
        const reentrant = !hasReturned;
        // A later turn, so that `returned` is known even when the outcome comes re-entrantly.
        setImmediate(() => resolve({ returned, reentrant, ...part }));
      };
      const callback = (...given: unknown[]): void => {
        const [error, data] = given;
        const callbackArguments = given.map((each) => (each === undefined ? 'undefined' : typeof each));
        end({ callbackArguments, ...(error === undefined ? success(data) : { error: this.see(error) }) });
      };
      try {
        const result = form === 'callback' ? call(callback) : call();
        if (result !== undefined) returned = result instanceof Promise ? 'promise' : 'other';
        if (form === 'promise' && result instanceof Promise) {
          result.then(
            (data: unknown) => end(success(data)),
            (error: unknown) => end({ error: this.see(error) }),
          );
        }
        hasReturned = true;
      } catch (error) {
        hasReturned = true;
        end({ thrown: this.see(error) });
      }
    });
  }

  /** An unconnected or, with `to`, connected UDP socket, and its number. */
  async udp(to?: string): Promise<{ socket: Socket; fd: number }> {
    const socket = createSocket(to?.includes(':') ? 'udp6' : 'udp4');
    if (to === undefined) socket.bind(0);
    else socket.connect(9, to);
    await once(socket, to === undefined ? 'listening' : 'connect');
    return { socket, fd: (socket as unknown as { _handle: { fd: number } })._handle.fd };
  }

  /** The source address that the kernel gives this process towards `to`, or the name of the error. */
  async source(to: string): Promise<string> {
    const socket = createSocket(to.includes(':') ? 'udp6' : 'udp4');
    try {
      socket.connect(9, to);
      await once(socket, 'connect');
      return socket.address().address;
    } catch (error) {
      return (error as NodeJS.ErrnoException).code ?? String(error);
    } finally {
      socket.close();
    }
  }

  /** How a TCP connection to `to` ends: 'connected' or the name of the error. */
  async connect(to: string, port: number): Promise<string> {
    const socket = connect(port, to);
    try {
      await once(socket, 'connect');
      return 'connected';
    } catch (error) {
      return (error as NodeJS.ErrnoException).code ?? String(error);
    } finally {
      socket.destroy();
    }
  }

  /** The next packet of a TUN in non-blocking mode, in hex, or '' when none has come within `patienceMs`. */
  async packet(fd: number, patienceMs = 20_000): Promise<string> {
    const buffer = Buffer.alloc(65_536);
    const deadline = Date.now() + patienceMs;
    for (;;) {
      try {
        return buffer.toString('hex', 0, fs.readSync(fd, buffer));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      }
      if (Date.now() > deadline) return '';
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** The smallest configuration. */
  config(fields: Partial<VpnConfig> = {}): VpnConfig {
    return { addresses: [{ address: { address: '10.0.0.5', family: 1 }, prefixLength: 24 }], ...fields };
  }
}

function success(data: unknown): Partial<Outcome> {
  return { data: (data as number | undefined) ?? null };
}

const agent = new Agent();

async function work({ id, source, values }: Task): Promise<void> {
  let answer: object;
  try {
    const { default: task } = await import(`data:text/javascript,export default ${encodeURIComponent(source)};//${id}`);
    answer = { id, result: await task(agent, ...values) };
  } catch (error) {
    answer = { id, failed: error instanceof Error ? `${error.stack}` : String(error) };
  }
  process.stdout.write(`@${JSON.stringify(answer)}\n`);
}

if (process.argv[2] === 'agent') {
  createInterface({ input: process.stdin }).on('line', (line) => void work(JSON.parse(line) as Task));
  process.stdout.write('@ready\n');
}

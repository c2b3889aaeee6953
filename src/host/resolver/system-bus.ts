/**
 * A connection to the system's D-Bus, of which only calls to names and one signal are used. Nothing is offered on it.
 *
 * When the bus dies the library neither settles a call nor says a word: so every call has a time limit, and the end of the
 * connection is read from the library's own socket. The library is loaded only where a bus is needed.
 */
import type { Socket } from 'node:net';
import type { Message, MessageBus } from '@jellybrick/dbus-next';

const CALL_TIMEOUT_MS = 1000;
const NO_AUTO_START = 2;
const BUS = { destination: 'org.freedesktop.DBus', path: '/org/freedesktop/DBus', interface: 'org.freedesktop.DBus' };
const NO_REPLY = 'org.freedesktop.DBus.Error.NoReply';
const DISCONNECTED = 'org.freedesktop.DBus.Error.Disconnected';

/** The call came back with an error, or not at all: NoReply after the time limit, Disconnected when the bus is gone. */
export class DbusError extends Error {
  override readonly name = 'DbusError';
  readonly errorName: string;

  /** `cause`: what the connection failed with. */
  constructor(member: string, errorName: string, text: string, cause?: unknown) {
    super(`${member}: ${errorName}${text === '' ? '' : ` (${text})`}`, { cause });
    this.errorName = errorName;
  }
}

export interface Destination {
  destination: string;
  path: string;
  interface: string;
}

export class SystemBus {
  readonly #bus: MessageBus;
  readonly #message: typeof Message;
  /** Rejects when the connection ends. */
  readonly #end: Promise<never>;
  readonly #fail: (error: Error) => void;
  #isClosed = false;

  /** `onEnd` is called once, when the bus is gone; not after close(). */
  static async connect(socket: string, onEnd: () => void): Promise<SystemBus> {
    const library = await import('@jellybrick/dbus-next');
    const bus = library.sessionBus({ busAddress: `unix:path=${socket}`, authMethods: ['EXTERNAL'] });
    const connection = new SystemBus(bus, library.Message);
    try {
      // The answer to any call: connected, authenticated and greeted.
      await connection.hasOwner(BUS.destination);
    } catch (error) {
      connection.close();
      throw error;
    }
    connection.#end.catch(() => connection.#isClosed || onEnd());
    connection.#watchStream();
    return connection;
  }

  private constructor(bus: MessageBus, message: typeof Message) {
    this.#bus = bus;
    this.#message = message;
    let fail: (error: Error) => void = () => {};
    this.#end = new Promise((_, reject) => {
      fail = reject;
    });
    this.#end.catch(() => {});
    this.#fail = fail;
    // Not among the library's declared events, and without a listener the end of the process.
    (bus as NodeJS.EventEmitter).on('error', fail);
  }

  /** Calls a method, without starting a service for it. Throws DbusError. */
  async call(to: Destination, member: string, signature: string, ...body: unknown[]): Promise<unknown[]> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const error = new DbusError(member, NO_REPLY, `not within ${CALL_TIMEOUT_MS} ms`);
      timer = setTimeout(() => reject(error), CALL_TIMEOUT_MS);
    });
    try {
      const message = new this.#message({ ...to, member, signature, body, flags: NO_AUTO_START });
      const reply = await Promise.race([this.#bus.call(message), this.#end, late]);
      return reply?.body ?? [];
    } catch (error) {
      if (error instanceof DbusError) throw error;
      const { type = DISCONNECTED, message } = error as { type?: string; message: string };
      throw new DbusError(member, type, message, error);
    } finally {
      clearTimeout(timer);
    }
  }

  async hasOwner(name: string): Promise<boolean> {
    return (await this.call(BUS, 'NameHasOwner', 's', name))[0] === true;
  }

  /** Calls back whenever a process takes the name: when a service starts, or starts again. */
  async onNewOwner(name: string, callback: () => void): Promise<void> {
    const rule = `type='signal',sender='${BUS.destination}',interface='${BUS.interface}',member='NameOwnerChanged',arg0='${name}'`;
    this.#bus.on('message', ({ sender, member, body }) => {
      if (sender !== BUS.destination || member !== 'NameOwnerChanged') return;
      const [changed, , owner] = body;
      if (changed === name && owner !== '') callback();
    });
    await this.call(BUS, 'AddMatch', 's', rule);
  }

  close(): void {
    this.#isClosed = true;
    this.#bus.removeAllListeners('message');
    this.#stream()?.destroy();
  }

  #watchStream(): void {
    const stream = this.#stream();
    const end = () => this.#fail(new Error('the connection has ended'));
    if (stream === undefined || stream.destroyed) return end();
    stream.once('close', end);
    stream.unref();
  }

  /** Undeclared, hence the exact version in package.json; test/lab/resolver-resolved.test.ts ends a bus. */
  #stream(): Socket | undefined {
    return (this.#bus as unknown as { _connection: { stream?: Socket } })._connection.stream;
  }
}

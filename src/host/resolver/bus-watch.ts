/**
 * Whether a service is on the system's bus, and a word each time that it comes (back): by NameOwnerChanged, and when the bus
 * itself was gone, by inotify on its socket's folder. Nothing is polled.
 */
import { type FSWatcher, watch } from 'node:fs';
import { basename, dirname } from 'node:path';
import { isShortage } from '../../kernel/absence.js';
import { SystemBus } from './system-bus.js';

/** A socket file is there a moment before somebody listens on it. */
const RETRIES_MS = [100, 200, 400, 800, 1600];

export class BusWatch {
  readonly #socket: string;
  readonly #name: string;
  readonly #onOwner: () => void;
  #bus: SystemBus | undefined;
  #connecting: Promise<void> | undefined;
  #folder: FSWatcher | undefined;
  #retry: NodeJS.Timeout | undefined;

  constructor(socket: string, name: string, onOwner: () => void) {
    this.#socket = socket;
    this.#name = name;
    this.#onOwner = onOwner;
  }

  /** The connection that there is at the moment. */
  get bus(): SystemBus | undefined {
    return this.#bus;
  }

  /** Begins to watch. False too when there is no bus, or one that does not answer; throws when it could not be asked. */
  async hasOwner(): Promise<boolean> {
    this.#watchFolder();
    try {
      await this.#connect();
      return (await this.#bus?.hasOwner(this.#name)) ?? false;
    } catch (error) {
      // No memory or no descriptor is no word about the bus.
      if (isShortage((error as Error).cause)) throw error;
      return false;
    }
  }

  stop(): void {
    clearTimeout(this.#retry);
    this.#folder?.close();
    this.#folder = undefined;
    this.#bus?.close();
    this.#bus = undefined;
  }

  #connect(): Promise<void> {
    if (this.#bus) return Promise.resolve();
    this.#connecting ??= this.#open().finally(() => {
      this.#connecting = undefined;
    });
    return this.#connecting;
  }

  async #open(): Promise<void> {
    const bus = await SystemBus.connect(this.#socket, () => {
      this.#bus = undefined;
      this.#reconnect();
    });
    try {
      await bus.onNewOwner(this.#name, this.#onOwner);
    } catch (error) {
      bus.close();
      throw error;
    }
    if (this.#folder) this.#bus = bus;
    else bus.close(); // stopped meanwhile
  }

  #watchFolder(): void {
    if (this.#folder) return;
    const name = basename(this.#socket);
    try {
      this.#folder = watch(dirname(this.#socket), { persistent: false }, (_, file) => {
        if (file === name && !this.#bus) this.#reconnect();
      });
      this.#folder.on('error', () => {});
    } catch (error) {
      // No such folder: this machine has no bus.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }

  #reconnect(attempt = 0): void {
    clearTimeout(this.#retry);
    if (!this.#folder) return;
    this.#connect().then(this.#onOwner, () => {
      const delay = RETRIES_MS[attempt];
      if (delay !== undefined) this.#retry = setTimeout(() => this.#reconnect(attempt + 1), delay).unref();
    });
  }
}

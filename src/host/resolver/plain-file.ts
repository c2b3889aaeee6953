/** The last resort and the simplest: /etc/resolv.conf itself, read by libc and by resolvers that follow it. */
import { readFile } from 'node:fs/promises';
import { ignoreMissing } from './durable.js';
import { MountedResolvFile } from './mounted-resolv-file.js';
import { notWritten } from './not-told.js';
import type { BackEnd, ResolverRequest } from './request.js';
import { fileText } from './resolv-conf.js';
import { type KeptFile, ResolvFile } from './resolv-file.js';

export class PlainFile implements BackEnd {
  readonly kind = 'file';
  readonly #path: string;
  readonly #stateDir: string;

  constructor(path: string, stateDir: string) {
    this.#path = path;
    this.#stateDir = stateDir;
  }

  async originalPath(): Promise<string> {
    return (await this.#file()).originalPath();
  }

  /** Throws NotTold when the file system refuses it; what was begun is taken back then, as far as it lets us. */
  async apply(request: ResolverRequest): Promise<boolean> {
    const file = await this.#file();
    try {
      const original = (await readFile(await file.originalPath(), 'latin1').catch(ignoreMissing)) ?? '';
      return await file.write(fileText(request, original));
    } catch (error) {
      await file.putBack().catch(() => undefined);
      throw notWritten(this.#path, error);
    }
  }

  async restore(): Promise<void> {
    await this.putBack();
  }

  /** Also what a dead service left. Returns whether there was anything. */
  async putBack(): Promise<boolean> {
    return (await this.#file()).putBack();
  }

  async #file(): Promise<KeptFile> {
    const mountinfo = await readFile('/proc/self/mountinfo', 'latin1');
    // 36 35 0:31 / /etc/resolv.conf rw,relatime - ext4 /dev/vda rw
    const isMount = mountinfo.split('\n').some((line) => line.split(' ')[4] === this.#path);
    return isMount ? new MountedResolvFile(this.#path, this.#stateDir) : new ResolvFile(this.#path);
  }
}

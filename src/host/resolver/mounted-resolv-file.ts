/**
 * /etc/resolv.conf that is a mount of its own, as containers and `ip netns exec` have it: rename(2) over it is refused (EBUSY),
 * so it is written in place, and its bytes are kept in another file that is named by its inode number (several network
 * namespaces may see one /etc with a resolv.conf each).
 *
 * A write may stop at any byte, so the marker, in one write within one page, comes first when ours goes in and is
 * overwritten last when the original comes back. A beginning of the marker, the empty file included, is ours cut short.
 */
import { constants } from 'node:fs';
import { type FileHandle, open, readFile, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { ignoreMissing, ownershipOf, replaceFile, syncDirectory } from './durable.js';
import { isMarked, MARKER } from './resolv-conf.js';
import type { KeptFile } from './resolv-file.js';

/** Why a folder may not take a file although resolv.conf itself can be written. */
const UNWRITABLE = new Set(['EROFS', 'EACCES', 'EPERM']);

export class MountedResolvFile implements KeptFile {
  readonly #path: string;
  readonly #folders: readonly string[];

  /** `stateDir` keeps the bytes where the file's own folder cannot be written. */
  constructor(path: string, stateDir: string) {
    this.#path = path;
    this.#folders = [dirname(path), stateDir];
  }

  async originalPath(): Promise<string> {
    const kept = await this.#kept();
    return kept !== undefined && isOurs(await this.#read()) ? kept : this.#path;
  }

  async write(text: string): Promise<boolean> {
    const bytes = Buffer.from(text, 'latin1');
    const current = await this.#read();
    if (current.equals(bytes)) return false;
    const isKept = (await this.#kept()) !== undefined;
    if (!(isKept ? isOurs(current) : isMarked(current.toString('latin1')))) await this.#keep(current);
    const head = Buffer.byteLength(MARKER);
    await this.#change(async (file) => {
      await writeAll(file, bytes.subarray(0, head), 0);
      await writeAll(file, bytes.subarray(head), head);
      await file.truncate(bytes.length);
    });
    return true;
  }

  async putBack(): Promise<boolean> {
    for (const name of await this.#names()) await rm(temporary(name), { force: true });
    const kept = await this.#kept();
    if (kept === undefined) return false;
    if (isOurs(await this.#read())) {
      const bytes = await readFile(kept);
      const head = Buffer.byteLength(MARKER);
      await this.#change(async (file) => {
        await file.truncate(bytes.length);
        await writeAll(file, bytes.subarray(head), head);
        await writeAll(file, bytes.subarray(0, head), 0);
      });
    }
    await rm(kept);
    await syncDirectory(kept);
    return true;
  }

  async #keep(bytes: Buffer): Promise<void> {
    const names = await this.#names();
    for (const [index, name] of names.entries()) {
      try {
        await replaceFile(name, temporary(name), bytes, await ownershipOf(this.#path));
        return;
      } catch (error) {
        const isLast = index === names.length - 1;
        if (isLast || !UNWRITABLE.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
      }
    }
  }

  async #kept(): Promise<string | undefined> {
    for (const name of await this.#names()) if (await stat(name).catch(ignoreMissing)) return name;
    return undefined;
  }

  async #names(): Promise<string[]> {
    const { ino } = await stat(this.#path);
    return this.#folders.map((folder) => join(folder, `${basename(this.#path)}.before-vpnd-${ino}`));
  }

  #read(): Promise<Buffer> {
    return readFile(this.#path);
  }

  async #change(work: (file: FileHandle) => Promise<void>): Promise<void> {
    const file = await open(this.#path, constants.O_WRONLY);
    try {
      await work(file);
      await file.sync();
    } finally {
      await file.close();
    }
  }
}

function temporary(name: string): string {
  return `${name}.new`;
}

/** Only meaningful while something is kept. */
function isOurs(bytes: Buffer): boolean {
  const text = bytes.toString('latin1');
  return isMarked(text) || MARKER.startsWith(text);
}

async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}

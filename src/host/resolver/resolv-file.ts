/**
 * /etc/resolv.conf as a name in a folder: the file as it was gets a second name, ours takes its place by rename(2), and the
 * old one comes back by rename(2), as the same inode or symbolic link.
 *
 *   resolv.conf            resolv.conf.before-vpnd     what a crash left means
 *   theirs                 -                           untouched
 *   theirs                 theirs                      kept, not yet written; or rewritten by somebody since
 *   ours                   theirs                      written
 *   ours                   -                           written; there was no file
 *   -                      theirs                      somebody removed ours
 *
 * So whoever starts next needs no memory. Ours is what begins with the marker, and ours is never kept.
 *
 * A new file has the folder's default SELinux type; whoever may read /etc may read it.
 */
import { lstat, readFile, rename, rm } from 'node:fs/promises';
import { ignoreMissing, linkFile, ownershipOf, replaceFile, syncDirectory } from './durable.js';
import { isMarked } from './resolv-conf.js';

/** resolv.conf in one of the two ways it can be changed. */
export interface KeptFile {
  /** Where the file as it would be without us is read; nothing may be there. */
  originalPath(): Promise<string>;
  /** Keeps what is there unless it is ours, then writes. Returns false when it said so already. */
  write(text: string): Promise<boolean>;
  /** Whatever somebody else has written meanwhile stays. Returns whether anything of ours was there. */
  putBack(): Promise<boolean>;
}

export class ResolvFile implements KeptFile {
  readonly #path: string;
  readonly #original: string;
  readonly #temporary: string;

  constructor(path: string) {
    this.#path = path;
    this.#original = `${path}.before-vpnd`;
    this.#temporary = `${path}.vpnd-new`;
  }

  async originalPath(): Promise<string> {
    const isHidden = (await this.#isOurs()) || !(await exists(this.#path));
    return isHidden ? this.#original : this.#path;
  }

  async write(text: string): Promise<boolean> {
    const current = await this.#read();
    if (current === text) return false;
    if (current === undefined || !isMarked(current)) await this.#keep();
    const bytes = Buffer.from(text, 'latin1');
    await replaceFile(this.#path, this.#temporary, bytes, await ownershipOf(this.#original));
    return true;
  }

  async putBack(): Promise<boolean> {
    await rm(this.#temporary, { force: true });
    const isKept = await exists(this.#original);
    const isOurs = await this.#isOurs();
    if (!isKept && !isOurs) return false;
    if (!isKept) await rm(this.#path);
    else if (isOurs || !(await exists(this.#path))) await rename(this.#original, this.#path);
    else await rm(this.#original);
    await syncDirectory(this.#path);
    return true;
  }

  /** Nothing there is kept as nothing there, unless it was ours that somebody removed. */
  async #keep(): Promise<void> {
    if (await exists(this.#path)) await linkFile(this.#path, this.#original, this.#temporary);
  }

  async #isOurs(): Promise<boolean> {
    const text = await this.#read();
    return text !== undefined && isMarked(text);
  }

  /** The text of a plain file; undefined for anything else: what we write is never a symbolic link. */
  async #read(): Promise<string | undefined> {
    const found = await lstat(this.#path).catch(ignoreMissing);
    return found?.isFile() ? readFile(this.#path, 'latin1').catch(ignoreMissing) : undefined;
  }
}

async function exists(path: string): Promise<boolean> {
  return (await lstat(path).catch(ignoreMissing)) !== undefined;
}

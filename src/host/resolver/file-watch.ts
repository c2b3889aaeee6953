/** Says when what a path leads to may have changed: replaced in its folder, or written in place (inotify(7) by fs.watch). */
import { type FSWatcher, watch } from 'node:fs';
import { basename, dirname } from 'node:path';

export class FileWatch {
  readonly #path: string;
  readonly #onChange: () => void;
  #folder: FSWatcher | undefined;
  /** The inode: a file that is a mount may be written under its other name. */
  #file: FSWatcher | undefined;

  constructor(path: string, onChange: () => void) {
    this.#path = path;
    this.#onChange = onChange;
  }

  start(): void {
    if (this.#folder) return;
    const name = basename(this.#path);
    this.#folder = open(dirname(this.#path), (file) => {
      if (file === name) this.#changed();
    });
    this.#follow();
  }

  stop(): void {
    this.#folder?.close();
    this.#file?.close();
    this.#folder = undefined;
    this.#file = undefined;
  }

  #changed(): void {
    this.#follow();
    this.#onChange();
  }

  #follow(): void {
    this.#file?.close();
    this.#file = open(this.#path, () => this.#changed());
  }
}

/** Undefined when nothing is there to be watched. */
function open(path: string, onEvent: (file: string | null) => void): FSWatcher | undefined {
  try {
    const watcher = watch(path, { persistent: false }, (_, file) => onEvent(file));
    watcher.on('error', () => {});
    return watcher;
  } catch (error) {
    // Also a link that leads to itself.
    if (['ENOENT', 'ELOOP'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
}

/**
 * /etc/passwd and /etc/group as files, where a look-up by the C library (names.ts) would not do: strangers may ask for a refusal as often
 * as they like, and none of them shall make the service wait for a directory server.
 */
import { readFileSync, statSync } from 'node:fs';
import { unlessAbsent } from '../kernel/absence.js';

const MAX_PASSWD_BYTES = 4 << 20;

/** Whether a file is another one than at the last call, or has been written. The first call says yes. */
export class FileStamp {
  readonly #path: string;
  #last: string | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /** The next call says yes. */
  forget(): void {
    this.#last = undefined;
  }

  hasChanged(): boolean {
    const found = unlessAbsent('stat', this.#path, () => statSync(this.#path, { bigint: true }));
    const stamp = found ? `${found.dev} ${found.ino} ${found.size} ${found.mtimeNs} ${found.ctimeNs}` : '';
    if (stamp === this.#last) return false;
    this.#last = stamp;
    return true;
  }
}

/** Users of this machine by uid, as usermod(8) knows them: those of a directory are none. Only names that a shell takes as they are. */
export class LocalUsers {
  readonly #path: string;
  readonly #stamp: FileStamp;
  #names: ReadonlyMap<number, string> = new Map();

  constructor(path = '/etc/passwd') {
    this.#path = path;
    this.#stamp = new FileStamp(path);
  }

  /** For sentences only: without a descriptor left, say, there is no name, and no failure. */
  nameOf(uid: number): string | undefined {
    try {
      if (this.#stamp.hasChanged()) this.#names = readNames(this.#path);
    } catch {
      this.#stamp.forget();
    }
    return this.#names.get(uid);
  }
}

function readNames(path: string): Map<number, string> {
  const text = unlessAbsent('read', path, () => readFileSync(path, 'latin1')) ?? '';
  const names = new Map<number, string>();
  for (const line of text.slice(0, MAX_PASSWD_BYTES).split('\n')) {
    const [, name, uid] = /^([A-Za-z_][\w.-]*):[^:]*:(\d+):/.exec(line) ?? [];
    // Of several names the first is the one that programs show.
    if (name !== undefined && !names.has(Number(uid))) names.set(Number(uid), name);
  }
  return names;
}

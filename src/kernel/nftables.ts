/**
 * nftables in this process, through libnftables (libnftables(3)): a batch of commands in nft's own language (nft(8)) is one
 * atomic transaction, 0.3 to 0.6 ms. The text that is sent is the text that golden tests and administrators read. Whoever
 * writes it puts in only numbers, names of ours and addresses that our own parser has printed.
 */
import { readdirSync } from 'node:fs';
import { attempt } from './absence.js';
import { checked } from './errno.js';
import { inThreadPool, libc, openLibrary } from './ffi.js';
import { makeOwnedTables, type TableFamily } from './nftables-owned.js';
import { AF_NETLINK, socketDomain } from './socket-options.js';

interface Library {
  newContext(flags: number): unknown;
  freeContext(context: unknown): void;
  bufferOutput(context: unknown): number;
  bufferError(context: unknown): number;
  setDryRun(context: unknown, isDry: boolean): void;
  run(context: unknown, commands: string): number;
  runAsync(context: unknown, commands: string): Promise<number>;
  output(context: unknown): string;
  error(context: unknown): string;
}

const SONAME = 'libnftables.so.1';
/** A table that is there for a moment. */
const PROBE = 'vpnd_probe';
const F_SETFD = 2;
const FD_CLOEXEC = 1;

let library: Library | undefined;

function load(): Library | undefined {
  const loaded = library ? undefined : openLibrary(SONAME);
  if (loaded) {
    const run = loaded.func<Library['run']>('int nft_run_cmd_from_buffer(void *, const char *)');
    library = {
      freeContext: loaded.func('void nft_ctx_free(void *)'),
      newContext: loaded.func('void *nft_ctx_new(uint32_t)'),
      bufferOutput: loaded.func('int nft_ctx_buffer_output(void *)'),
      bufferError: loaded.func('int nft_ctx_buffer_error(void *)'),
      setDryRun: loaded.func('void nft_ctx_set_dry_run(void *, bool)'),
      run,
      runAsync: inThreadPool(run),
      output: loaded.func('const char *nft_ctx_get_output_buffer(void *)'),
      error: loaded.func('const char *nft_ctx_get_error_buffer(void *)'),
    };
  }
  return library;
}

export function nftablesAvailable(): boolean {
  return load() !== undefined;
}

/** The kernel or the parser refused a batch; nothing of it was done. */
export class NftablesError extends Error {
  override readonly name = 'NftablesError';
}

export class Nftables {
  readonly #library: Library;
  readonly #context: unknown;
  /** The context's own, through which all its commands go. */
  readonly #socket: number;
  #canOwn: boolean | undefined;

  /** Throws NftablesError naming the package when libnftables is not installed. */
  constructor() {
    const loaded = load();
    if (!loaded)
      throw new NftablesError(`${SONAME} is not installed (Debian: libnftables1, Alpine and Fedora: nftables)`);
    this.#library = loaded;
    const before = new Set(netlinkSockets());
    this.#context = loaded.newContext(0);
    try {
      this.#socket = netlinkSockets().find((fd) => !before.has(fd)) ?? -1;
      // Whoever holds it owns the tables: no process that is started from here.
      checked(libc.fcntl(this.#socket, F_SETFD, FD_CLOEXEC), 'fcntl', "libnftables' socket");
    } catch (error) {
      loaded.freeContext(this.#context);
      throw error;
    }
    loaded.bufferOutput(this.#context);
    loaded.bufferError(this.#context);
  }

  /** Runs commands as one transaction and returns what they print. */
  run(commands: string): string {
    if (this.#library.run(this.#context, commands) !== 0) throw this.#failure();
    return this.#library.output(this.#context);
  }

  /** Has nft read the commands and the kernel look at them as one transaction, and nothing done. Throws NftablesError. */
  check(commands: string): void {
    this.#library.setDryRun(this.#context, true);
    try {
      this.run(commands);
    } finally {
      this.#library.setDryRun(this.#context, false);
    }
  }

  /** As run(), in the thread pool: a batch waits for the kernel. One at a time per object; callers see to that. */
  async runAsync(commands: string): Promise<void> {
    if ((await this.#library.runAsync(this.#context, commands)) !== 0) throw this.#failure();
  }

  /**
   * Makes these tables, empty, so that nobody but this object can change them as long as it is open (Linux 6.9), or takes them over
   * from a predecessor that is gone. Returns false, and changes nothing, where that cannot be. Throws KernelError.
   */
  makeOwnedTables(name: string, families: readonly TableFamily[]): boolean {
    return makeOwnedTables(this.#socket, name, families);
  }

  /** Whether there can be such tables here. Throws KernelError or NftablesError. */
  canOwn(): boolean {
    if (this.#canOwn === undefined) {
      this.#canOwn = this.makeOwnedTables(PROBE, ['inet']);
      if (this.#canOwn) this.run(`delete table inet ${PROBE}`);
    }
    return this.#canOwn;
  }

  /** Tables that are its own stay, and are anybody's then. */
  close(): void {
    this.#library.freeContext(this.#context);
  }

  /** The families in which a table of this name exists. */
  familiesOf(name: string): string[] {
    return listedTables(this.run('list tables')).flatMap((table) => (table.name === name ? [table.family] : []));
  }

  /** Of the tables of this name, as commands name them. @example ['inet vpnd lock'] */
  chainsOf(name: string): string[] {
    return listedTables(this.run('list chains')).flatMap((table) =>
      table.name === name ? table.chains.map((chain) => `${table.family} ${name} ${chain}`) : [],
    );
  }

  #failure(): NftablesError {
    return new NftablesError(this.#library.error(this.#context).trim().split('\n').slice(0, 3).join(' '));
  }
}

interface ListedTable {
  family: string;
  name: string;
  chains: string[];
}

/**
 * What `list tables` and `list chains` print. Not as JSON: of a table with one flag libnftables before 1.1.0 prints there what it has freed,
 * and a table that outlived its owner has one.
 */
export function listedTables(text: string): ListedTable[] {
  const tables: ListedTable[] = [];
  for (const [, indent, kind, family, name] of text.matchAll(/^(\t?)(table|chain) (\S+)(?: (\S+))?/gm)) {
    if (indent === '' && kind === 'table') tables.push({ family: family ?? '', name: name ?? '', chains: [] });
    else if (indent !== '' && kind === 'chain') tables.at(-1)?.chains.push(family ?? '');
  }
  return tables;
}

/** Of this process. The list has its own descriptor too, which is closed by then. */
function netlinkSockets(): number[] {
  const open = attempt('readdir', '/proc/self/fd', () => readdirSync('/proc/self/fd')).map(Number);
  return open.filter((fd) => socketDomain(fd) === AF_NETLINK);
}

/**
 * nftables in this process, through libnftables (libnftables(3)): a batch of commands in nft's own language (nft(8)) is one
 * atomic transaction, 0.3 to 0.6 ms. The text that is sent is the text that golden tests and administrators read. Whoever
 * writes it puts in only numbers, names of ours and addresses that our own parser has printed.
 */
import { inThreadPool, openLibrary } from './ffi.js';

interface Library {
  newContext(flags: number): unknown;
  bufferOutput(context: unknown): number;
  bufferError(context: unknown): number;
  run(context: unknown, commands: string): number;
  runAsync(context: unknown, commands: string): Promise<number>;
  output(context: unknown): string;
  error(context: unknown): string;
  setFlags(context: unknown, flags: number): void;
}

const SONAME = 'libnftables.so.1';
const NFT_CTX_OUTPUT_JSON = 1 << 4;

let library: Library | undefined;

function load(): Library | undefined {
  const loaded = library ? undefined : openLibrary(SONAME);
  if (loaded) {
    const run = loaded.func<Library['run']>('int nft_run_cmd_from_buffer(void *, const char *)');
    library = {
      newContext: loaded.func('void *nft_ctx_new(uint32_t)'),
      bufferOutput: loaded.func('int nft_ctx_buffer_output(void *)'),
      bufferError: loaded.func('int nft_ctx_buffer_error(void *)'),
      run,
      runAsync: inThreadPool(run),
      output: loaded.func('const char *nft_ctx_get_output_buffer(void *)'),
      error: loaded.func('const char *nft_ctx_get_error_buffer(void *)'),
      setFlags: loaded.func('void nft_ctx_output_set_flags(void *, unsigned int)'),
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

  /** Throws NftablesError naming the package when libnftables is not installed. */
  constructor() {
    const loaded = load();
    if (!loaded)
      throw new NftablesError(`${SONAME} is not installed (Debian: libnftables1, Alpine and Fedora: nftables)`);
    this.#library = loaded;
    this.#context = loaded.newContext(0);
    loaded.bufferOutput(this.#context);
    loaded.bufferError(this.#context);
    loaded.setFlags(this.#context, NFT_CTX_OUTPUT_JSON);
  }

  /** Runs commands as one transaction and returns what they print (JSON). */
  run(commands: string): string {
    if (this.#library.run(this.#context, commands) !== 0) throw this.#failure();
    return this.#library.output(this.#context);
  }

  /** The same in the thread pool: a batch waits for the kernel. One at a time per object; callers see to that. */
  async runAsync(commands: string): Promise<void> {
    if ((await this.#library.runAsync(this.#context, commands)) !== 0) throw this.#failure();
  }

  /** The families in which a table of this name exists. */
  familiesOf(name: string): string[] {
    const tables = JSON.parse(this.run('list tables')) as { nftables: { table?: { family: string; name: string } }[] };
    return tables.nftables.flatMap(({ table }) => (table?.name === name ? [table.family] : []));
  }

  #failure(): NftablesError {
    return new NftablesError(this.#library.error(this.#context).trim().split('\n').slice(0, 3).join(' '));
  }
}

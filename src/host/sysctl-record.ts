/**
 * The note of which links' src_valid_mark was raised, so that a successor can give them back: a small JSON file, made before
 * anything is raised. What it says is trusted as far as it could do harm: it names links by index, and no path or value.
 *
 * It is not synced to the disk: what a power cut takes from it, it takes from the kernel too. The boot id tells that apart.
 */
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { unlessAbsent } from '../kernel/absence.js';

const BYTES_MAXIMUM = 256 * 1024;
const IFINDEX_MAXIMUM = 0x7fffffff;

export class SysctlRecord {
  readonly #path: string;
  readonly #boot: string;

  /** `namespace`: SO_NETNS_COOKIE, which no other network namespace has until the next boot. */
  constructor(stateDir: string, namespace: bigint, boot: string = readBootId()) {
    this.#path = join(stateDir, `sysctls-netns${namespace}.json`);
    this.#boot = boot;
  }

  /**
   * Empty when there is none, when it is of another boot, and when it is not what `write` writes. Throws KernelError when it cannot
   * be read: what it names is still raised.
   */
  read(): number[] {
    const bytes = unlessAbsent('read', this.#path, () => readFileSync(this.#path));
    if (bytes === undefined || bytes.length > BYTES_MAXIMUM) return [];
    try {
      const { boot, srcValidMark } = JSON.parse(bytes.toString('utf8')) as Record<string, unknown>;
      if (boot !== this.#boot || !Array.isArray(srcValidMark)) return [];
      return srcValidMark.every(isIfindex) ? srcValidMark : [];
    } catch {
      // No JSON, or null.
      return [];
    }
  }

  /** Whole or not at all. Throws what the file system says. */
  write(ifindexes: readonly number[]): void {
    if (ifindexes.length === 0) return rmSync(this.#path, { force: true });
    const fresh = `${this.#path}.new`;
    rmSync(fresh, { force: true });
    const text = JSON.stringify({ boot: this.#boot, srcValidMark: ifindexes });
    writeFileSync(fresh, `${text}\n`, { flag: 'wx', mode: 0o600 });
    renameSync(fresh, this.#path);
  }
}

function isIfindex(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) > 0 && (value as number) <= IFINDEX_MAXIMUM;
}

function readBootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
}

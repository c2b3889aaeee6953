/**
 * net.ipv4.conf.LINK.src_valid_mark: with it the reverse path filter judges by the rules that the packet's mark selects, as
 * routing will. Raised on links whose rp_filter is on, while it is needed; never lowered, given back only if still as we left
 * it. Whether somebody changed one meanwhile is heard through inotify (procfs tells writes). A vNIC's own sysctls are set
 * when it is made and end with it: not here.
 *
 * Where /proc/sys may not be written (containers), what is off stays off: `require` says for which links that matters.
 *
 * `conf.all` is never written. Both sysctls hold when either `all` or the link has them (rp_filter: the greater one).
 */
import { closeSync, type FSWatcher, openSync, readSync, watch, writeFileSync } from 'node:fs';
import { unlessAbsent } from '../kernel/absence.js';
import { BusinessError } from '../model/errors.js';
import { quote } from '../model/quote.js';
import { isDenied, unlessDenied } from './sysctl-file.js';
import type { SysctlRecord } from './sysctl-record.js';

const DIRECTORY = '/proc/sys/net/ipv4/conf';
const OFF = '0';
const ON = '1';
/** Of rp_filter. */
const STRICT = 1;

type Key = 'rp_filter' | 'src_valid_mark';

export interface SysctlLink {
  ifindex: number;
  /** One character a byte, as listLinks() says it. */
  name: string;
  /** The outside world is behind it, and with it the far ends of tunnels. */
  isOuter?: boolean;
}

/** One that is off, should be on, and may not be written. */
interface Missing {
  link: SysctlLink;
  /** Only the way back is good enough for the filter, not any way. */
  isStrict: boolean;
}

interface Raised {
  name: string;
  watcher: FSWatcher | undefined;
  /** Open as long as we listen: without it the kernel may forget the inode that the watch is on. */
  fd: number;
}

export class Sysctls {
  readonly #record: SysctlRecord;
  readonly #onForeignChange: (what: string) => void;
  readonly #directory: string;
  /** By ifindex: a link may get another name. */
  readonly #raised = new Map<number, Raised>();
  #missing: readonly Missing[] = [];

  /** `onForeignChange`: one that we raised was lowered by somebody else; `update` raises it again. */
  constructor(record: SysctlRecord, onForeignChange: (what: string) => void, directory: string = DIRECTORY) {
    this.#record = record;
    this.#onForeignChange = onForeignChange;
    this.#directory = directory;
  }

  /**
   * Sees to it that the reverse path filters of these links, where they are on, judge by marks; gives all others back. `links`
   * are all that are no VPN's; `isNeeded`: some VPN has answers from outside that are for a vNIC's address. Returns whether something was raised. Throws KernelError, and what
   * the state directory's file system says; nothing is raised without a note of it.
   */
  update(links: readonly SysctlLink[], isNeeded: boolean): boolean {
    const wanted =
      isNeeded && this.#read('all', 'src_valid_mark') === OFF ? links.filter((link) => this.#filter(link) > 0) : [];
    this.#giveBackAllBut(wanted, links);
    const off = wanted.filter(({ name }) => this.#read(name, 'src_valid_mark') === OFF);
    const isMissing = ({ name }: SysctlLink) => isDenied(this.#path(name, 'src_valid_mark'));
    this.#missing = off.filter(isMissing).map((link) => ({ link, isStrict: this.#filter(link) === STRICT }));
    const low = off.filter((link) => !this.#missing.some((each) => each.link === link));
    const fresh = low.filter(({ ifindex }) => !this.#raised.has(ifindex));
    if (fresh.length > 0) this.#record.write([...this.#raised.keys(), ...fresh.map(({ ifindex }) => ifindex)]);
    for (const link of low) {
      this.#write(link.name, ON);
      if (!this.#raised.has(link.ifindex)) this.#watch(link);
    }
    return low.length > 0;
  }

  /** What the last `update` could not set, as `sysctl` would. */
  get missing(): string[] {
    return this.#missing.map(({ link }) => assignment(link));
  }

  /**
   * After an `update` for `who`. Throws BusinessError 2200003 when that cannot work without what is missing: nothing that comes from
   * outside for it would get past the filters.
   */
  require(who: string, acceptsIPv4: boolean): void {
    // A loose filter asks for some way back, which there is while the VPN takes IPv4.
    const needed = this.#missing.filter(({ link, isStrict }) => link.isOuter && (isStrict || !acceptsIPv4));
    if (needed.length === 0) return;
    const names = needed.map(({ link }) => assignment(link)).join(' ');
    throw new BusinessError(
      2200003,
      undefined,
      `with the reverse path filter (rp_filter) of this machine ${who} needs ${names}, and /proc/sys is read-only for vpnd: set that, or net.ipv4.conf.all.src_valid_mark=1, from outside (of a container: --sysctl net.ipv4.conf.all.src_valid_mark=1)`,
    );
  }

  /** Gives back what a dead predecessor raised. At start, before `update`. Returns how many. */
  sweep(links: readonly SysctlLink[]): number {
    const noted = new Set(this.#record.read());
    const given = links.filter(({ ifindex, name }) => noted.has(ifindex) && this.#lower(name)).length;
    this.#record.write([]);
    return given;
  }

  /** Stops listening. What is raised stays so. */
  close(): void {
    for (const raised of this.#raised.values()) unwatch(raised);
    this.#raised.clear();
  }

  /** The greater value holds. */
  #filter({ name }: SysctlLink): number {
    if (!isLinkName(name)) return 0;
    return Math.max(...['all', name].map((each) => Number(this.#read(each, 'rp_filter') ?? OFF)));
  }

  #giveBackAllBut(wanted: readonly SysctlLink[], links: readonly SysctlLink[]): void {
    const before = this.#raised.size;
    for (const [ifindex, raised] of this.#raised) {
      const name = links.find((link) => link.ifindex === ifindex)?.name;
      // Under another name it is another file, with the same value.
      if (name === raised.name && wanted.some((link) => link.ifindex === ifindex)) continue;
      unwatch(raised);
      this.#raised.delete(ifindex);
      if (name !== undefined) this.#lower(name);
    }
    if (this.#raised.size < before) this.#record.write([...this.#raised.keys()]);
  }

  /** Only from what we had written. */
  #lower(name: string): boolean {
    if (!isLinkName(name) || this.#read(name, 'src_valid_mark') !== ON) return false;
    return this.#write(name, OFF);
  }

  #watch({ ifindex, name }: SysctlLink): void {
    const path = this.#path(name, 'src_valid_mark');
    const fd = openValue(path);
    // The link has just gone.
    if (fd === undefined) return;
    const raised: Raised = { name, fd, watcher: undefined };
    this.#raised.set(ifindex, raised);
    try {
      raised.watcher = watch(path, { persistent: false }, () => this.#onWritten(ifindex));
      raised.watcher.on('error', () => undefined);
    } catch {
      // No inotify watches left, or the link has gone since: it is looked at whenever links change.
    }
  }

  #onWritten(ifindex: number): void {
    const raised = this.#raised.get(ifindex);
    if (raised && mayBeOff(raised)) this.#onForeignChange(`src_valid_mark of link ${quote(raised.name)}`);
  }

  /** Undefined when the link is gone, or has no IPv4. Throws KernelError. */
  #read(name: string, key: Key): string | undefined {
    const fd = openValue(this.#path(name, key));
    if (fd === undefined) return undefined;
    try {
      return readValue(fd, name);
    } finally {
      closeSync(fd);
    }
  }

  /** Whether it is written: one that has gone has nothing to be written. */
  #write(name: string, value: string): boolean {
    const path = this.#path(name, 'src_valid_mark');
    return unlessDenied(path, () => writeFileSync(path, value, { flag: 'r+' })) === 'done';
  }

  #path(name: string, key: Key): Buffer {
    return Buffer.from(`${this.#directory}/${name}/${key}`, 'latin1');
  }
}

/** One component of a path, and not that of all links or of future ones: the kernel lets a link have those names. */
function isLinkName(name: string): boolean {
  return /^[^/\0]{1,15}$/.test(name) && !['.', '..', 'all', 'default'].includes(name);
}

/**
 * As sysctl(8) takes it: there a dot in a link's name, as VLANs have one, is written as a slash. Names of links are anybody's, and this
 * is for people to read.
 */
export function assignment({ name }: Pick<SysctlLink, 'name'>): string {
  return `net.ipv4.conf.${quote(name).slice(1, -1).replaceAll('.', '/')}.src_valid_mark=1`;
}

function openValue(path: Buffer): number | undefined {
  return unlessAbsent('open', path.toString('latin1'), () => openSync(path, 'r'));
}

/** Undefined when the link has gone since it was opened. */
function readValue(fd: number, name: string): string | undefined {
  const buffer = Buffer.alloc(16);
  const bytes = unlessAbsent('read', `sysctl of link ${quote(name)}`, () => readSync(fd, buffer, 0, buffer.length, 0));
  return bytes === undefined ? undefined : buffer.toString('latin1', 0, bytes).trim();
}

/** What cannot be read may be off: whoever is told looks again, and there an error has somewhere to go. */
function mayBeOff({ fd, name }: Raised): boolean {
  try {
    return readValue(fd, name) === OFF;
  } catch {
    return true;
  }
}

function unwatch({ watcher, fd }: Raised): void {
  watcher?.close();
  closeSync(fd);
}

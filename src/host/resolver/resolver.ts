/**
 * Tells the machine's resolver about the one VPN that is the whole machine's, so that search domains work and local resolvers
 * ask the right servers. What guarantees whose servers are asked is not this but nft's redirect of port 53.
 *
 * Which resolver it is, is decided by whose file /etc/resolv.conf would be without us, at every apply and again whenever the
 * file changes or systemd-resolved comes (back): then everything is told once more, at most twice a second.
 */
import { readFile, readlink, realpath } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { isAbsent } from '../../kernel/absence.js';
import { Lane } from '../../kernel/lane.js';
import { BusinessError } from '../../model/errors.js';
import { BusWatch } from './bus-watch.js';
import { FileWatch } from './file-watch.js';
import { NotTold, ofAnotherNetwork } from './not-told.js';
import { PlainFile } from './plain-file.js';
import { RepairRate } from './repair-rate.js';
import { type BackEnd, checkRequest, type ResolverLog, type ResolverRequest } from './request.js';
import { isResolvconfFile, isResolvedFile, searchDomainsThatFit } from './resolv-conf.js';
import { findResolvconf, RECORDS, Resolvconf } from './resolvconf.js';
import { RESOLVED, SystemdResolved } from './systemd-resolved.js';
import { isOfAnotherNetwork } from './whose-file.js';

/** Several events of one change arrive together. */
const SETTLE_MS = 50;
const RETRY_MS = { first: 500, last: 30_000 };

/** What happened that makes us tell everything again. */
type Why = 'file changed' | 'resolved started' | 'failed before';

export interface ResolverSettings {
  /** For the original where the folder of resolv.conf cannot take it. */
  stateDir: string;
  log: ResolverLog;
  /** Somebody undoes what we do again and again; `what` in words. */
  onFight: (what: string) => void;
  /** Default: the machine's. */
  resolvConf?: string;
  busSocket?: string;
  /** Default: isOfAnotherNetwork(). */
  isOthers?: (path: string) => Promise<boolean>;
}

export class Resolver {
  readonly #path: string;
  readonly #log: ResolverLog;
  readonly #onFight: (what: string) => void;
  readonly #lane = new Lane();
  readonly #busSocket: string;
  readonly #bus: BusWatch;
  readonly #isOthers: (path: string) => Promise<boolean>;
  readonly #watch: FileWatch;
  readonly #file: PlainFile;
  readonly #resolvconf = new Resolvconf();
  readonly #resolved: SystemdResolved;
  #request: ResolverRequest | undefined;
  #active: BackEnd | undefined;
  /** Why nobody is told, when that is so. */
  #notTold: NotTold | undefined;
  readonly #rate = new RepairRate();
  #timer: NodeJS.Timeout | undefined;
  #retry: NodeJS.Timeout | undefined;
  #retryMs = RETRY_MS.first;

  constructor({ stateDir, log, onFight, resolvConf, busSocket, isOthers }: ResolverSettings) {
    this.#path = resolvConf ?? '/etc/resolv.conf';
    this.#busSocket = busSocket ?? '/run/dbus/system_bus_socket';
    this.#isOthers = isOthers ?? isOfAnotherNetwork;
    this.#log = log;
    this.#onFight = onFight;
    this.#file = new PlainFile(this.#path, stateDir);
    this.#bus = new BusWatch(this.#busSocket, RESOLVED, () => this.#soon('resolved started'));
    this.#resolved = new SystemdResolved(() => this.#bus.bus);
    this.#watch = new FileWatch(this.#path, () => this.#soon('file changed'));
  }

  /**
   * Tells the resolver, instead of what it was told before, and keeps it told until restore(). The link must be up and have
   * its addresses: systemd-resolved uses no other. On failure nothing is told, also of a former request, and the error is a
   * BusinessError 2200003; but a file that cannot be written, or is another network's, is a warning.
   */
  apply(request: ResolverRequest): Promise<void> {
    return this.#lane.run(async () => {
      try {
        this.#request = checkRequest(request);
        this.#watch.start();
        await this.#tell();
      } catch (error) {
        const kind = this.#active?.kind;
        await this.#takeBack().catch((failed) =>
          this.#log('error', 'resolver-restore-failed', { error: String(failed) }),
        );
        if (error instanceof BusinessError) throw error;
        const reason = `the machine's resolver (${kind ?? 'unknown'}) cannot be told: ${(error as Error).message}`;
        throw new BusinessError(2200003, undefined, reason);
      }
      if (this.#notTold) return;
      this.#log('info', 'resolver', { kind: this.#active?.kind, link: request.link.name });
      this.#warnOfLength();
    });
  }

  /** Why the machine's resolver does not know of the VPN, and what helps; undefined when it does, or there is none. */
  get problem(): string | undefined {
    return this.#notTold && `${sentenceOf(this.#notTold)}; to mend it: ${this.#notTold.fix}`;
  }

  /** As it was. Nothing to do is fine. Throws what the back end threw. */
  restore(): Promise<void> {
    return this.#lane.run(() => this.#takeBack());
  }

  /** At start: puts back what a dead service left. Returns whether there was anything. */
  sweep(): Promise<boolean> {
    return this.#lane.run(async () => {
      try {
        if (await this.#isOthers(this.#path)) return false;
        const swept = await this.#file.putBack();
        if (await this.#isResolvconfs()) await this.#resolvconf.restore();
        return swept;
      } catch (error) {
        this.#log('error', 'resolver-sweep-failed', { error: String(error) });
        return false;
      }
    });
  }

  /** Lets go of watches and the bus. Restores nothing. */
  close(): void {
    this.#rest();
    this.#bus.stop();
  }

  async #takeBack(): Promise<void> {
    this.#rest();
    try {
      // The bus may have come back, or a restore() before may have failed.
      if (this.#active === this.#resolved) await this.#bus.hasOwner();
      await this.#active?.restore();
      this.#active = undefined;
    } finally {
      this.#bus.stop();
    }
  }

  /** Nothing is told from here on. */
  #rest(): void {
    this.#request = undefined;
    this.#notTold = undefined;
    clearTimeout(this.#timer);
    clearTimeout(this.#retry);
    this.#timer = undefined;
    this.#watch.stop();
  }

  /** Returns whether the resolver did not know it already. */
  async #tell(): Promise<boolean> {
    try {
      const isNew = await this.#tellBackEnd();
      this.#notTold = undefined;
      return isNew;
    } catch (error) {
      if (!(error instanceof NotTold)) throw error;
      if (this.#notTold?.message !== error.message) this.#warn(error);
      this.#notTold = error;
      return false;
    }
  }

  async #tellBackEnd(): Promise<boolean> {
    const request = this.#request;
    if (!request) return false;
    if (await this.#isOthers(this.#path)) throw ofAnotherNetwork(this.#path);
    let backEnd = await this.#detect();
    if (this.#active && this.#active !== backEnd) {
      await this.#active.restore();
      this.#active = undefined;
      backEnd = await this.#detect();
    }
    this.#active = backEnd;
    return backEnd.apply(request);
  }

  async #detect(): Promise<BackEnd> {
    const { target, text } = await this.#original();
    if (isResolvedFile(target, text)) {
      // The link of this number is somebody else's there.
      if (await this.#isOthers(this.#busSocket)) {
        throw ofAnotherNetwork(this.#busSocket, `write name servers that this network reaches into ${this.#path}`);
      }
      // One that told resolved waits for it: resolved is being restarted.
      if ((await this.#bus.hasOwner()) || this.#active === this.#resolved) return this.#resolved;
    } else if (this.#active !== this.#resolved) {
      this.#bus.stop(); // one that is to be told goodbye needs it
    }
    return (await this.#isResolvconfs()) ? this.#resolvconf : this.#file;
  }

  /** Not when its records are another network's, of which this file is a copy. */
  async #isResolvconfs(): Promise<boolean> {
    const { target, text } = await this.#original();
    if (!isResolvconfFile(target, text) || (await findResolvconf()) === undefined) return false;
    return !(await this.#isOthers(RECORDS));
  }

  /** The file as it would be without us. */
  async #original(): Promise<{ target: string; text: string }> {
    const path = await this.#file.originalPath();
    const linked = () => readlink(path).then((link) => resolve(dirname(path), link));
    // A link that leads nowhere, else no link or nothing at all. ELOOP: it leads to itself.
    const target = await realpath(path)
      .catch((error) => orThrow(error, ['ELOOP'], linked))
      .catch((error) => orThrow(error, ['EINVAL', 'ELOOP'], () => path));
    const text = await readFile(path, 'latin1').catch((error) => orThrow(error, ['ELOOP', 'EISDIR'], () => ''));
    return { target, text };
  }

  #soon(why: Why): void {
    if (!this.#request || (this.#timer && why === 'file changed')) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        void this.#lane.run(() => this.#again(why));
      },
      Math.max(SETTLE_MS, this.#rate.waitMs(performance.now())),
    ).unref();
  }

  async #again(why: Why): Promise<void> {
    const request = this.#request;
    if (!request) return;
    // The event may have come while the repair before was under way.
    if (this.#rate.waitMs(performance.now()) > 0) return this.#soon(why);
    try {
      // resolved keeps what it was told, whatever happens to the file, and telling it again empties its cache.
      if (why === 'file changed' && this.#active === this.#resolved && (await this.#detect()) === this.#resolved)
        return;
      const before = this.#active;
      const isRepair = await this.#tell();
      this.#retryMs = RETRY_MS.first;
      if (!isRepair && before === this.#active) return;
      this.#log('info', 'resolver-again', { why, kind: this.#active?.kind, link: request.link.name });
      if (this.#rate.isFight(performance.now())) this.#onFight(`${why} again and again: ${this.#path}`);
    } catch (error) {
      this.#log('error', 'resolver-failed', { why, kind: this.#active?.kind, error: String(error) });
      clearTimeout(this.#retry);
      this.#retry = setTimeout(() => this.#soon('failed before'), this.#retryMs).unref();
      this.#retryMs = Math.min(2 * this.#retryMs, RETRY_MS.last);
    }
  }

  #warn(why: NotTold): void {
    this.#log('warning', 'resolver-not-told', { reason: sentenceOf(why), fix: why.fix });
  }

  #warnOfLength(): void {
    const { searchDomains = [] } = this.#request ?? {};
    const fit = searchDomainsThatFit(searchDomains);
    if (this.#active === this.#resolved || fit >= searchDomains.length) return;
    this.#log('warning', 'search-domains-cut', { given: searchDomains.length, used: fit });
  }
}

function sentenceOf({ message }: NotTold): string {
  return `${message}: names are asked of the VPN's servers all the same, but its search domains are not used`;
}

/** What is to be taken where nothing is; `also`: further errors that say so. */
function orThrow<T>(error: unknown, also: readonly string[], instead: () => T): T {
  if (isAbsent(error, also)) return instead();
  throw error;
}

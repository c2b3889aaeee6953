/**
 * A host-watcher in a host of the lab, and what it says:
 *
 *   app: host-watcher                                        router
 *   eth0 192.168.50.2/24 fd50::2/64 ──────────────────────── eth0 192.168.50.1/24 fd50::1/64
 */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import type { LinkFacts } from '../../../src/host/links.js';
import type { LabHost } from './host.js';
import { Lab } from './lab.js';
import type { LabProcess } from './process.js';

const SCRIPT = 'dist/test/lab/lib/host-watcher.js';
/** Longer than the watch waits for more about links. */
const LINKS_SETTLE_MS = 700;
/** Rules from here on are in the band of ours, and no VPN's that is ever made here. */
const MARKERS = 29_000;
const NFT_MARKER = 'nft table vpnd_lockdown';

export interface Line {
  foreign?: string;
  links?: true;
  done?: string;
  /** Answers to what it was told to do. */
  facts?: LinkFacts;
  added?: number;
  removed?: number;
  raised?: boolean;
  swept?: number;
}

export class Watcher {
  readonly #host: LabHost;
  readonly #process: LabProcess;
  #seen = 0;
  #markers = 0;

  constructor(host: LabHost, process: LabProcess) {
    this.#host = host;
    this.#process = process;
  }

  get pid(): number {
    return this.#process.pid;
  }

  async kill9(): Promise<void> {
    await this.#process.kill('SIGKILL');
  }

  /** Everything it says until it has done it. */
  async tell(word: string): Promise<Line> {
    const from = this.#lines().length;
    const isDone = (): boolean => this.#since(from).some((line) => line.done === word);
    this.#process.write(`${word}\n`);
    await this.#until(`answer to ${word}`, isDone);
    return Object.assign({}, ...this.#since(from));
  }

  /** The objects heard of since the last time, in order, each once; the markers left out. */
  async foreign(): Promise<string[]> {
    const from = this.#seen;
    const priority = MARKERS + this.#markers++;
    await this.#host.run('ip', ['rule', 'add', 'pref', `${priority}`, 'table', 'main', 'protocol', 'kernel']);
    // nftables' notifications come by another socket, on which there has to be a marker as well.
    await this.#host.run('nft', ['add table inet vpnd_lockdown; delete table inet vpnd_lockdown']);
    const isMarked = (marker: string): boolean => this.#since(from).some((line) => line.foreign === marker);
    await this.#until('the markers', () => isMarked(`rule ${priority}`) && isMarked(NFT_MARKER));
    const heard = this.#since(from);
    this.#seen = from + heard.length;
    const objects = new Set(heard.flatMap(({ foreign }) => foreign ?? []));
    objects.delete(`rule ${priority}`);
    objects.delete(NFT_MARKER);
    return [...objects];
  }

  async hears(foreign: string): Promise<void> {
    await this.#until(foreign, () => this.#lines().some((line) => line.foreign === foreign));
  }

  /** How often links were said to have changed since the watcher began, after everything has been told. */
  async links(): Promise<number> {
    await new Promise((resolve) => setTimeout(resolve, LINKS_SETTLE_MS));
    return this.#lines().filter((line) => line.links).length;
  }

  #since(from: number): Line[] {
    return this.#lines().slice(from);
  }

  #lines(): Line[] {
    const { stdout } = this.#process;
    return stdout
      .slice(0, stdout.lastIndexOf('\n') + 1)
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Line);
  }

  async #until(what: string, condition: () => boolean): Promise<void> {
    for (let tries = 0; tries < 1500; tries++) {
      if (condition()) return;
      assert.ok(this.#process.running, this.#process.stderr);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assert.fail(`${what}: not within 30 s\n${this.#process.stdout.slice(-2000)}${this.#process.stderr}`);
  }
}

export interface Watched {
  app: LabHost;
  watcher: Watcher;
  /** Another one in the same host, with the same state directory. */
  successor(): Promise<Watcher>;
}

/** `where`: on which thread, or in which pid namespace, it runs. */
export async function watched(t: TestContext, where = ''): Promise<Watched> {
  const lab = await Lab.create();
  t.after(() => lab.close());
  const [app, router] = await Promise.all([lab.host('app'), lab.host('router')]);
  await lab.link(app, 'eth0', ['192.168.50.2/24', 'fd50::2/64'], router, 'eth0', ['192.168.50.1/24', 'fd50::1/64']);
  const env = { STATE_DIRECTORY: lab.directory };
  const successor = async (): Promise<Watcher> => {
    const process =
      where === 'pid-namespace'
        ? app.spawn('unshare', ['--pid', '--fork', '--kill-child', '/run/node', app.path(SCRIPT)], { env })
        : app.spawnNode(SCRIPT, [where], { env });
    await process.waitFor(/"done":"start"/);
    return new Watcher(app, process);
  };
  return { app, watcher: await successor(), successor };
}

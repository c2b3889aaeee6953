/**
 * Cgroups that come back: systemd removes a service's cgroup when it stops and makes it anew, without the programs that were
 * attached. The folder above is watched, so a program comes back a moment after its cgroup, and an application that is
 * told by its cgroup alone may have made a socket by then; those told by id have no such moment.
 */
import { type FSWatcher, watch } from 'node:fs';
import { posix } from 'node:path';
import { cgroup2Root } from '../kernel/cgroup.js';

export class CgroupReturns {
  readonly #watchers = new Map<string, FSWatcher>();

  /** `onReturn` runs when the cgroup has been made again, or has gone. `key` names the watch; one that is there already is replaced. */
  watch(key: string, cgroup: string, onReturn: () => void): void {
    this.unwatch(key);
    const root = cgroup2Root();
    if (root === undefined) return;
    const [above, name] = [posix.dirname(cgroup), posix.basename(cgroup)];
    const watcher = watch(`${root}${above}`, { persistent: false }, (_, changed) => {
      if (changed === name) onReturn();
    });
    // The folder above has gone as well: nothing comes back there.
    watcher.on('error', () => this.unwatch(key));
    this.#watchers.set(key, watcher);
  }

  unwatch(key: string): void {
    this.#watchers.get(key)?.close();
    this.#watchers.delete(key);
  }

  close(): void {
    for (const key of [...this.#watchers.keys()]) this.unwatch(key);
  }
}

/** A cgroup of the machine's v2 tree for the processes of one test, gone with it. */
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { cgroup2Root } from '../../../src/kernel/cgroup.js';

export interface TestCgroup {
  /** In the tree, as /proc/PID/cgroup has it. */
  path: string;
  /** In the file system. */
  directory: string;
  add(process: { pid: number }): void;
}

let made = 0;

/** Why none can be made, or no program attached to it; undefined when it can. */
export function whyNoCgroup(): string | undefined {
  if (cgroup2Root() === undefined) return 'needs a mounted cgroup2';
  const isInitial = /^\s*0\s+0\s+4294967295$/m.test(readFileSync('/proc/self/uid_map', 'utf8'));
  return isInitial ? undefined : 'BPF programs can be attached only in the initial user namespace';
}

export function makeCgroup(t: TestContext): TestCgroup {
  const path = `/vpnd-lab-${process.pid}-${made++}`;
  const directory = `${cgroup2Root()}${path}`;
  mkdirSync(directory);
  t.after(() => remove(directory));
  return { path, directory, add: ({ pid }) => writeFileSync(`${directory}/cgroup.procs`, String(pid)) };
}

/** A killed process leaves its cgroup a moment after its parent has heard of its end. */
async function remove(directory: string): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      return rmdirSync(directory);
    } catch (error) {
      if (attempt === 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

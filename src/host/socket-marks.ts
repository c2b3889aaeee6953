/** The BPF programs of a plan's `cgroup:` names: attached when the VPN comes, found by their name and detached when it goes. */
import { attachSocketMark, detachSocketMarks } from '../kernel/bpf.js';
import { resolveCgroup } from '../kernel/cgroup.js';
import { KernelError } from '../model/errors.js';
import { GONE } from './kernel-objects.js';
import { SELECTION_FIELD } from './numbers.js';
import type { CgroupMark } from './plan.js';

export function attachMarks(marks: readonly CgroupMark[], name: string, netnsCookie: bigint): void {
  for (const { cgroup, mark, uid } of marks) {
    const condition = uid === undefined ? { overwrite: false } : { overwrite: true, uid };
    attachSocketMark(resolveCgroup(cgroup), { mark, mask: SELECTION_FIELD, netnsCookie, ...condition }, name);
  }
}

export function detachMarks(marks: readonly CgroupMark[], name: string): void {
  for (const { cgroup } of marks) {
    try {
      detachSocketMarks(resolveCgroup(cgroup), { name: (each) => each === name });
    } catch (error) {
      // A cgroup that was removed took its programs along.
      if (!(error instanceof KernelError && GONE.has(error.errnoName))) throw error;
    }
  }
}

/**
 * Where applications run at this moment: one walk of the cgroup tree. For what exists already; sockets made from now on are
 * recognised by the kernel itself.
 */
import { appIdCandidates } from '../kernel/app-cgroup.js';
import { cgroup2Root, walkCgroups } from '../kernel/cgroup.js';
import { BusinessError } from '../model/errors.js';

export interface AppCgroup {
  id: string;
  path: string;
  cgroupId: bigint;
}

/**
 * The cgroups that show one of the ids, each with all below it; once for every id that it shows. Parents come first, and a cgroup
 * below one of the same id is not named again. Throws BusinessError 2200003 without cgroup v2, KernelError when there are too many.
 */
export async function cgroupsOf(ids: Iterable<string>): Promise<AppCgroup[]> {
  const root = cgroup2Root();
  if (root === undefined) {
    throw new BusinessError(2200003, undefined, 'applications need cgroup v2, which is not mounted on this machine');
  }
  const wanted = new Set(ids);
  const found: AppCgroup[] = [];
  const shown = new Set<string>();
  for await (const { path, name, id: cgroupId } of walkCgroups(root)) {
    for (const id of appIdCandidates(name)) {
      if (!wanted.has(id) || parentsOf(path).some((above) => shown.has(`${above} ${id}`))) continue;
      shown.add(`${path} ${id}`);
      found.push({ id, path, cgroupId });
    }
  }
  return found;
}

/** @example parentsOf('/a/b/c') // ['/a', '/a/b'] */
function parentsOf(path: string): string[] {
  const parents: string[] = [];
  for (let end = path.indexOf('/', 1); end > 0; end = path.indexOf('/', end + 1)) parents.push(path.slice(0, end));
  return parents;
}

/** All ids that cgroups show now; none without cgroup v2. */
export async function runningAppIds(): Promise<Set<string>> {
  const root = cgroup2Root();
  const ids = new Set<string>();
  if (root === undefined) return ids;
  for await (const { name } of walkCgroups(root)) for (const id of appIdCandidates(name)) ids.add(id);
  return ids;
}

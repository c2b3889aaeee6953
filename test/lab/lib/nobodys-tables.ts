/**
 * Where our nft tables are as on kernels before 6.9: whoever is root can change them. A table that stands before ours are made cannot
 * become the service's own, so this is what a test begins with that takes them away.
 */
import { release } from 'node:os';
import type { LabHost } from './host.js';

export async function tablesOfAnybody(host: LabHost): Promise<void> {
  await host.run('nft', ['add table inet vpnd']);
}

/** Whether this kernel has tables that belong to somebody: Linux 6.9. */
export function keepsTables(): boolean {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  return major > 6 || (major === 6 && minor >= 9);
}

/**
 * Where our nft tables are as on kernels before 6.9: whoever is root can change them. A table that stands before ours are made cannot
 * become the service's own, so this is what a test begins with that takes them away.
 */
import type { LabHost } from './host.js';

export async function tablesOfAnybody(host: LabHost): Promise<void> {
  await host.run('nft', ['add table inet vpnd']);
}

/** protect(): calls a second, one at a time and 16 at a time, with nothing else going on and beside another user's setUps. */
import type { LabHost } from '../../test/lab/lib/host.js';
import { startVpnd } from '../../test/lab/lib/vpnd.js';
import { OWNER } from './configs.js';
import { Driver } from './driver.js';
import { median } from './statistics.js';

export interface ProtectCost {
  beside: string;
  width: number;
  perSecond: number;
  p50Ms: number;
  p99Ms: number;
}

const CLIENT = 'dist/bench/lib/api-client.js';
const WIDTHS = [1, 16];

export async function protectCost(host: LabHost, rounds: number, calls: number): Promise<ProtectCost[]> {
  const vpnd = await startVpnd(host);
  const client = (uid: number) => new Driver(host.spawnNode(CLIENT, [], { uid, env: { VPND_SOCKET: vpnd.socket } }));
  const api = client(OWNER);
  const costs: ProtectCost[] = [];
  await api.ask(`protect ${calls} 1`);
  for (const beside of ['nothing', "another user's setUp and destroy"]) {
    const other = beside === 'nothing' ? undefined : client(OWNER + 1);
    // Until it is stopped; nobody waits for it.
    other?.ask('loop 1000000', 2 ** 31 - 1).catch(() => {});
    for (const width of WIDTHS) {
      const results: number[][] = [];
      for (let round = 0; round < rounds; round++) {
        results.push((await api.ask(`protect ${calls} ${width}`)).split(' ').map(Number));
      }
      const of = (column: number) => median(results.map((result) => result[column] ?? Number.NaN));
      costs.push({ beside, width, perSecond: of(0), p50Ms: of(1), p99Ms: of(2) });
    }
    await other?.stop();
  }
  await api.stop();
  await vpnd.stop();
  return costs;
}

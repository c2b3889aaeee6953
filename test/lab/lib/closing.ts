/** Connections that were closed here, and wait for the far end's last word: it may come late, and the kernel answers it. */
import type { LabHost } from './host.js';
import { eventually } from './vpn-lab.js';

/** Words for ss(8). */
export const CLOSING = ['fin-wait-1', 'fin-wait-2', 'closing', 'last-ack'].flatMap((state) => ['state', state]);

/** Returns when there is none any more. */
export async function nothingIsClosing(host: LabHost): Promise<void> {
  await eventually('closed connections', async () => {
    return (await host.run('ss', ['-Htan', ...CLOSING])).stdout === '' || undefined;
  });
}

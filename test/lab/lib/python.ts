/** Which Python a user of the lab can run: the one in the path may be in a folder that only root may enter. */
import type { LabHost } from './host.js';

export async function pythonFor(host: LabHost, uid: number): Promise<string | undefined> {
  for (const python of ['python3', '/usr/bin/python3', '/usr/local/bin/python3']) {
    const { status } = await host.run(python, ['-c', 'import socket'], { uid, check: false });
    if (status === 0) return python;
  }
  return undefined;
}

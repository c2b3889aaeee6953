/** Something that listens where the service should, says hello as it does (unless it is silent), and then lets its callers down. */
import { chmod, mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import type { LabHost } from './host.js';

const PROGRAM = `
  const net = require('node:net'), fs = require('node:fs');
  const [path, behaviour] = process.argv.slice(1);
  net.createServer((peer) => {
    peer.on('error', () => {});
    peer.on('data', (data) => {
      for (const line of String(data).trim().split('\\n')) {
        if (behaviour === 'is silent') continue;
        const { id, method } = JSON.parse(line);
        const answer = (rest) => peer.write(JSON.stringify({ jsonrpc: '2.0', id, ...rest }) + '\\n');
        if (method === 'hello') answer({ result: { protocol: 1, version: '0', isSystem: true } });
        else if (behaviour === 'closes') peer.destroy();
        else answer({ error: { code: -1, message: 'no' } });
      }
    });
  }).listen(path, () => { fs.chmodSync(path, 0o666); console.log('ready'); });
`;

/** `closes`: the connection, instead of an answer. `fails`: an error that is none of the API's. `is silent`: not even hello. */
export async function startFakeService(
  host: LabHost,
  behaviour: 'closes' | 'fails' | 'is silent',
): Promise<{ socket: string }> {
  const directory = await mkdtemp(join(host.directory, 'fake-'));
  await chmod(directory, 0o755);
  const socket = join(directory, 'vpnd.sock');
  const process = host.spawnNode('-e', [PROGRAM, socket, behaviour]);
  await process.waitFor(/^ready$/m);
  return { socket };
}

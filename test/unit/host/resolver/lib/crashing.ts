/**
 * Writes or puts back a resolv.conf and dies by SIGKILL before its Nth change to the file system, that is after the one before:
 *
 *   crashing.js file|mounted write|put-back PATH STATE-DIR N
 *
 * Ends with 0 when it comes to its end before that. The functions that change files are replaced in node itself, so the
 * code under test knows nothing of it.
 */
import { type FileHandle, default as promises } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';

const [kind, action, path = '', stateDir = '', at] = process.argv.slice(2);
const PAGE_BYTES = 4096;
let step = 0;

function count(): void {
  if (step++ === Number(at)) process.kill(process.pid, 'SIGKILL');
}

function dyingAround(target: object, name: string): void {
  const original = Reflect.get(target, name) as (...args: unknown[]) => Promise<unknown>;
  Reflect.set(target, name, async (...args: unknown[]) => {
    count();
    const result = await original.apply(target, args);
    if (name === 'open')
      for (const each of ['writeFile', 'chown', 'chmod', 'truncate']) dyingAround(result as object, each);
    if (name === 'open') dyingInWrite(result as FileHandle);
    return result;
  });
}

/** The kernel notices a SIGKILL between two pages, and nowhere else. */
function dyingInWrite(file: FileHandle): void {
  const original = file.write.bind(file) as (...args: unknown[]) => Promise<{ bytesWritten: number }>;
  Reflect.set(file, 'write', async (bytes: Uint8Array, offset: number, length: number, position: number) => {
    count();
    return original(bytes, offset, Math.min(length, PAGE_BYTES), position);
  });
}

for (const name of ['link', 'rename', 'rm', 'open']) dyingAround(promises, name);
syncBuiltinESMExports();

const { ResolvFile } = await import('../../../../../src/host/resolver/resolv-file.js');
const { MountedResolvFile } = await import('../../../../../src/host/resolver/mounted-resolv-file.js');
const { fileText } = await import('../../../../../src/host/resolver/resolv-conf.js');
const { REQUEST } = await import('./requests.js');

const file = kind === 'mounted' ? new MountedResolvFile(path, stateDir) : new ResolvFile(path);
if (action === 'write') await file.write(fileText(REQUEST, ''));
else await file.putBack();

/**
 * Writes or puts back resolv.confs, each in a place of its own, and stops before its Nth change to the file system there, that is
 * after the one before; then it dies by SIGKILL:
 *
 *   crashing.js file|mounted write|put-back N PATH STATE-DIR [PATH STATE-DIR]...
 *
 * It says in how many places it stopped, and ends with 0 when that is none. The functions that change files are replaced in
 * node itself, so the code under test knows nothing of it.
 */
import { writeSync } from 'node:fs';
import { type FileHandle, default as promises } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';

const [kind, action, at, ...places] = process.argv.slice(2);
const PAGE_BYTES = 4096;
let step = 0;
let stop = () => {};
/** Kept: node complains about a forgotten one. */
const opened: unknown[] = [];

/** Where it stops it never goes on: until the process dies nothing else happens in that place. */
async function count(): Promise<void> {
  if (step++ !== Number(at)) return;
  stop();
  await new Promise<never>(() => {});
}

function dyingAround(target: object, name: string): void {
  const original = Reflect.get(target, name) as (...args: unknown[]) => Promise<unknown>;
  Reflect.set(target, name, async (...args: unknown[]) => {
    await count();
    const result = await original.apply(target, args);
    if (name === 'open')
      for (const each of ['writeFile', 'chown', 'chmod', 'truncate']) dyingAround(result as object, each);
    if (name === 'open') opened.push(dyingInWrite(result as FileHandle));
    return result;
  });
}

/** The kernel notices a SIGKILL between two pages, and nowhere else. */
function dyingInWrite(file: FileHandle): FileHandle {
  const original = file.write.bind(file) as (...args: unknown[]) => Promise<{ bytesWritten: number }>;
  Reflect.set(file, 'write', async (bytes: Uint8Array, offset: number, length: number, position: number) => {
    await count();
    return original(bytes, offset, Math.min(length, PAGE_BYTES), position);
  });
  return file;
}

for (const name of ['link', 'rename', 'rm', 'open']) dyingAround(promises, name);
syncBuiltinESMExports();

const { ResolvFile } = await import('../../../../../src/host/resolver/resolv-file.js');
const { MountedResolvFile } = await import('../../../../../src/host/resolver/mounted-resolv-file.js');
const { fileText } = await import('../../../../../src/host/resolver/resolv-conf.js');
const { REQUEST } = await import('./requests.js');

let stopped = 0;
for (let index = 0; index < places.length; index += 2) {
  const [path = '', stateDir = ''] = places.slice(index);
  const file = kind === 'mounted' ? new MountedResolvFile(path, stateDir) : new ResolvFile(path);
  step = 0;
  const stopping = new Promise<void>((resolve) => {
    stop = () => {
      stopped++;
      resolve();
    };
  });
  await Promise.race([action === 'write' ? file.write(fileText(REQUEST, '')) : file.putBack(), stopping]);
}
writeSync(1, String(stopped));
if (stopped > 0) process.kill(process.pid, 'SIGKILL');

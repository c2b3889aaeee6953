/**
 * Loaded with `--import` beside `--expose-gc`: on SIGUSR2 collects garbage several times and writes what is left to
 * the file that SOAK_MEMORY_FILE names. SIGUSR1 is node's own.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { getHeapCodeStatistics } from 'node:v8';

const file = process.env.SOAK_MEMORY_FILE ?? '';

/** `heapUsed` is without what V8 makes of code that runs often: that is not what is looked for, and grows for a long time. */
export async function measure(): Promise<NodeJS.MemoryUsage> {
  // External memory is let go by finalizers, which run after the collection that found it.
  for (let turn = 0; turn < 6; turn++) {
    globalThis.gc?.();
    await delay(20);
  }
  const { code_and_metadata_size: compiled } = getHeapCodeStatistics();
  const usage = process.memoryUsage();
  return { ...usage, heapUsed: usage.heapUsed - compiled };
}

if (file !== '') {
  process.on('SIGUSR2', async () => {
    writeFileSync(`${file}.new`, JSON.stringify(await measure()));
    renameSync(`${file}.new`, file);
  });
}

/** Bytes of the JavaScript heap that are in use when all garbage is collected. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

export function heapBytes(): number {
  collect();
  return process.memoryUsage().heapUsed;
}

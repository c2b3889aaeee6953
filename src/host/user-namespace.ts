/** The user namespace this process is in (user_namespaces(7)). */
import { readFileSync } from 'node:fs';
import { LAST_UID } from './numbers.js';

/** Its largest uid; /proc/self/uid_map has lines of "first, first outside, count". */
export function lastMappedUid(): number {
  const lines = readFileSync('/proc/self/uid_map', 'latin1').trim().split('\n');
  const ends = lines
    .map((line) => line.trim().split(/\s+/).map(Number))
    .map(([first = 0, , count = 0]) => first + count - 1);
  return Math.min(LAST_UID, Math.max(...ends));
}

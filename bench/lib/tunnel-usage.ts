/** What processes use, of proc(5): all their threads together, those that have ended included where the kernel keeps them. */
import { readdirSync, readFileSync } from 'node:fs';

/** USER_HZ, the same on every architecture that node runs on. */
const TICKS_PER_SECOND = 100;

/** utime + stime. */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  // The second field is a name that may have anything in it; the 14th and 15th are these.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** How often a thread has waited and gone on: a sleeping thread adds one when it is woken and sleeps again. */
export function wakeUps(pid: number): number {
  return readdirSync(`/proc/${pid}/task`)
    .map((thread) => Number(statusOf(`/proc/${pid}/task/${thread}`, 'voluntary_ctxt_switches')))
    .reduce((sum, each) => sum + each, 0);
}

export function residentMegabytes(pid: number): number {
  return Number.parseInt(statusOf(`/proc/${pid}`, 'VmRSS'), 10) / 1024;
}

function statusOf(directory: string, field: string): string {
  return new RegExp(`^${field}:\\s*(.*)$`, 'm').exec(readFileSync(`${directory}/status`, 'latin1'))?.[1] ?? '';
}

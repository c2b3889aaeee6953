/**
 * The few lines that a tunnel's process has to say, on standard error: with a `<n>` priority where a journal reads it, with the
 * time where a file or a terminal does. A file is begun anew when it is full, so that a tunnel that runs for years fills no disk.
 */
import { fstatSync, ftruncateSync, writeSync } from 'node:fs';

const STDERR = 2;
const MAX_FILE_BYTES = 256 * 1024;
/** syslog(3): LOG_NOTICE. */
const PRIORITY = 5;

/** One sentence, without what others chose but in quotes, and never a key. */
export type Note = (sentence: string) => void;

export const note: Note = (sentence) => {
  const stamp = process.env.JOURNAL_STREAM === undefined ? `${new Date().toISOString()} ` : `<${PRIORITY}>`;
  try {
    const log = fstatSync(STDERR);
    if (log.isFile() && log.size > MAX_FILE_BYTES) ftruncateSync(STDERR);
    writeSync(STDERR, `${stamp}${sentence}\n`);
  } catch {
    // Whoever read it is gone, or the disk is full: the tunnel goes on.
  }
};

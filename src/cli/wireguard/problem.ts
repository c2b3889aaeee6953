/**
 * What is wrong with a wg-quick file, as one line: `FILE:LINE: reason`. The reason names the fix, and never holds a key: values
 * of keys are not shown at all, and other values only when nothing in them could be one. Exit codes as of sysexits(3).
 */
import { hasControlCharacter, quote, quoteWhole } from '../../model/quote.js';

/** The content is wrong. */
export const EX_DATAERR = 65;
/** The file is not there, cannot be read, or is no file. */
export const EX_NOINPUT = 66;
/** The content is right, but it cannot be set up: here, now, or at all. */
export const EX_CONFIG = 78;
export type ExitCode = typeof EX_DATAERR | typeof EX_NOINPUT | typeof EX_CONFIG;

/** @example new FileProblem(65, 'a.conf', 3, 'MTU has no value').message // 'a.conf:3: MTU has no value' */
export class FileProblem extends Error {
  override readonly name = 'FileProblem';
  readonly exitCode: ExitCode;
  readonly file: string;
  /** From 1; undefined when it is not about what is in the file. */
  readonly line: number | undefined;
  readonly reason: string;

  constructor(exitCode: ExitCode, file: string, line: number | undefined, reason: string) {
    super(`${place(file, line)}: ${reason}`);
    this.exitCode = exitCode;
    this.file = file;
    this.line = line;
    this.reason = reason;
  }
}

/** What a parser of one value says when it is wrong: the reason goes behind the key's name. Exit code 65 when not given. */
export type Refuse = (reason: string, exitCode?: ExitCode) => never;

/** A line about something that is set up all the same. */
export function warning(file: string, line: number | undefined, text: string): string {
  return `${place(file, line)}: warning: ${text}`;
}

function place(file: string, line: number | undefined): string {
  const name = hasControlCharacter(file) ? quoteWhole(file) : file;
  return line === undefined ? name : `${name}:${line}`;
}

/** A value in a reason. What could be a key, or half of one, is left out: people paste into the wrong line. */
export function shown(value: string): string {
  return /[A-Za-z0-9+/]{24}/.test(value) ? 'a value that may be a key' : quote(value);
}

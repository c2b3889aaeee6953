/**
 * Reads a wg-quick file. It is looked at before it is opened, because opening a device can do something, and again when it is
 * open; a FIFO in its place cannot make anybody wait. What was read is zeroed, as far as this language lets one: it has a key.
 */
import { closeSync, constants, fstatSync, openSync, readSync, type Stats, statSync } from 'node:fs';
import { EX_CONFIG, EX_DATAERR, EX_NOINPUT, FileProblem, warning } from './problem.js';
import type { QuickFile } from './quick-file.js';
import { parseQuickFile, type QuickOptions } from './quick-parse.js';

export const MAX_FILE_BYTES = 1 << 20;
/** In place of a file's path, for messages. */
const STANDARD_INPUT = 'standard input';

/** Throws FileProblem. The warnings are lines about what others may do with the file. */
export function readQuickFile(path: string, options: QuickOptions): { file: QuickFile; warnings: string[] } {
  const { bytes, stats } = readBytes(path);
  let file: QuickFile;
  try {
    file = parseQuickFile(decode(bytes, path), path, options);
  } finally {
    bytes.fill(0);
  }
  checkWriters(file, stats);
  return { file, warnings: accessWarnings(path, stats) };
}

/** The same from standard input, which nobody else can read or change. Commands and SaveConfig are refused: they take a file. */
export async function readQuickStream(
  stream: AsyncIterable<Uint8Array>,
): Promise<{ file: QuickFile; warnings: string[] }> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of stream) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > MAX_FILE_BYTES) {
      throw new FileProblem(EX_DATAERR, STANDARD_INPUT, undefined, 'there is more than 1 MiB; is it the right file?');
    }
  }
  const bytes = Buffer.concat(chunks);
  for (const chunk of chunks) chunk.fill(0);
  try {
    const file = parseQuickFile(decode(bytes, STANDARD_INPUT), STANDARD_INPUT, { allowHooks: false });
    return { file, warnings: [] };
  } finally {
    bytes.fill(0);
  }
}

/** UTF-8, with or without a byte order mark. Bytes that are none become U+FFFD, which only comments may have. */
export function decode(bytes: Uint8Array, path: string): string {
  const [first, second] = bytes;
  if ((first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff)) {
    throw new FileProblem(EX_DATAERR, path, 1, 'the file is UTF-16; save it as UTF-8');
  }
  const nul = bytes.indexOf(0);
  if (nul >= 0) {
    let line = 1;
    for (let at = bytes.indexOf(NEWLINE); at >= 0 && at < nul; at = bytes.indexOf(NEWLINE, at + 1)) line++;
    throw new FileProblem(EX_DATAERR, path, line, 'this line has a NUL byte; the file is no text, or damaged');
  }
  return new TextDecoder().decode(bytes);
}

const NEWLINE = 10;

function readBytes(path: string): { bytes: Buffer; stats: Stats } {
  let fd: number | undefined;
  try {
    checkKind(path, statSync(path));
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    const stats = fstatSync(fd);
    checkKind(path, stats);
    // Whatever its size is said to be: files of /proc have none.
    const room = Buffer.alloc(MAX_FILE_BYTES + 1);
    let length = 0;
    for (let chunk = readSync(fd, room); chunk > 0; chunk = readSync(fd, room, length, room.length - length, null)) {
      length += chunk;
      if (length === room.length) break;
    }
    if (length > MAX_FILE_BYTES) {
      throw new FileProblem(EX_DATAERR, path, undefined, 'the file has more than 1 MiB; is it the right one?');
    }
    return { bytes: room.subarray(0, length), stats };
  } catch (error) {
    if (error instanceof FileProblem) throw error;
    throw new FileProblem(EX_NOINPUT, path, undefined, unreadable((error as NodeJS.ErrnoException).code));
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function checkKind(path: string, stats: Stats): void {
  if (stats.isFile()) return;
  const kind = stats.isDirectory() ? 'folder' : stats.isFIFO() ? 'FIFO' : stats.isSocket() ? 'socket' : 'device';
  throw new FileProblem(EX_NOINPUT, path, undefined, `this is a ${kind}; name a file`);
}

function unreadable(code: string | undefined): string {
  if (code === 'ENOENT' || code === 'ENOTDIR') return 'there is no such file';
  if (code === 'EACCES') return 'you may not read this file; change its owner or its mode';
  return `the file cannot be read (${code ?? 'unknown error'})`;
}

/** Commands are run as the caller: they must come from nobody else but root. */
function checkWriters({ path, interface: { hooks } }: QuickFile, { mode, uid }: Stats): void {
  const [first] = Object.values(hooks).flat();
  if (first === undefined) return;
  const isOthers = uid !== 0 && uid !== process.geteuid?.();
  if (!isOthers && (mode & 0o022) === 0) return;
  const reason = isOthers ? 'the file belongs to somebody else' : `the file's mode ${octal(mode)} lets others write it`;
  throw new FileProblem(EX_CONFIG, path, first.line, `a command is not run, because ${reason}; make it yours alone`);
}

function accessWarnings(path: string, { mode }: Stats): string[] {
  const may = [...(mode & 0o044 ? ['read'] : []), ...(mode & 0o022 ? ['change'] : [])].join(' and ');
  if (may === '') return [];
  return [warning(path, undefined, `its mode ${octal(mode)} lets others ${may} the private key; chmod 600 it`)];
}

function octal(mode: number): string {
  return `0${(mode & 0o777).toString(8)}`;
}

/**
 * What vpnctl prints, so that a reader who goes away (`| head`) costs nobody more than the rest of the text, and a full disk is
 * told in a line. Node would throw either as an uncaught error, with its stack.
 */
import { writeSync } from 'node:fs';

/** sysexits(3): what was to be printed could not be written. */
export const EX_IOERR = 74;
/** sysexits(3): a defect. */
export const EX_SOFTWARE = 70;
/** Nobody reads any more; and what a stream says that has failed before. */
const GONE: readonly (string | undefined)[] = ['EPIPE', 'ERR_STREAM_DESTROYED'];

const pending = new Set<Promise<unknown>>();
let isTextLost = false;

/** To be called before anything is printed. */
export function guardStreams(): void {
  // Whoever writes is told by the write itself.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  process.on('uncaughtException', (error) => {
    complain(defect(error));
    process.exit(EX_SOFTWARE);
  });
}

/** Settles when it is written, or never will be: then with the reason, which has been told if anybody is concerned. */
export function print(text: string): Promise<Error | undefined> {
  const written = new Promise<Error | undefined>((resolve) => {
    process.stdout.write(text, (error: NodeJS.ErrnoException | null | undefined) => {
      if (error && !GONE.includes(error.code)) {
        isTextLost = true;
        complain(`standard output cannot be written: ${error.code ?? error.message}`);
      }
      resolve(error ?? undefined);
    });
  });
  pending.add(written);
  void written.then(() => pending.delete(written));
  return written;
}

/** One line on standard error, at once. */
export function complain(text: string): void {
  try {
    writeSync(2, `vpnctl: ${text}\n`);
  } catch {
    // There is nobody else to tell.
  }
}

/** Ends the process when all is written. Text that was lost makes a failure of what went well otherwise. */
export async function end(exitCode: number): Promise<never> {
  await Promise.all(pending);
  process.exit(isTextLost && exitCode === 0 ? EX_IOERR : exitCode);
}

/** One line for what nobody foresaw, with the place, for whoever has to find it. */
export function defect(error: unknown): string {
  const [, place] = (error instanceof Error && /^\s+at (.*)$/m.exec(error.stack ?? '')) || [];
  const [what] = (error instanceof Error ? `${error.name}: ${error.message}` : String(error)).split('\n');
  return `a defect of vpnctl: ${what}${place === undefined ? '' : `, at ${place}`}; please report this line`;
}

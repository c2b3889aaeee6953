/**
 * The commands of a wg-quick file (PreUp, PostUp, PreDown, PostDown), run as wg-quick does: by the user who called, in a shell,
 * one after the other, `%i` being the interface. Only after --allow-hooks: who can write such a file could otherwise run anything.
 *
 * A command may hold a secret, so it goes to the shell through a pipe, where ps does not show it, and into no message.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import type { Writable } from 'node:stream';

/** wg-quick is a bash script, and its manual's examples use what only bash has. */
const SHELL = existsSync('/bin/bash') ? '/bin/bash' : '/bin/sh';
/** The pipe that node makes is a socket, which a shell cannot open by a name. */
const READ_AND_RUN = 'command=$(cat <&3); exec 3<&-; eval "$command"';

/** Settles when it has ended with 0; rejects with an Error that says how it ended otherwise. Output goes to standard error. */
export async function runHook(command: string, link: string, signal?: AbortSignal): Promise<void> {
  const child = spawn(SHELL, ['-c', READ_AND_RUN, 'vpnctl'], {
    stdio: ['ignore', process.stderr, process.stderr, 'pipe'],
    ...(signal && { signal }),
  });
  const pipe = child.stdio[3] as Writable;
  // A shell that cannot be started reads nothing.
  pipe.on('error', () => {});
  pipe.end(command.replaceAll('%i', () => link));
  const status = await new Promise<number>((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code, by) => resolve(code ?? 128 + (by === null ? 0 : constants.signals[by])));
  });
  if (status !== 0) throw new Error(`ended with ${status}`);
}

/** Which file `vpnctl up FILE|NAME|-` means, and what the VPN is called: by the file, as with wg-quick(8). */
import { statSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, isAbsolute, join } from 'node:path';
import { MAX_VPN_ID_LENGTH } from '../../model/limits.js';
import { hasControlCharacter } from '../../model/quote.js';
import { EX_CONFIG, EX_NOINPUT, FileProblem } from './problem.js';

export interface FoundFile {
  readonly path: string;
  /** See isVpnName(). */
  readonly name: string;
}

export interface Surroundings {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly home: string;
  /** The state of a path: there, not there, or kept from the caller. */
  look(path: string): 'there' | 'missing' | 'forbidden';
}

/** Own files first, then the administrator's, then those of wireguard-tools. */
export function folders({ env, home }: Pick<Surroundings, 'env' | 'home'>): string[] {
  const given = env.XDG_CONFIG_HOME ?? '';
  // The XDG base directory specification: a relative path is invalid and to be ignored.
  const config = isAbsolute(given) ? given : join(home, '.config');
  return [join(config, 'vpn-manager'), '/etc/vpn-manager', '/etc/wireguard'];
}

/** `up -` reads standard input, and this is what its VPN is called. */
export const STANDARD_INPUT: FoundFile = { path: '-', name: 'stdin' };

/**
 * `word` with a "/", or ending in .conf, is a path; anything else is a NAME, looked up as NAME.conf in `folders`. Throws
 * FileProblem: 66 when there is none, 78 when a file's name cannot be a VPN's. A path is not looked at: reading it says more.
 */
export function findFile(word: string, surroundings: Surroundings = machine()): FoundFile {
  if (word === STANDARD_INPUT.path) return STANDARD_INPUT;
  if (word.includes('/') || word.endsWith('.conf')) {
    const name = nameOf(word);
    if (isVpnName(name)) return { path: word, name };
    const rule = `1 to ${MAX_VPN_ID_LENGTH} characters before .conf, and no control characters`;
    throw new FileProblem(
      EX_CONFIG,
      word,
      undefined,
      `the VPN is called by its file, whose name must be ${rule}; rename it`,
    );
  }
  if (!isVpnName(word)) {
    throw new FileProblem(EX_NOINPUT, word, undefined, 'is no name of a VPN; give one, or the path of a file');
  }
  const searched: string[] = [];
  for (const folder of folders(surroundings)) {
    const path = join(folder, `${word}.conf`);
    const state = surroundings.look(path);
    if (state === 'there') return { path, name: word };
    searched.push(state === 'forbidden' ? `${folder} (which you may not search)` : folder);
  }
  throw new FileProblem(EX_NOINPUT, word, undefined, `there is no ${word}.conf in ${searched.join(', ')}`);
}

/** What the VPN of a file is called. @example nameOf('./Büro Zürich.conf') // 'Büro Zürich' */
export function nameOf(path: string): string {
  return basename(path).replace(/\.conf$/, '');
}

/** It is told to the service as the VPN's id, names the log, and is never a link's name: those are vpnd's. */
export function isVpnName(text: string): boolean {
  const isShort = text.length > 0 && text.length <= MAX_VPN_ID_LENGTH;
  return isShort && text !== '.' && text !== '..' && !text.includes('/') && !hasControlCharacter(text);
}

function machine(): Surroundings {
  return { env: process.env, home: homedir(), look };
}

function look(path: string): 'there' | 'missing' | 'forbidden' {
  try {
    statSync(path);
    return 'there';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EACCES' ? 'forbidden' : 'missing';
  }
}

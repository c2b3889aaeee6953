/**
 * `vpnctl wg genkey`, `genpsk` and `pubkey`: output, warnings and exit codes of wg(8), so that scripts work with either. No key
 * is ever an argument, where ps(1) would show it.
 */
import { randomBytes } from 'node:crypto';
import { fstatSync } from 'node:fs';
import { generatePrivateKey, publicKeyOf } from '../../tunnel/wireguard/x25519.js';
import { print } from '../terminal/output.js';
import { parseKey } from './quick-values.js';

export interface KeyStreams {
  readonly input: AsyncIterable<Uint8Array>;
  print(text: string): void;
  complain(text: string): void;
  /** Does the output go to a file that everybody may read, write or run? */
  readonly isWorldAccessible: boolean;
}

export const KEY_COMMANDS = ['genkey', 'genpsk', 'pubkey'] as const;
const KEY_CHARACTERS = 44;
/** Blanks behind a key are skipped, as many as there are; nobody has this many. */
const MAX_INPUT_BYTES = 4096;

/** The exit code: 0, or 1 with a line that says why. @param words behind `vpnctl wg` */
export async function keyCommand(words: readonly string[], streams: KeyStreams = processStreams()): Promise<number> {
  const [command, ...rest] = words;
  if (!KEY_COMMANDS.some((each) => each === command) || rest.length > 0) {
    streams.complain(`usage: vpnctl wg ${KEY_COMMANDS.join('|')}`);
    return 1;
  }
  if (command === 'pubkey') return printPublicKey(streams);
  if (streams.isWorldAccessible) {
    streams.complain('Warning: writing to world accessible file.\nConsider setting the umask to 077 and trying again.');
  }
  printKey(command === 'genkey' ? generatePrivateKey() : randomBytes(32), streams);
  return 0;
}

async function printPublicKey(streams: KeyStreams): Promise<number> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of streams.input) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > MAX_INPUT_BYTES) break;
  }
  const text = Buffer.concat(chunks).toString('latin1');
  for (const chunk of chunks) chunk.fill(0);
  const key = privateKey(text.slice(0, KEY_CHARACTERS));
  if (key === undefined || !/^[\s\0]*$/.test(text.slice(KEY_CHARACTERS))) {
    const problem = key ? 'Trailing characters found after key' : 'Key is not the correct length or format';
    streams.complain(`vpnctl: ${problem}`);
    return 1;
  }
  printKey(publicKeyOf(key), streams);
  key.fill(0);
  return 0;
}

function printKey(key: Uint8Array, { print }: KeyStreams): void {
  print(`${Buffer.from(key).toString('base64')}\n`);
  key.fill(0);
}

function privateKey(text: string): Uint8Array | undefined {
  try {
    return parseKey(text, () => {
      throw new RangeError('no key');
    });
  } catch {
    return undefined;
  }
}

function processStreams(): KeyStreams {
  return {
    input: process.stdin,
    print: (text) => void print(text),
    complain: (text) => void process.stderr.write(`${text}\n`),
    isWorldAccessible: isWorldAccessible(1),
  };
}

function isWorldAccessible(fd: number): boolean {
  try {
    const stats = fstatSync(fd);
    return stats.isFile() && (stats.mode & 0o007) !== 0;
  } catch {
    return false;
  }
}

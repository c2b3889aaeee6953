/** Keys, and small files around what a test is about. The keys are Alice's and Bob's of RFC 7748, section 6.1. */
import { FileProblem } from '../../../../../src/cli/wireguard/problem.js';
import type { QuickFile } from '../../../../../src/cli/wireguard/quick-file.js';
import { parseQuickFile } from '../../../../../src/cli/wireguard/quick-parse.js';

const base64 = (hex: string): string => Buffer.from(hex, 'hex').toString('base64');

export const ALICE_PRIVATE = base64('77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a');
export const ALICE = base64('8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a');
export const BOB = base64('de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f');
/** Any 32 bytes that are no low-order point will do for a third peer. */
export const CAROL = base64('07'.repeat(32));

export interface Sample {
  /** Lines behind PrivateKey. Default: one IPv4 address. */
  own?: string[];
  /** Lines behind the PublicKey of a peer; none: no peer. */
  peer?: string[];
}

/** Line 1 [Interface], 2 PrivateKey, 3.. `own`, then [Peer], PublicKey, `peer`. */
export function sampleText({ own = ['Address = 10.0.0.2/32'], peer }: Sample = {}): string {
  const peers = peer ? ['[Peer]', `PublicKey = ${BOB}`, ...peer] : [];
  return ['[Interface]', `PrivateKey = ${ALICE_PRIVATE}`, ...own, ...peers, ''].join('\n');
}

export function sample(parts: Sample = {}): QuickFile {
  return parse(sampleText(parts));
}

export function parse(text: string, allowHooks = false): QuickFile {
  return parseQuickFile(text, 'office.conf', { allowHooks });
}

/** What is wrong, as the exit code and the line that is printed; anything else that is thrown goes on. */
export function problemOf(work: () => unknown): { code: number; said: string } | undefined {
  try {
    work();
    return undefined;
  } catch (error) {
    if (!(error instanceof FileProblem)) throw error;
    return { code: error.exitCode, said: error.message };
  }
}

/**
 * The policy file on disk: read at start and on SIGHUP, and believed only when nobody but root or the service's own user
 * can write it.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync, readFileSync } from 'node:fs';
import { DEFAULT_POLICY_FILE, defaultPolicy, type NameLookup, type Policy, parsePolicy } from './policy.js';
import { PolicyError } from './policy-json.js';

const MAX_FILE_BYTES = 1 << 20;

/**
 * The policy in `file`. That nothing is at the default path means the default policy; a file that was asked for must
 * be there. Throws PolicyError for a file that cannot be read, can be written by others, or says something wrong.
 */
export function loadPolicy(file: string | undefined, names: NameLookup): Policy {
  const path = file ?? DEFAULT_POLICY_FILE;
  if (path === DEFAULT_POLICY_FILE && isAbsent(path)) return defaultPolicy(names, path);
  return parsePolicy(readTrusted(path), path, names);
}

/** A symbolic link that leads nowhere is there: somebody meant a policy. */
function isAbsent(path: string): boolean {
  try {
    lstatSync(path);
    return false;
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return true;
    throw new PolicyError(path, undefined, `cannot be read: ${errorCode(error)}`);
  }
}

function readTrusted(path: string): string {
  const fd = open(path);
  try {
    const { mode, uid, size } = fstatSync(fd);
    if ((mode & constants.S_IFMT) !== constants.S_IFREG)
      throw new PolicyError(path, undefined, 'is not a regular file');
    if ((mode & 0o022) !== 0) {
      throw new PolicyError(path, undefined, 'can be written by its group or by others; chmod go-w it');
    }
    if (uid !== 0 && uid !== process.geteuid?.()) {
      throw new PolicyError(path, undefined, `belongs to uid ${uid}; it must be root's`);
    }
    if (size > MAX_FILE_BYTES) throw new PolicyError(path, undefined, `is longer than ${MAX_FILE_BYTES} bytes`);
    return new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(fd));
  } catch (error) {
    if (error instanceof PolicyError) throw error;
    throw new PolicyError(
      path,
      undefined,
      error instanceof TypeError ? 'is not UTF-8' : `cannot be read: ${errorCode(error)}`,
    );
  } finally {
    closeSync(fd);
  }
}

/** O_NONBLOCK: a FIFO in the file's place must not stop the service. */
function open(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw new PolicyError(path, undefined, `cannot be read: ${errorCode(error)}`);
  }
}

function errorCode(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? String(error);
}

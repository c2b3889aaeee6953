/**
 * resolvconf(8), both of them: openresolv, which takes `-m` (metric) and `-x` (exclusive), and Debian's, which reads no further
 * than the record's name and orders records by it (`tun*` comes first). The one record has a fixed name, so that the
 * successor of a dead service can take it back without a memory.
 *
 * The only program that the service runs: from a closed list of paths, owned by root, without a shell, in a bounded time.
 */
import { execFile } from 'node:child_process';
import { realpath, stat } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { isAbsent } from '../../kernel/absence.js';
import { quote } from '../../model/quote.js';
import type { BackEnd, ResolverRequest } from './request.js';
import { recordText } from './resolv-conf.js';

const PROGRAMS = ['/usr/sbin/resolvconf', '/sbin/resolvconf', '/usr/bin/resolvconf'];
const RECORD = 'tun.vpnd';
/** Where both keep what they were given. */
export const RECORDS = '/run/resolvconf';
/** Subscribers restart name servers, and openresolv waits up to 10 s for its lock. */
const TIMEOUT_MS = 15_000;
const ENVIRONMENT = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' };

export class Resolvconf implements BackEnd {
  readonly kind = 'resolvconf';

  /** resolvconf does nothing, and says nothing, when the record is there already. */
  async apply(request: ResolverRequest): Promise<boolean> {
    const exclusive = request.exclusive && request.servers.length > 0 ? ['-x'] : [];
    await run(await program(), ['-a', RECORD, '-m', '0', ...exclusive], recordText(request));
    return false;
  }

  async restore(): Promise<void> {
    const path = await findResolvconf();
    if (path !== undefined) await run(path, ['-d', RECORD, '-f'], '');
  }
}

/** The path of a resolvconf that may be run; undefined when there is none. resolvectl under that name is none. */
export async function findResolvconf(programs: readonly string[] = PROGRAMS): Promise<string | undefined> {
  for (const path of programs) {
    const real = await realpath(path).catch((error) => {
      // A link that leads to itself is no program either.
      if (!isAbsent(error, ['ELOOP'])) throw error;
      return undefined;
    });
    if (real !== undefined && basename(real) !== 'resolvectl' && (await isTrustworthy(real))) return real;
  }
  return undefined;
}

async function program(): Promise<string> {
  const path = await findResolvconf();
  if (path === undefined) throw new Error('resolvconf is not there any more');
  return path;
}

/** Nobody but root can have put it there, nor can put another one in its place. */
async function isTrustworthy(path: string): Promise<boolean> {
  const owner = (await stat('/')).uid; // in a user namespace the machine's root has no number of its own
  for (let each = path; ; each = dirname(each)) {
    const { uid, mode } = await stat(each);
    if ((uid !== 0 && uid !== owner) || (mode & 0o022) !== 0) return false;
    if (each === path && (mode & 0o111) === 0) return false;
    if (each === '/') return true;
  }
}

function run(path: string, args: readonly string[], input: string): Promise<void> {
  const options = {
    env: ENVIRONMENT,
    cwd: '/',
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
    maxBuffer: 65_536,
  } as const;
  return new Promise((resolve, reject) => {
    const child = execFile(path, args, options, (error, _, stderr) => {
      if (!error) return resolve();
      const how = error.killed ? `not done within ${TIMEOUT_MS} ms` : `status ${error.code}`;
      reject(new Error(`${path} ${args.join(' ')}: ${how}, ${quote(stderr.trim())}`));
    });
    // It may end without reading.
    child.stdin?.on('error', () => {});
    child.stdin?.end(input);
  });
}

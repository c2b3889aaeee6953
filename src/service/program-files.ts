/**
 * Whether somebody else could change what this process runs as root: node, this package and what it imports, file by file, and
 * every folder on the way, since who may write a folder may put another file there. It is a warning, not a lock: such a person
 * can change this check as well.
 */
import { lstatSync, readdirSync, readFileSync, realpathSync, type Stats } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { unlessAbsent } from '../kernel/absence.js';

/** The folder with package.json. */
const PACKAGE = fileURLToPath(new URL('../../..', import.meta.url)).replace(/\/$/, '');
/** Most files of a package; without them the check takes half the time. */
const NEVER_RUN = /\.(map|ts|md)$/;
const OTHERS_WRITE = 0o002;
const GROUP_WRITES = 0o020;
const STICKY = 0o1000;

export interface ChangeableFile {
  path: string;
  /** Who, in words. */
  by: string;
}

/** The first that is found. Undefined as well in a user namespace, whose root is not the machine's. */
export function changeableByOthers(): ChangeableFile | undefined {
  if (!/^\s*0\s+0\s+4294967295$/m.test(readFileSync('/proc/self/uid_map', 'latin1'))) return undefined;
  const trusted = new Set([0, process.geteuid?.() ?? 0]);
  // As it was called, too: a link to these files may lie in a folder of somebody else's.
  const called = process.argv[1] === undefined ? [] : [process.argv[1]];
  const code = ['dist/src', 'package.json'].map((file) => join(PACKAGE, file));
  return firstChangeable([process.execPath, ...called, ...code, ...dependencyFolders(PACKAGE)], trusted);
}

/** `paths`: files, and folders with all that is in them. `trusted`: uids who may change them. */
export function firstChangeable(paths: readonly string[], trusted: ReadonlySet<number>): ChangeableFile | undefined {
  const seen = new Set<string>();
  const look = (path: string): ChangeableFile | undefined => {
    if (seen.has(path)) return undefined;
    seen.add(path);
    const stats = unlessAbsent('lstat', path, () => lstatSync(path));
    const by = stats && whoElse(stats, trusted);
    return by === undefined ? undefined : { path, by };
  };
  for (const path of paths) {
    for (const way of new Set([resolve(path), realpathSync(path)])) {
      for (const each of [...foldersOf(way), way, ...contents(way)]) {
        const found = look(each);
        if (found) return found;
      }
    }
  }
  return undefined;
}

/** From the root down. */
function foldersOf(path: string): string[] {
  const above = dirname(path);
  return above === path ? [] : [...foldersOf(above), above];
}

function contents(path: string): string[] {
  if (!lstatSync(path).isDirectory()) return [];
  const names = readdirSync(path, { recursive: true, encoding: 'utf8' });
  return names.filter((name) => !NEVER_RUN.test(name)).map((name) => join(path, name));
}

function whoElse(stats: Stats, trusted: ReadonlySet<number>): string | undefined {
  if (!trusted.has(stats.uid)) return `uid ${stats.uid}, its owner`;
  // A link's mode means nothing. In a folder with the sticky bit nobody can replace what is another's.
  if (stats.isSymbolicLink() || (stats.isDirectory() && (stats.mode & STICKY) !== 0)) return undefined;
  if ((stats.mode & OTHERS_WRITE) !== 0) return 'everybody';
  return (stats.mode & GROUP_WRITES) !== 0 && stats.gid !== 0 ? `group ${stats.gid}` : undefined;
}

interface Manifest {
  dependencies?: Record<string, string>;
  optionalDependencies?: Record<string, string>;
}

/** Of a package's dependencies and theirs, those that are installed, where node finds them. */
function dependencyFolders(folder: string, found = new Set<string>()): Set<string> {
  const { dependencies, optionalDependencies } = JSON.parse(
    readFileSync(join(folder, 'package.json'), 'utf8'),
  ) as Manifest;
  for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
    const candidates = [...foldersOf(folder), folder].reverse().map((each) => join(each, 'node_modules', name));
    const at = candidates.find((each) => unlessAbsent('lstat', each, () => lstatSync(join(each, 'package.json'))));
    if (at === undefined || found.has(at)) continue;
    found.add(at);
    dependencyFolders(at, found);
  }
  return found;
}

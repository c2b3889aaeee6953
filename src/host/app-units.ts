/**
 * systemd units as applications: from a unit's name to the name that its cgroup has. systemd.unit(5) "Unit File Load Path". Of
 * unit files only names and symbolic links are looked at. Directories of users' homes are not (app-installed.ts says why).
 */
import { lstatSync, readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { unlessAbsent } from '../kernel/absence.js';

/** Where units of the system manager and of users' managers are, the one that wins first. */
export const UNIT_PATHS: { readonly system: readonly string[]; readonly user: readonly string[] } = {
  system: [
    '/etc/systemd/system',
    '/run/systemd/system',
    '/run/systemd/transient',
    '/run/systemd/generator',
    '/usr/local/lib/systemd/system',
    '/usr/lib/systemd/system',
    '/lib/systemd/system',
    '/run/systemd/generator.late',
  ],
  user: [
    '/etc/systemd/user',
    '/run/systemd/user',
    '/usr/local/share/systemd/user',
    '/usr/share/systemd/user',
    '/usr/local/lib/systemd/user',
    '/usr/lib/systemd/user',
  ],
};

/** No file can be called so; links that lead in a circle lead nowhere. */
export const NEVER_THERE: readonly string[] = ['ENAMETOOLONG', 'ELOOP'];

/** An alias of an alias of an alias ends somewhere. */
const MAX_ALIASES = 8;

/**
 * What the service is called in the cgroup tree, when there is a unit file for it: 'ssh.service' for the alias 'sshd.service',
 * the template `getty@.service` for any of its instances. Undefined when there is none, or it is masked. Throws KernelError when
 * that cannot be told.
 */
export function cgroupNameOfService(unit: string, directories: readonly string[]): string | undefined {
  let name = unit;
  for (let steps = 0; steps < MAX_ALIASES; steps++) {
    const file = find(name, directories);
    if (file === undefined) return steps === 0 ? undefined : escapeCgroupName(name);
    const link = readlink(file);
    if (link === '/dev/null') return undefined;
    const next = link === undefined ? name : aliasOf(name, basename(link));
    if (next === name) return escapeCgroupName(name);
    name = next;
  }
  return undefined;
}

/** The unit's own file, else its template's. */
function find(unit: string, directories: readonly string[]): string | undefined {
  const template = unit.replace(/@.*(?=\.service$)/, '@');
  for (const name of new Set([unit, template])) {
    const directory = directories.find((each) => exists(`${each}/${name}`));
    if (directory !== undefined) return `${directory}/${name}`;
  }
  return undefined;
}

/** Where a link leads: a file elsewhere that is called the same (systemctl link, NixOS) is no alias; a template keeps the instance. */
function aliasOf(unit: string, target: string): string {
  const instance = /@(.*)\.service$/.exec(unit)?.[1] ?? '';
  return target.replace(/@\.service$/, () => `@${instance}.service`);
}

/** systemd puts '_' before a name that the kernel has a file of its own for, or that begins with '_'. */
function escapeCgroupName(unit: string): string {
  return /^(_|cgroup\.|(cpu|cpuacct|cpuset|io|blkio|memory|devices|pids)\.)/.test(unit) ? `_${unit}` : unit;
}

function exists(path: string): boolean {
  return unlessAbsent('lstat', path, () => lstatSync(path), NEVER_THERE) !== undefined;
}

/** Undefined for what is no link. */
function readlink(path: string): string | undefined {
  return unlessAbsent('readlink', path, () => readlinkSync(path), [...NEVER_THERE, 'EINVAL']);
}

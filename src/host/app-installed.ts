/**
 * Is an application of this name installed, and under which ids does it run? Desktop entries (Desktop Entry Specification, "Desktop
 * File ID"), flatpaks, snaps and systemd units, all of the system: directories that only root writes.
 *
 * Homes are left out. Reading them with root's rights from the thread that serves everybody means waiting for whatever a user has
 * mounted there, and file systems of users may never answer. What a user installed for himself is known while it runs.
 */
import { closeSync, openSync, readlinkSync, readSync, statSync } from 'node:fs';
import { attempt, unlessAbsent } from '../kernel/absence.js';
import { fileNameOf, spellings } from './app-ids.js';
import { cgroupNameOfService, NEVER_THERE, UNIT_PATHS } from './app-units.js';

export interface AppRoots {
  /** Directories of desktop entries. */
  desktop: readonly string[];
  /** Flatpak installations: app/ID, exports/share/applications. */
  flatpak: readonly string[];
  /** Where snaps are mounted: PKG/current, bin/PKG[.APP]. */
  snap: readonly string[];
  /** Desktop entries that snapd writes. */
  snapDesktop: string;
  units: { readonly system: readonly string[]; readonly user: readonly string[] };
}

export const APP_ROOTS: AppRoots = {
  desktop: ['/usr/local/share/applications', '/usr/share/applications'],
  flatpak: ['/var/lib/flatpak'],
  snap: ['/snap', '/var/lib/snapd/snap'],
  snapDesktop: '/var/lib/snapd/desktop/applications',
  units: UNIT_PATHS,
};

const DESKTOP = '.desktop';
const SERVICE = '.service';
/** snapd's naming.ValidateInstance. */
const SNAP = /^[a-z0-9](?:-?[a-z0-9])*(?:_[a-z0-9]{1,10})?$/;
/** A name of many '-' asks for as many subfolders as exist; nobody has so many. */
const MAX_LOOKUPS = 1000;
const MAX_ENTRY_BYTES = 256 * 1024;

/**
 * The ids, in every spelling, by which cgroups show the application; none when nothing of that name is installed. Throws KernelError
 * when that cannot be told.
 */
export function installedAppIds(name: string, roots: AppRoots = APP_ROOTS): string[] {
  const ids = [...desktopIds(name, roots)];
  // `org.telegram.desktop` is the file org.telegram.desktop.desktop; `firefox.desktop` is the entry that is `firefox`, too.
  if (name.endsWith(DESKTOP)) ids.push(...desktopIds(name.slice(0, -DESKTOP.length), roots));
  ids.push(...flatpakIds(name, roots), ...snapIds(name, roots), ...unitIds(name, roots));
  return [...new Set(ids.flatMap(spellings))];
}

function desktopIds(id: string, roots: AppRoots): string[] {
  const fileName = fileNameOf(id);
  if (fileName === undefined) return [];
  const ids: string[] = [];
  if (roots.desktop.some((root) => findEntry(root, fileName) !== undefined)) ids.push(id);
  for (const root of roots.flatpak) {
    const entry = findEntry(`${root}/exports/share/applications`, fileName);
    if (entry === undefined) continue;
    // exports/share/applications/ID.writer.desktop -> ../../../app/ID/current/active/export/...: it runs as ID.
    const flatpak = /(?:^|\/)app\/([^/]+)\//.exec(readlink(entry))?.[1];
    ids.push(id, ...(flatpak === undefined ? [] : [flatpak]));
  }
  const entry = findEntry(roots.snapDesktop, fileName);
  if (entry !== undefined) {
    const snap = /^\s*X-SnapInstanceName=(\S+)\s*$/m.exec(head(entry))?.[1] ?? fileName.split('_', 1)[0] ?? '';
    ids.push(id, ...(SNAP.test(snap) ? [`snap.${snap}`] : []));
  }
  return ids;
}

/** The entry's file: `kde-foo` may also be kde/foo.desktop. */
function findEntry(root: string, id: string): string | undefined {
  const open = [{ directory: root, rest: id }];
  for (let lookups = 0; lookups < MAX_LOOKUPS; lookups++) {
    const next = open.pop();
    if (next === undefined) return undefined;
    const { directory, rest } = next;
    if (kindOf(`${directory}/${rest}${DESKTOP}`) === 'file') return `${directory}/${rest}${DESKTOP}`;
    for (let dash = rest.indexOf('-', 1); dash > 0 && dash < rest.length - 1; dash = rest.indexOf('-', dash + 1)) {
      const subfolder = rest.slice(0, dash);
      lookups++;
      if (subfolder !== '.' && kindOf(`${directory}/${subfolder}`) === 'directory') {
        open.push({ directory: `${directory}/${subfolder}`, rest: rest.slice(dash + 1) });
      }
    }
  }
  return undefined;
}

function flatpakIds(id: string, { flatpak }: AppRoots): string[] {
  const fileName = fileNameOf(id);
  return fileName !== undefined && flatpak.some((root) => kindOf(`${root}/app/${fileName}`) === 'directory')
    ? [id]
    : [];
}

/** `PKG` and `snap.PKG` are all programs of a package, `snap.PKG.APP` is one. Its services are units. */
function snapIds(id: string, { snap }: AppRoots): string[] {
  const [first = '', second, ...more] = id.split('.');
  if (first === 'snap' && second !== undefined && SNAP.test(second) && more.length <= 1) {
    const command = more[0] === undefined || more[0] === second ? second : `${second}.${more[0]}`;
    const isThere = (root: string) =>
      more[0] === undefined || kindOf(`${root}/bin/${command}`, 'link itself') !== undefined;
    return snap.some((root) => isSnap(root, second) && isThere(root)) ? [id] : [];
  }
  return SNAP.test(id) && snap.some((root) => isSnap(root, id)) ? [id] : [];
}

function isSnap(root: string, instance: string): boolean {
  return kindOf(`${root}/${instance}/current`, 'link itself') !== undefined;
}

/** With the suffix it is the unit; without, everything that is called so. `getty@` is every instance of the template. */
function unitIds(id: string, { units }: AppRoots): string[] {
  const isUnit = id.endsWith(SERVICE);
  const unit = isUnit ? id : `${id}${SERVICE}`;
  return [units.system, units.user].flatMap((directories) => {
    const name = cgroupNameOfService(unit, directories);
    if (name === undefined) return [];
    const [prefix = '', instance] = name.slice(0, -SERVICE.length).split('@', 2);
    if (instance === '') return [prefix];
    return isUnit || instance !== undefined ? [name] : [prefix];
  });
}

/** Follows links, but for 'link itself'; opens nothing, so that a FIFO is no trap. */
function kindOf(
  path: string,
  links: 'followed' | 'link itself' = 'followed',
): 'file' | 'directory' | 'link' | undefined {
  if (links === 'link itself' && readlink(path) !== '') return 'link';
  const stats = unlessAbsent('stat', path, () => statSync(path), NEVER_THERE);
  return stats?.isFile() ? 'file' : stats?.isDirectory() ? 'directory' : undefined;
}

/** Empty for what is no link. */
function readlink(path: string): string {
  return unlessAbsent('readlink', path, () => readlinkSync(path), [...NEVER_THERE, 'EINVAL']) ?? '';
}

function head(file: string): string {
  const buffer = Buffer.alloc(MAX_ENTRY_BYTES);
  const fd = attempt('open', file, () => openSync(file, 'r'));
  try {
    return buffer.toString(
      'utf8',
      0,
      attempt('read', file, () => readSync(fd, buffer, 0, buffer.length, 0)),
    );
  } finally {
    closeSync(fd);
  }
}

/**
 * Which application ids the name of a cgroup stands for, as desktops and package systems name theirs: systemd's
 * "Desktop Environment Integration", flatpak, snapd, dbus-broker. Pure. The same grammar runs in the kernel (bpf-app-marks.ts),
 * where sockets are created; a lab test holds the two together. It knows no processes and unescapes nothing.
 */

/** Longer ids match nothing: a key of the kernel's map is 128 bytes with the uid. */
export const MAX_APP_ID_BYTES = 124;

/** As long as a name in cgroupfs can be. */
const MAX_NAME_BYTES = 255;

const SNAP_UUID_TAIL = /-[^.]{8}(-[^.]{4}){3}-[^.]{12}$/;

/**
 * The ids that the last component of a cgroup's path matches, without repetitions, in the order in which they are looked up;
 * mostly none. They are parts of the name as it stands: an id with '-' is `\x2d` inside a systemd name (but not in those of
 * old flatpaks), and whoever compares has to ask for both spellings. Bytes that are not UTF-8 match nothing.
 *
 *   name                                    ids
 *   app[-LAUNCHER]-ID-RANDOM.scope          ID          also app-ID.scope
 *   app[-LAUNCHER]-ID[@RANDOM].service      ID          up to the first '@', behind the last '-'
 *   app[-LAUNCHER]-ID[-RANDOM].slice        ID          app-A-B.slice may be either: A and B
 *   flatpak-ID-RANDOM.scope                 ID          may contain '-'
 *   gnome-launched-ID-RANDOM.scope          ID          may contain '-'
 *   dbus-:1.2-ID[@RANDOM].service           ID
 *   snap.PKG.APP[-UUID].scope               snap.PKG.APP, snap.PKG, PKG
 *   snap.PKG.APP[.MORE].scope, .service     snap.PKG.APP, snap.PKG, PKG
 *   ID[@INSTANCE].service                   ID, and the whole name; besides what stands above
 *
 * An id that ends in `.desktop` also counts without it (`org.telegram.desktop` is an id, `firefox.desktop` a file's name).
 *
 * @example appIdCandidates('app-gnome-org.gnome.Maps-4711.scope') // ['org.gnome.Maps']
 */
export function appIdCandidates(name: string): string[] {
  // The kernel compares bytes, so one character here is one byte; every separator is ASCII and cuts none in two.
  const bytes = Buffer.from(name).toString('latin1');
  const [, stem, kind] = /^(.+)\.(scope|service|slice)$/s.exec(bytes) ?? [];
  if (stem === undefined || bytes.length > MAX_NAME_BYTES) return [];
  const unit = kind === 'service' ? (stem.split('@', 1)[0] ?? '') : stem;
  const parts = unit.startsWith('snap.') && kind !== 'slice' ? snapIds(unit) : unitIds(unit, kind as Kind);
  if (kind === 'service') parts.push(unit, bytes);
  const ids = parts.flatMap((id) => (id.endsWith('.desktop') ? [id, id.slice(0, -'.desktop'.length)] : [id]));
  const possible = [...new Set(ids)].filter((id) => id !== '' && id.length <= MAX_APP_ID_BYTES);
  return possible.map((id) => Buffer.from(id, 'latin1').toString());
}

type Kind = 'scope' | 'service' | 'slice';

function unitIds(unit: string, kind: Kind): string[] {
  const last = unit.lastIndexOf('-');
  if (unit.startsWith('app-')) {
    // Two components: there is neither launcher nor random part.
    if (kind === 'service' || last === 3) return [unit.slice(last + 1)];
    const previous = unit.lastIndexOf('-', last - 1);
    const id = unit.slice(previous + 1, last);
    return kind === 'slice' && previous === 3 ? [id, unit.slice(last + 1)] : [id];
  }
  if (kind === 'scope') {
    for (const prefix of ['flatpak-', 'gnome-launched-']) {
      if (unit.startsWith(prefix) && last > prefix.length) return [unit.slice(prefix.length, last)];
    }
  }
  if (kind === 'service' && unit.startsWith('dbus-') && last > 4) return [unit.slice(last + 1)];
  return [];
}

function snapIds(unit: string): string[] {
  const packageEnd = unit.indexOf('.', 'snap.'.length);
  if (packageEnd < 0) return [];
  const dot = unit.indexOf('.', packageEnd + 1);
  const app = dot < 0 ? unit.replace(SNAP_UUID_TAIL, '') : unit.slice(0, dot);
  return [app, unit.slice(0, packageEnd), unit.slice('snap.'.length, packageEnd)];
}

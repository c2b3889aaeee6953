/**
 * Application ids as they come in names, and as cgroups carry them: kernel/app-cgroup.ts has the shapes. Pure: whether such an
 * application exists is app-installed.ts, where it runs app-scan.ts.
 *
 * systemd.unit(5) escapes what a unit's name cannot have: '-' becomes `\x2d`. Desktops escape the id inside `app-...` (GNOME, KDE,
 * flatpak since 1.9, uwsm); systemd's own units, snapd, `gnome-launched-...` and older flatpaks do not. So an id has two
 * spellings, and both are asked for.
 */
import { MAX_APP_ID_BYTES } from '../kernel/app-cgroup.js';
import { hasControlCharacter } from '../model/quote.js';

/** As long as the name of a file or a cgroup can be. */
const MAX_LENGTH = 255;
/** Names of desktop entries, D-Bus names, units and snaps; what else a file's name has comes escaped: `Half\x2dLife\x202`. */
const GRAMMAR = /^(?:[A-Za-z0-9_]|\\x[0-9a-f]{2})(?:[A-Za-z0-9._:@+-]|\\x[0-9a-f]{2})*$/;

/** Why the text can be no application id, without repeating it; undefined when it can. */
export function whyNoAppId(text: string): string | undefined {
  if (text.length > MAX_LENGTH) return `has ${text.length} characters; an application id has at most ${MAX_LENGTH}`;
  if (!GRAMMAR.test(text) || fileNameOf(text) === undefined) {
    return 'is no application id: letters, digits and . _ - : @ + only, all else as systemd-escape writes it (\\x20)';
  }
  if (spellings(text).length > 0) return undefined;
  return `is longer than the ${MAX_APP_ID_BYTES} bytes that an application id may have when '-' counts four`;
}

/** What the id is called in the file system; undefined when nothing can be called so. */
export function fileNameOf(id: string): string | undefined {
  const bytes = id.replace(/\\x([0-9a-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  const name = Buffer.from(bytes, 'latin1').toString('utf8');
  const isName = !name.includes('/') && !name.includes('..') && !name.startsWith('.') && !name.includes('\ufffd');
  return isName && !hasControlCharacter(name) ? name : undefined;
}

/** As `systemd-escape` does it; of an id that is escaped already only what is left. */
export function escapeId(id: string): string {
  return id.replace(/\\(?!x[0-9a-f]{2})|[^A-Za-z0-9:_.\\]/g, (character) =>
    [...Buffer.from(character)].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join(''),
  );
}

/** The id as cgroups may carry it, escaped and not, without what is too long to be found there. */
export function spellings(id: string): string[] {
  return [...new Set([escapeId(id), id])].filter((each) => Buffer.byteLength(each) <= MAX_APP_ID_BYTES);
}

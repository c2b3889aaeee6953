/**
 * The lines of a wg-quick file, as wg-quick(8) and wg(8) read them: `#` begins a comment wherever it stands, names of sections
 * and keys are the same in any case, blanks around both sides of `=` do not count, nor anywhere in what wg(8) reads, lines may end
 * with CR LF, and a key without a value is as if it were not there. Other than there, a key that takes one value cannot be given
 * twice: one of the two would silently be ignored.
 */
import { EX_CONFIG, EX_DATAERR, FileProblem, type Refuse } from './problem.js';
import type { At } from './quick-file.js';

export const INTERFACE_KEYS = [
  'PrivateKey',
  'ListenPort',
  'FwMark',
  'Address',
  'DNS',
  'MTU',
  'Table',
  'PreUp',
  'PostUp',
  'PreDown',
  'PostDown',
  'SaveConfig',
] as const;
export const PEER_KEYS = ['PublicKey', 'PresharedKey', 'AllowedIPs', 'Endpoint', 'PersistentKeepalive'] as const;
export type Key = (typeof INTERFACE_KEYS)[number] | (typeof PEER_KEYS)[number];

type Kind = 'Interface' | 'Peer';
const KEYS: Readonly<Record<Kind, readonly Key[]>> = { Interface: INTERFACE_KEYS, Peer: PEER_KEYS };
/** wg(8) takes all blanks out of its lines before it reads them; the others are wg-quick's. */
const KEYS_OF_WG: ReadonlySet<Key> = new Set(['PrivateKey', 'ListenPort', 'FwMark', ...PEER_KEYS]);
/** They change what the datagrams look like. */
const AMNEZIA_KEYS = [
  ...['Jc', 'Jmin', 'Jmax', 'S1', 'S2', 'S3', 'S4', 'H1', 'H2', 'H3', 'H4'],
  ...['I1', 'I2', 'I3', 'I4', 'I5', 'J1', 'J2', 'J3', 'Itime', 'AdvancedSecurity'],
];

interface Entry extends At<string> {
  readonly key: Key;
}

/** One [Peer], or all [Interface] together. */
export class Section {
  readonly line: number;
  readonly #path: string;
  readonly #entries: Entry[] = [];

  constructor(path: string, line: number) {
    this.#path = path;
    this.line = line;
  }

  /** What is left blank is not there. */
  add(entry: Entry): void {
    if (entry.value !== '') this.#entries.push(entry);
  }

  /** The value of a key that may be there once. */
  single<T>(key: Key, parse: (text: string, refuse: Refuse) => T): At<T> | undefined {
    const [entry, again] = this.#entries.filter((each) => each.key === key);
    if (entry === undefined) return undefined;
    if (again !== undefined) this.#refuse(again, `is in line ${entry.line} already; keep one of them`);
    return this.#parsed(entry, KEYS_OF_WG.has(key) ? withoutBlanks(entry.value) : entry.value, parse);
  }

  /** The elements of all lines with this key, each a list with commas or blanks in between, unless `split` knows better. */
  list<T>(key: Key, parse: (text: string, refuse: Refuse) => T, split = splitList): At<T>[] {
    return this.#entries
      .filter((each) => each.key === key)
      .flatMap((entry) => split(entry.value).map((element) => this.#parsed(entry, element, parse)));
  }

  /** The values of all lines with this key, whole. */
  each<T>(key: Key, parse: (text: string, refuse: Refuse) => T): At<T>[] {
    return this.#entries.filter((each) => each.key === key).map((entry) => this.#parsed(entry, entry.value, parse));
  }

  #parsed<T>(entry: Entry, text: string, parse: (text: string, refuse: Refuse) => T): At<T> {
    const refuse: Refuse = (reason, exitCode) => this.#refuse(entry, reason, exitCode);
    return { value: parse(text, refuse), line: entry.line };
  }

  #refuse({ key, line }: Entry, reason: string, exitCode: Parameters<Refuse>[1] = EX_DATAERR): never {
    throw new FileProblem(exitCode, this.#path, line, `${key} ${reason}`);
  }
}

function splitList(value: string): string[] {
  return value.split(/[\s,]+/).filter((element) => element !== '');
}

function withoutBlanks(text: string): string {
  return text.replace(/\s+/g, '');
}

export interface Sections {
  readonly interface: Section;
  readonly peers: readonly Section[];
}

/** Throws FileProblem (65) for anything that is not a known key of the section it stands in. */
export function splitSections(text: string, path: string): Sections {
  const peers: Section[] = [];
  let own: Section | undefined;
  let current: { kind: Kind; section: Section } | undefined;
  for (const [index, whole] of text.split('\n').entries()) {
    const line = index + 1;
    const problem = (reason: string) => new FileProblem(EX_DATAERR, path, line, reason);
    const fault = (reason: string): never => {
      throw problem(reason);
    };
    const stripped = whole.replace(/#.*/s, '').trim();
    if (stripped === '') continue;
    if (stripped.includes('\ufffd')) fault('this line is not UTF-8; save the file as UTF-8');
    if (stripped.startsWith('[')) {
      const kind = kindOf(stripped) ?? fault('unknown section; there are [Interface] and [Peer]');
      if (kind === 'Interface') own ??= new Section(path, line);
      else peers.push(new Section(path, line));
      current = { kind, section: (kind === 'Interface' ? own : peers.at(-1)) as Section };
      continue;
    }
    const equals = stripped.indexOf('=');
    // Neither the line nor the name of an unknown key is shown: base64 ends with "=", so either may be a key's value.
    if (equals < 0) fault('this line is neither KEY = VALUE nor [SECTION]; a comment begins with #');
    const name = withoutBlanks(stripped.slice(0, equals));
    const value = stripped.slice(equals + 1).trim();
    if (current === undefined) {
      const kind: Kind = keyOf(name, 'Peer') ? 'Peer' : 'Interface';
      throw problem(`${keyOf(name, kind) ?? 'this key'} is outside a section; put [${kind}] above it`);
    }
    const { kind, section } = current;
    const amnezia = AMNEZIA_KEYS.find((key) => key.toLowerCase() === name.toLowerCase());
    if (amnezia !== undefined) {
      if (value !== '') throw new FileProblem(EX_CONFIG, path, line, `${amnezia} ${OF_AMNEZIA}`);
      continue;
    }
    const key = keyOf(name, kind) ?? fault(unknownKey(name, kind));
    section.add({ key, value, line });
  }
  if (own === undefined) throw new FileProblem(EX_DATAERR, path, 1, 'there is no [Interface] section; add one');
  return { interface: own, peers };
}

const OF_AMNEZIA =
  "is AmneziaWG's, and a server that wants it does not answer plain WireGuard; ask for a WireGuard file, or use an AmneziaWG client";

function kindOf(header: string): Kind | undefined {
  const lower = withoutBlanks(header).toLowerCase();
  if (lower === '[interface]') return 'Interface';
  return lower === '[peer]' ? 'Peer' : undefined;
}

function keyOf(name: string, kind: Kind): Key | undefined {
  const lower = name.toLowerCase();
  return KEYS[kind].find((key) => key.toLowerCase() === lower);
}

function unknownKey(name: string, kind: Kind): string {
  const other = kind === 'Peer' ? 'Interface' : 'Peer';
  const elsewhere = keyOf(name, other);
  if (elsewhere) return `${elsewhere} belongs into [${other}], not into [${kind}]`;
  const near = KEYS[kind].find((key) => distance(name.toLowerCase(), key.toLowerCase()) <= 2);
  return near ? `unknown key; is it ${near}?` : `unknown key; [${kind}] has ${KEYS[kind].join(', ')}`;
}

/** How many characters to insert, remove or replace (Levenshtein); 3 for what is too long to be near any key. */
function distance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 2) return 3;
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 3;
}

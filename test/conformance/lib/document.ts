/** The API document, read: its tables row by row, named as the tests name them, and its examples. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The repository's root: this file is dist/test/conformance/lib/document.js. */
export const REPOSITORY = fileURLToPath(new URL('../../../../', import.meta.url));
export const DOCUMENT = `${REPOSITORY}test/conformance/ohos.net.vpn.md`;

export interface Row {
  /** `setUp(config, callback): parameter config`, `setUp(config): 201 Permission denied.`, `VpnConfig: mtu`, ... */
  name: string;
  /** The cells as written. */
  cells: string[];
}

export interface Example {
  heading: string;
  source: string;
}

export function readDocument(): string {
  return readFileSync(DOCUMENT, 'utf8');
}

/** Every row of every table. Throws for a table whose kind it does not know: the document must not outgrow the tests. */
export function readRows(text: string): Row[] {
  const rows: Row[] = [];
  let subject = '';
  let head: string | undefined;
  for (const line of text.split('\n')) {
    subject = signature(line) ?? /^## (VpnConfig)$/.exec(line)?.[1] ?? subject;
    if (!line.startsWith('|')) {
      head = undefined;
      continue;
    }
    const cells = line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim());
    if (cells.every((cell) => /^:?-+:?$/.test(cell))) continue;
    if (head === undefined) {
      head = cells.join(' ').replace(/ +/g, ' ');
      continue;
    }
    rows.push({ name: `${subject}: ${rowName(head, cells)}`, cells });
  }
  return rows;
}

function rowName(head: string, cells: readonly string[]): string {
  const [first = '', second = ''] = cells;
  if (head.startsWith('Name Type Read-Only')) return first;
  if (head.startsWith('Name Type Mandatory')) return `parameter ${first}`;
  if (head.startsWith('Type Description')) return `returns ${plain(first)}`;
  if (head.startsWith('ID Error Message')) return `${first} ${second}`;
  throw new Error(`unknown table: ${head}`);
}

/** `setUp(config: VpnConfig, callback: AsyncCallback\<number\>): void` as `setUp(config, callback)`. */
function signature(line: string): string | undefined {
  const [, name, parameters] = /^(\w+)\((.*)\): [\w\\<>]+$/.exec(line) ?? [];
  if (name === undefined || parameters === undefined) return undefined;
  const names = parameters.split(', ').map((parameter) => parameter.replace(/:.*/, ''));
  return `${name}(${names.join(', ')})`;
}

/** A type without Markdown's links and escapes. */
function plain(type: string): string {
  return type.replace(/\[(\w+)\]\([^)]*\)/g, '$1').replaceAll('\\', '');
}

/** Every fenced block with an `@Entry` component, character by character. */
export function readExamples(text: string): Example[] {
  const examples: Example[] = [];
  let heading = '';
  for (const [, title, source] of text.matchAll(/^#+ (.*)$|^```[jt]s\n([\s\S]*?)^```$/gm)) {
    if (title !== undefined) heading = title;
    else if (source?.includes('@Entry')) examples.push({ heading, source });
  }
  return examples;
}

/**
 * JSON (RFC 8259: no comments, no trailing commas) read so strictly that a mistake cannot pass for a rule: unknown and
 * repeated keys are errors, and every error names file, line and path. What the values mean is policy.ts's business.
 */
import { getNodePath, type Node, type ParseError, parseTree, printParseErrorCode } from 'jsonc-parser';
import { quote } from '../model/quote.js';

/** Why a policy file was not taken. `line` counts from 1 and is absent when the file itself is at fault. */
export class PolicyError extends Error {
  override readonly name = 'PolicyError';
  readonly file: string;
  readonly line: number | undefined;
  readonly reason: string;

  constructor(file: string, line: number | undefined, reason: string) {
    super(line === undefined ? `${file}: ${reason}` : `${file}:${line}: ${reason}`);
    this.file = file;
    this.line = line;
    this.reason = reason;
  }
}

/** A value of the document with the document it stands in. */
export interface Entry {
  readonly file: string;
  readonly text: string;
  readonly node: Node;
}

const SYNTAX: Readonly<Record<string, string>> = {
  InvalidSymbol: 'unexpected text',
  InvalidNumberFormat: 'not a JSON number',
  PropertyNameExpected: 'a quoted key is expected here',
  ValueExpected: 'a value is expected here',
  ColonExpected: 'a colon is expected here',
  CommaExpected: 'a comma is expected before this',
  CloseBraceExpected: 'a closing brace is missing',
  CloseBracketExpected: 'a closing bracket is missing',
  EndOfFileExpected: 'text after the end of the policy',
  InvalidCommentToken: 'JSON has no comments',
  UnexpectedEndOfString: 'the string does not end on its line',
  UnexpectedEndOfNumber: 'not a JSON number',
  InvalidUnicode: 'wrong \\u escape in this string',
  InvalidEscapeCharacter: 'wrong escape in this string',
  InvalidCharacter: 'control character in this string',
};

export function readDocument(text: string, file: string): Entry {
  const errors: ParseError[] = [];
  const node = parseNested(text, file, errors);
  const first = errors[0];
  if (first !== undefined) {
    const name = printParseErrorCode(first.error);
    throw new PolicyError(file, lineOf(text, first.offset), SYNTAX[name] ?? name);
  }
  if (node === undefined) throw new PolicyError(file, 1, 'is empty');
  return { file, text, node };
}

function parseNested(text: string, file: string, errors: ParseError[]): Node | undefined {
  try {
    return parseTree(text, errors, { disallowComments: true, allowTrailingComma: false });
  } catch (error) {
    if (error instanceof RangeError) throw new PolicyError(file, 1, 'is nested too deeply');
    throw error;
  }
}

/** Refuses the document because of this entry. */
export function refuse({ file, text, node }: Entry, reason: string): never {
  const path = getNodePath(node).reduce<string>(
    (before, step) => (typeof step === 'number' ? `${before}[${step}]` : before + (before && '.') + bareOrQuoted(step)),
    '',
  );
  throw new PolicyError(file, lineOf(text, node.offset), path === '' ? reason : `${path}: ${reason}`);
}

function bareOrQuoted(key: string): string {
  return /^\w+$/.test(key) ? key : quote(key);
}

/** The members of an object, none twice, and only those `known` (any, where it is absent). */
export function members(entry: Entry, known?: readonly string[]): Map<string, Entry> {
  if (entry.node.type !== 'object') refuse(entry, 'is not an object');
  const found = new Map<string, Entry>();
  for (const property of entry.node.children ?? []) {
    const [key, value] = property.children ?? [];
    if (key === undefined || value === undefined) continue;
    const name = String(key.value);
    if (found.has(name)) refuse({ ...entry, node: key }, `is there twice`);
    if (known?.includes(name) === false) refuse({ ...entry, node: key }, `is unknown; known are ${known.join(', ')}`);
    found.set(name, { ...entry, node: value });
  }
  return found;
}

export function elements(entry: Entry): Entry[] {
  if (entry.node.type !== 'array') refuse(entry, 'is not a list');
  return (entry.node.children ?? []).map((node) => ({ ...entry, node }));
}

/** The one member of an object that says which of several forms it has. */
export function oneOf(entry: Entry, known: readonly string[]): [name: string, value: Entry] {
  const [first, second] = members(entry, known);
  if (first === undefined || second !== undefined) refuse(entry, `takes exactly one of ${known.join(', ')}`);
  return first;
}

export function readBoolean(entry: Entry): boolean {
  return entry.node.type === 'boolean' ? (entry.node.value as boolean) : refuse(entry, 'is neither true nor false');
}

export function readString(entry: Entry): string {
  return entry.node.type === 'string' ? (entry.node.value as string) : refuse(entry, 'is not a string');
}

function lineOf(text: string, offset: number): number {
  return text.slice(0, offset).split('\n').length;
}

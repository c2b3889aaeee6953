/**
 * How a value that somebody else chose appears in an error or a log line: one line, bounded, without anything a terminal
 * would act on. Strings are JSON-quoted; control, format, separator and unassigned characters are escaped as well.
 */
const MAX_QUOTED = 60;

/** @example quote('a\nb') // '"a\\nb"'   quote([1]) // 'an array'   quote(null) // 'null' */
export function quote(value: unknown): string {
  if (typeof value === 'string') return quoteText(value);
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'object' && value !== null) return 'an object';
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'bigint') return 'a bigint';
  if (typeof value === 'symbol') return 'a symbol';
  return String(value);
}

function quoteText(text: string): string {
  const quoted = quoteWhole(text.slice(0, MAX_QUOTED));
  return text.length > MAX_QUOTED ? `${quoted}… (${text.length} characters)` : quoted;
}

/** Quoted and escaped, however long it is. */
export function quoteWhole(text: string): string {
  return JSON.stringify(text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, escapeCharacter);
}

function escapeCharacter(character: string): string {
  return [...Array(character.length).keys()]
    .map((index) => `\\u${character.charCodeAt(index).toString(16).padStart(4, '0')}`)
    .join('');
}

/** True when the text has a character that must not reach a log, a file name or a terminal. */
export function hasControlCharacter(text: string): boolean {
  return /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]/u.test(text);
}

/**
 * Log lines on stderr: `<n>` priority for the journal, one word for the event, then key=value. Values of others are quoted and
 * bounded, so that no caller can forge a line. Nothing secret ever gets here: the service knows no keys.
 */
import { quote, quoteWhole } from '../model/quote.js';

const LEVELS = ['error', 'warning', 'info', 'debug'] as const;
export type LogLevel = (typeof LEVELS)[number];

/** syslog(3) priorities, which systemd takes off the front of a line. */
const PRIORITIES: Record<LogLevel, number> = { error: 3, warning: 4, info: 6, debug: 7 };

export type LogFields = Record<string, string | number | boolean | undefined>;
export type Log = (level: LogLevel, event: string, fields?: LogFields) => void;

export function isLogLevel(word: string): word is LogLevel {
  return (LEVELS as readonly string[]).includes(word);
}

export function createLog(threshold: LogLevel, write: (line: string) => void): Log {
  const journal = process.env.JOURNAL_STREAM !== undefined;
  return (level, event, fields = {}) => {
    if (LEVELS.indexOf(level) > LEVELS.indexOf(threshold)) return;
    const words = Object.entries(fields).flatMap(([key, value]) =>
      value === undefined ? [] : [`${key}=${field(value)}`],
    );
    const stamp = journal ? `<${PRIORITIES[level]}>` : `${new Date().toISOString()} ${level} `;
    write(`${stamp}${[event, ...words].join(' ')}\n`);
  };
}

/** Words of harmless characters stand as they are; everything else is quoted, escaped and cut. */
function field(value: string | number | boolean): string {
  const text = String(value);
  return /^[\w.:/@+-]{1,120}$/.test(text) ? text : quoteLong(text);
}

function quoteLong(text: string): string {
  return text.length <= 60 ? quote(text) : quoteWhole(text.length > 400 ? `${text.slice(0, 400)}…` : text);
}

/** An error with its causes, on one line. */
export function describeError(error: unknown): string {
  const parts: string[] = [];
  for (let current = error; current instanceof Error && parts.length < 5; current = current.cause) {
    const inner = current instanceof AggregateError ? ` (${current.errors.map(String).join('; ')})` : '';
    parts.push(`${current.name}: ${current.message}${inner}`);
  }
  return parts.length > 0 ? parts.join(' <- ') : String(error);
}

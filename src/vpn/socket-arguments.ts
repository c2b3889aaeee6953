/** The guard of the socket objects: every argument of a wrong type or shape is a 401, thrown from here. */
import type { Endpoint } from '../kernel/inet-socket.js';
import { literalFamily } from '../model/address.js';
import { BusinessError } from '../model/errors.js';
import { quote } from '../model/quote.js';

const MAX_PORT = 65535;
/** setTimeout's limit; a longer delay would fire at once. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

function wrong(field: string, reason: string): never {
  throw new BusinessError(401, field, reason);
}

export function checkCount(call: string, given: readonly unknown[], most: number): void {
  if (given.length > most) wrong(call, `${given.length} arguments, takes at most ${most}`);
}

/** A callback that may be absent. */
export function checkCallback(callback: unknown): void {
  if (callback !== undefined) checkListener(callback);
}

export function checkListener(callback: unknown): void {
  if (typeof callback !== 'function') wrong('callback', `${quote(callback)} is not a function`);
}

export function checkEvent(type: unknown, events: readonly string[]): void {
  if (!events.includes(type as string)) wrong('type', `${quote(type)} is not one of ${events.join(', ')}`);
}

export function checkObject(
  value: unknown,
  field: string,
): Partial<Record<'address' | 'family' | 'port' | 'timeout' | 'data' | 'encoding', unknown>> {
  if (typeof value !== 'object' || value === null) wrong(field, `${quote(value)} is not an object`);
  return value;
}

/** A NetAddress. `leastPort` is 0 where the kernel may choose, 1 where a peer is meant. */
export function checkEndpoint(value: unknown, field: string, leastPort: 0 | 1): Endpoint {
  const { address, family, port = 0 } = checkObject(value, field);
  const actual = typeof address === 'string' ? literalFamily(address) : undefined;
  if (actual === undefined) wrong(`${field}.address`, `${quote(address)} is not an IP address`);
  if (family !== undefined && family !== actual) {
    wrong(`${field}.family`, `${quote(family)} does not fit ${address as string}`);
  }
  if (!Number.isInteger(port) || (port as number) < leastPort || (port as number) > MAX_PORT) {
    wrong(`${field}.port`, `${quote(port)} is not ${leastPort}..${MAX_PORT}`);
  }
  return { address: address as string, port: port as number };
}

/** Milliseconds; 0 for none. */
export function checkTimeout(value: unknown, field: string): number {
  if (value === undefined) return 0;
  if (typeof value !== 'number' || !(value >= 0 && value <= MAX_TIMEOUT_MS)) {
    wrong(field, `${quote(value)} is not a number of milliseconds`);
  }
  return value as number;
}

/** The bytes to send, a copy: the caller may reuse its buffer as soon as the call returns. */
export function checkData(value: unknown, field: string, encoding?: unknown): Buffer {
  if (encoding !== undefined && !(typeof encoding === 'string' && Buffer.isEncoding(encoding))) {
    wrong('options.encoding', `${quote(encoding)} is not an encoding`);
  }
  if (typeof value === 'string') return Buffer.from(value, encoding as BufferEncoding | undefined);
  if (value instanceof ArrayBuffer) return Buffer.copyBytesFrom(new Uint8Array(value));
  if (value instanceof Uint8Array) return Buffer.copyBytesFrom(value);
  return wrong(field, `${quote(value)} is neither a string nor an ArrayBuffer`);
}

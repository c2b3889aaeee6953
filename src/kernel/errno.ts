/** errno numbers and their names, for this platform, from libuv's table (`os.constants.errno`). */
import { constants } from 'node:os';
import { KernelError } from '../model/errors.js';
import { errno } from './ffi.js';

/** The man pages say EAGAIN; EWOULDBLOCK is the same number. */
const names = new Map<number, string>(
  Object.entries(constants.errno).flatMap(([name, number]) => (name === 'EWOULDBLOCK' ? [] : [[number, name]])),
);

/** Names that libuv leaves out and that rtnetlink or sockets answer with. */
const others = new Map<number, string>([
  [34, 'ERANGE'],
  [61, 'ENODATA'],
  [95, 'EOPNOTSUPP'],
  [77, 'EBADFD'],
  [117, 'EUCLEAN'],
]);

/** `EEXIST` for 17; `errno 999` for a number without a name. */
export function errnoName(number: number): string {
  return names.get(number) ?? others.get(number) ?? `errno ${number}`;
}

/** The error of the synchronous native call that just failed. `call` is its name, `object` what it was about. */
export function lastError(call: string, object: string): KernelError {
  return new KernelError(call, object, errnoName(errno()));
}

/** Passes a native result through, or throws `lastError` when it is negative. */
export function checked(result: number, call: string, object: string): number {
  if (result < 0) throw lastError(call, object);
  return result;
}

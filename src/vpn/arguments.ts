/** Checks of the arguments of VpnConnection's calls: whatever is wrong with count, type or shape is 401, thrown at once. */
import { BusinessError } from '../model/errors.js';
import type { AsyncCallback } from './callbacks.js';

/** The callback behind the required arguments, or undefined for the promise form. Throws 401. */
export function checkArguments<T>(args: readonly unknown[], required: readonly string[]): AsyncCallback<T> | undefined {
  if (args.length < required.length) throw new BusinessError(401, required[args.length], 'is missing');
  const maximum = required.length + 1;
  if (args.length > maximum) {
    throw new BusinessError(401, undefined, `${args.length} arguments instead of at most ${maximum}`);
  }
  const callback = args[required.length];
  if (callback !== undefined && typeof callback !== 'function') {
    throw new BusinessError(401, 'callback', 'is not a function');
  }
  return callback as AsyncCallback<T> | undefined;
}

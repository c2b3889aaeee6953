/** Checks of the arguments of API calls: whatever is wrong with count, type or shape is 401, thrown at once. */
import { BusinessError } from '../model/errors.js';
import { inFlight } from './in-flight.js';

/** The last argument of every asynchronous call. `error` is undefined on success. */
export type AsyncCallback<T> = (error: BusinessError | undefined, data: T) => void;

/** A callback, or undefined for the promise form. Throws 401. */
export function checkArguments<T>(args: readonly unknown[], required: readonly string[]): AsyncCallback<T> | undefined {
  if (args.length < required.length) throw new BusinessError(401, required[args.length], 'is missing');
  const maximum = required.length + 1;
  if (args.length > maximum)
    throw new BusinessError(401, undefined, `${args.length} arguments instead of at most ${maximum}`);
  const callback = args[required.length];
  if (callback !== undefined && typeof callback !== 'function') {
    throw new BusinessError(401, 'callback', 'is not a function');
  }
  return callback as AsyncCallback<T> | undefined;
}

/**
 * Runs the asynchronous part of a call and delivers its outcome: to the callback, as `callback(undefined, data)` or
 * `callback(error)`, in a turn of its own, so that what the callback throws is an uncaught exception and not a rejection; or
 * as a promise.
 */
export function deliver<T>(work: () => Promise<T>, callback: AsyncCallback<T> | undefined): Promise<T> | undefined {
  inFlight.begin();
  const outcome = Promise.resolve().then(work);
  if (callback === undefined) {
    outcome.then(
      () => inFlight.end(),
      () => inFlight.end(),
    );
    return outcome;
  }
  const call = (error: BusinessError | undefined, data: T): void => {
    setImmediate(() => {
      inFlight.end();
      callback(error, data);
    });
  };
  outcome.then(
    (data) => call(undefined, data),
    (error: BusinessError) => call(error, undefined as T),
  );
  return undefined;
}

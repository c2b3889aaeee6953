/** One asynchronous method in both its forms: the callback's, when one is given, else the promise's. */
import type { AsyncCallback } from './callbacks.js';
import { inFlight } from './in-flight.js';

/**
 * Starts `work` at once and tells its outcome later, never re-entrantly. A returned promise counts as handled, so that a call
 * whose promise is dropped does not end the process when it fails; who chains on it still sees the rejection. `translate` makes
 * whatever was thrown an error of the API in question.
 */
export function settle<T>(
  callback: AsyncCallback<T> | undefined,
  work: () => T | Promise<T>,
  translate: (error: unknown) => Error,
): Promise<T> | undefined {
  inFlight.begin();
  const outcome = new Promise<T>((resolve) => resolve(work())).catch((error: unknown) => {
    throw translate(error);
  });
  outcome.then(inFlight.end, inFlight.end);
  if (!callback) return outcome;
  const report = callback as (error: unknown, data?: T) => void;
  // From a microtask of its own: what a callback throws is an uncaught exception, not a rejection of ours.
  outcome.then(
    (data) => queueMicrotask(() => report(undefined, data)),
    (error: unknown) => queueMicrotask(() => report(error)),
  );
  return undefined;
}

/** The callback types of `@kit.BasicServicesKit`, as that kit writes them. */
import type { BusinessError } from '../model/errors.js';

/**
 * `error` is undefined where a call succeeded. The type does not say so because the documented examples, which annotate it
 * as `BusinessError`, would not compile under `strictFunctionTypes`.
 */
export type AsyncCallback<T> = (error: BusinessError, data: T) => void;

export type Callback<T> = (data: T) => void;

export type ErrorCallback<T extends Error = BusinessError> = (error: T) => void;

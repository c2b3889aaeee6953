/** The rows of the documented tables as the tests name them, and the assertions that every error row shares. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { SENTENCES, type VpnErrorCode } from '../../../src/model/errors.js';
import type { Form, Method, Outcome } from './agent.js';

export const FORMS: readonly Form[] = ['callback', 'promise'];

/** The documented signatures, without types. */
export const SIGNATURES: Readonly<Record<Method, Readonly<Record<Form, string>>>> = {
  setUp: { callback: 'setUp(config, callback)', promise: 'setUp(config)' },
  protect: { callback: 'protect(socketFd, callback)', promise: 'protect(socketFd)' },
  destroy: { callback: 'destroy(callback)', promise: 'destroy()' },
};

export function errorRow(method: Method, form: Form, code: VpnErrorCode): string {
  return `${SIGNATURES[method][form]}: ${code} ${SENTENCES[code]}`;
}

/** One test for each form, named by the document's row. */
export async function errorTest(
  t: TestContext,
  method: Method,
  code: VpnErrorCode,
  run: (form: Form) => Promise<void>,
): Promise<void> {
  for (const form of FORMS) await t.test(errorRow(method, form, code), () => run(form));
}

/** The call was refused with this code, in the way of this form; `why` matches what follows the documented sentence. */
export function assertRefused(outcome: Outcome, form: Form, code: VpnErrorCode, why: RegExp): void {
  const error = code === 401 ? outcome.thrown : outcome.error;
  assert.ok(error, `${code} expected, ${code === 401 ? 'thrown' : 'delivered'}: ${JSON.stringify(outcome)}`);
  const { message, data } = error;
  assert.deepEqual([error.code, error.name, error.isError, error.isBusinessError], [code, 'BusinessError', true, true]);
  assert.ok(message.startsWith(`${SENTENCES[code]} `), message);
  assert.match(message.slice(SENTENCES[code].length + 1), why);
  assert.equal(message, `${SENTENCES[code]} ${data.field === undefined ? '' : `${data.field}: `}${data.reason}`);
  assert.deepEqual(JSON.parse(error.json), { code, message, data });
  if (code === 401) return;
  assertDelivered(outcome, form);
  if (form === 'callback') assert.equal(outcome.callbackArguments?.[0], 'object');
}

export function assertSucceeded(outcome: Outcome, form: Form, data: 'number' | 'undefined'): void {
  assert.ok(outcome.data !== undefined, JSON.stringify(outcome));
  assertDelivered(outcome, form);
  if (form === 'callback') assert.deepEqual(outcome.callbackArguments, ['undefined', data]);
  else assert.equal(outcome.data === null ? 'undefined' : typeof outcome.data, data);
}

/** Later, and by the one road of the form. */
function assertDelivered({ returned, reentrant }: Outcome, form: Form): void {
  assert.equal(returned, form === 'callback' ? 'nothing' : 'promise');
  assert.equal(reentrant, false);
}

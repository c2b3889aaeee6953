/**
 * Runs the main script's `@Entry` component: the methods named on the command line, or all but `build`, one after the other.
 * A method is over when its promise, if it gave one, has settled and no call of the kit is in flight after a macrotask.
 * Exits 0; 1 when the component or a method threw; 2 when there is no such component or method.
 */
import { basename } from 'node:path';
import { setImmediate as macrotask } from 'node:timers/promises';
import { isMainThread } from 'node:worker_threads';
import { entryComponent } from './ets-runtime.js';
import { inFlight } from './in-flight.js';

/** A script without an `@Entry` component has run by then, and ends as any other; naming methods of it is a mistake. */
export async function runMain(): Promise<void> {
  if (!isMainThread) return;
  const [, script = '', ...named] = process.argv;
  const component = entryComponent();
  if (!component) {
    if (named.length > 0) fail(2, `${basename(script)} has no @Entry component.`);
    return;
  }
  const known = methodNames(component.prototype);
  const unknown = named.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    fail(2, `${component.name} in ${basename(script)} has no method ${unknown}; it has ${known.join(', ')}.`);
  }
  try {
    const instance = new component() as Record<string, () => unknown>;
    for (const name of named.length > 0 ? named : known.filter((each) => each !== 'build')) {
      await instance[name]?.();
      await quiet();
    }
  } catch (error) {
    fail(1, error);
  }
  process.exit(0);
}

function methodNames(prototype: object): string[] {
  return Object.entries(Object.getOwnPropertyDescriptors(prototype))
    .filter(([name, { value }]) => name !== 'constructor' && typeof value === 'function')
    .map(([name]) => name);
}

async function quiet(): Promise<void> {
  do {
    await inFlight.idle();
    await macrotask();
  } while (inFlight.count > 0);
}

function fail(status: number, reason: unknown): never {
  console.error(reason);
  process.exit(status);
}

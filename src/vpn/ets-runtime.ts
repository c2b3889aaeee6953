/**
 * The globals that ArkTS gives every `.ets` file, as far as they exist here: the base class of a `struct` and its two
 * decorators. Importing this module defines them.
 */
import type { UIAbilityContext } from './common.js';

type ComponentClass = new () => object;

/** Base class of every `struct`. */
class CustomComponent {
  getUIContext(): { getHostContext(): UIAbilityContext | undefined } {
    return { getHostContext: () => ({}) };
  }
}

let entry: ComponentClass | undefined;

/** The component that the main script marks with `@Entry`; of several the last. */
export function entryComponent(): ComponentClass | undefined {
  return entry;
}

/** `@Entry`, or `@Entry({…})` whose options mean nothing here. */
function Entry(target: unknown): unknown {
  if (typeof target !== 'function') return Entry;
  entry = target as ComponentClass;
  return undefined;
}

function Component(target: unknown): unknown {
  return typeof target === 'function' ? undefined : Component;
}

Object.assign(globalThis, { CustomComponent, Entry, Component });

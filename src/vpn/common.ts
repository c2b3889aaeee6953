/**
 * `common` of `@kit.AbilityKit`, as far as it exists here: the contexts, of which nothing is read or trusted. Linux knows the
 * caller by its process, so any object will do.
 */
export type Context = object;
export type AbilityContext = Context;
export type UIAbilityContext = AbilityContext;

/**
 * Module hooks (node:module, `register`) for the kits' names and for `.ets` files. They run in node's loader thread: the
 * components themselves are created in the main thread, by what is appended to the transformed source.
 */
import { readFile } from 'node:fs/promises';
import type { LoadHook, ResolveHook } from 'node:module';
import { fileURLToPath } from 'node:url';
import { transformEts } from './ets-transform.js';

const own = (file: string): string => new URL(file, import.meta.url).href;
const modules = new Map([
  ['@kit.NetworkKit', own('./kit.js')],
  ['@kit.AbilityKit', own('./kit.js')],
  ['@kit.BasicServicesKit', own('./kit.js')],
  ['@ohos.net.vpn', own('./ohos-net-vpn.js')],
]);
const runtime = JSON.stringify(own('./ets-runtime.js'));
const runner = JSON.stringify(own('./ets-runner.js'));

/** URLs of main scripts: only these run their component. */
const mains = new Set<string>();

const isEts = (url: string): boolean => url.startsWith('file:') && new URL(url).pathname.endsWith('.ets');

export const resolve: ResolveHook = async (specifier, context, nextResolve) => {
  const url = modules.get(specifier);
  if (url !== undefined) return { url, shortCircuit: true };
  const resolved = await resolveNext(specifier, context, nextResolve);
  if (context.parentURL === undefined && isEts(resolved.url)) mains.add(resolved.url);
  return resolved;
};

/** ArkTS imports its own files without a suffix. */
const resolveNext: ResolveHook = async (specifier, context, nextResolve) => {
  try {
    return await nextResolve(specifier, context);
  } catch (error) {
    if (!/^\.\.?\//.test(specifier) || !isEts(context.parentURL ?? '')) throw error;
    return Promise.resolve(nextResolve(`${specifier}.ets`, context)).catch(() => Promise.reject(error));
  }
};

export const load: LoadHook = async (url, context, nextLoad) => {
  if (!isEts(url)) return nextLoad(url, context);
  const path = fileURLToPath(url);
  // Appended, so that the lines of the file keep their numbers; imports are hoisted, so the runtime is there before them.
  const footer = `\nimport ${runtime};${mains.has(url) ? `\nawait (await import(${runner})).runMain();` : ''}\n`;
  return { format: 'module', source: transformEts(await readFile(path, 'utf8'), path) + footer, shortCircuit: true };
};

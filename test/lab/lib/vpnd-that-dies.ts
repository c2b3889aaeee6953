/**
 * Preloaded into vpnd (`--import`): dies by SIGKILL before its Nth change to a name that begins with /etc/resolv.conf, N in
 * RESOLV_CHANGE. The functions that change files are replaced in node itself, so the service knows nothing of it.
 */
import { default as promises } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';

let change = 0;

for (const name of ['link', 'rename', 'rm', 'open'] as const) {
  const original = promises[name] as (...args: unknown[]) => Promise<unknown>;
  Reflect.set(promises, name, async (...args: unknown[]) => {
    if (args.some((each) => typeof each === 'string' && each.startsWith('/etc/resolv.conf'))) {
      if (change++ === Number(process.env.RESOLV_CHANGE)) process.kill(process.pid, 'SIGKILL');
    }
    return original(...args);
  });
}
syncBuiltinESMExports();

/** For what follows an answer by a moment: a process that died, a connection that closed. */
import assert from 'node:assert/strict';
import { canonicalState, diffState } from './canonical-state.js';
import type { LabHost } from './host.js';

const PATIENCE_MS = 20_000;

/** Asks until the condition holds; fails with what `describe` says when it does not come to hold. */
export async function eventually(
  condition: () => boolean | Promise<boolean>,
  describe: () => unknown,
  patienceMs = PATIENCE_MS,
): Promise<void> {
  const deadline = Date.now() + patienceMs;
  while (!(await condition())) {
    if (Date.now() > deadline) assert.fail(`not within ${patienceMs} ms: ${JSON.stringify(describe())}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The host's state becomes what it was before. */
export async function stateBecomes(host: LabHost, before: string): Promise<void> {
  let difference: string[] = [];
  await eventually(
    async () => {
      difference = diffState(before, await canonicalState(host));
      return difference.length === 0;
    },
    () => difference.slice(0, 20),
  );
}

/** Names of the host's TUN devices. */
export async function tunnelsOf(host: LabHost): Promise<string[]> {
  const links = await host.json<{ ifname?: string }[]>('ip', ['-j', 'link', 'show', 'type', 'tun']);
  return links.flatMap(({ ifname }) => ifname ?? []);
}

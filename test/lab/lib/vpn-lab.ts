/** The standard lab with everything a VPN needs: the service on `app`, servers on `server`, and as many exits as wanted. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { canonicalState, diffState } from './canonical-state.js';
import { type Exit, PLACES, startExit, startServers } from './exits.js';
import type { LabHost } from './host.js';
import { requireRoot } from './prerequisites.js';
import { type StandardLab, standardLab } from './standard-lab.js';
import { startApp, type VpnApp } from './vpn-app.js';
import { startVpnd, type Vpnd, type VpndOptions } from './vpnd.js';

export interface VpnLab extends StandardLab {
  vpnd: Vpnd;
  /** exits[0] is exit1. */
  exits: Exit[];
  /** A process of this user, with the way to the service in its environment. */
  process(uid: number): Promise<VpnApp>;
}

export interface VpnLabOptions {
  /** The networks of the exits: [1, 2] is two exits, [1, 1] two with the same addresses. Default: [1]. */
  networks?: readonly number[];
  /** Addresses at which every exit answers, besides the usual ones. */
  more?: readonly string[];
  vpnd?: VpndOptions;
}

/** Undefined when no lab can be built here; the test is skipped then. It is taken down with the test. */
export async function vpnLab(t: TestContext, options: VpnLabOptions = {}): Promise<VpnLab | undefined> {
  if (!requireRoot(t)) return undefined;
  const { networks = [1], more = [] } = options;
  const standard = await standardLab();
  t.after(() => standard.lab.close());
  const [vpnd, exits] = await Promise.all([
    startVpnd(standard.app, options.vpnd),
    Promise.all(networks.map((network, index) => startExit(standard, index + 1, { network, more }))),
    startServers(standard.server, 'server', PLACES),
  ]);
  return { ...standard, vpnd, exits, process: (uid) => startApp(standard.app, uid, vpnd) };
}

/** The nth exit, counted from 1 as their names are. */
export function exitOf({ exits }: VpnLab, number: number): Exit {
  const exit = exits[number - 1];
  if (!exit) throw new Error(`the lab has no exit${number}`);
  return exit;
}

/** Asks again and again until the answer is not undefined. */
export async function eventually<T>(
  what: string,
  attempt: () => Promise<T | undefined>,
  timeoutMs = 30_000,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const result = await attempt();
    if (result !== undefined) return result;
    if (Date.now() > deadline) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Waits until a host's state is `expected` again; fails with the difference. */
export async function settledState(host: LabHost, expected: string): Promise<void> {
  let last = '';
  const isSettled = async () => {
    last = await canonicalState(host);
    return last === expected || undefined;
  };
  await eventually('the state as it was', isSettled).catch(() => assert.deepEqual(diffState(expected, last), []));
}

/**
 * setUp and destroy through the API, against an `ip -batch` script and a C program that make the same kernel state, in turns.
 * Before it is measured, the state that each makes is compared.
 */
import { join } from 'node:path';
import type { VpnConfig } from '../../src/model/vpn-types.js';
import { canonicalState, diffState } from '../../test/lab/lib/canonical-state.js';
import type { LabHost } from '../../test/lab/lib/host.js';
import { startVpnd } from '../../test/lab/lib/vpnd.js';
import { OWNER, planOf } from './configs.js';
import { Driver } from './driver.js';
import { IFINDEX, writeState } from './same-state.js';
import { median } from './statistics.js';

/** A shell that has been started before, as the service has. */
const SHELL =
  'while read -r number command; do if [ "$command" != nop ]; then . "$0/$command.sh"; fi; echo "done $number"; done';

export interface Cost {
  name: string;
  /** Median milliseconds; undefined for a program left out. */
  up: Record<Program, number | undefined>;
  down: Record<Program, number | undefined>;
}

export type Program = 'api' | 'batch' | 'c';

export async function setupCost(
  host: LabHost,
  configs: Readonly<Record<string, VpnConfig>>,
  rounds: number,
  program: string | undefined,
): Promise<Cost[]> {
  const vpnd = await startVpnd(host);
  const api = new Driver(
    host.spawnNode('dist/bench/lib/api-client.js', [], { uid: OWNER, env: { VPND_SOCKET: vpnd.socket } }),
  );
  const costs: Cost[] = [];
  for (const [name, config] of Object.entries(configs)) {
    costs.push(await measure(host, api, name, config, rounds, program));
  }
  await api.stop();
  await vpnd.stop();
  return costs;
}

async function measure(
  host: LabHost,
  api: Driver,
  name: string,
  config: VpnConfig,
  rounds: number,
  program: string | undefined,
): Promise<Cost> {
  const plan = planOf(config);
  const directory = join(host.directory, `state-${name.replaceAll(/\W+/g, '-')}`);
  writeState(directory, plan);
  const drivers = new Map<Program, Driver>([
    ['api', api],
    ['batch', new Driver(host.spawn('sh', ['-c', SHELL, directory]))],
  ]);
  if (program !== undefined) {
    const args = [directory, plan.link.name, String(IFINDEX), plan.link.ipv6 ? '1' : '0'];
    drivers.set('c', new Driver(host.spawn(program, args)));
  }
  await compare(host, drivers, name);
  // A service runs for days: it is measured when its code has been compiled, which takes some calls. The others have no such start.
  for (let round = 0; round < 2 * rounds; round++) {
    await api.ask(up('api', name));
    await api.ask('down');
  }

  const times = new Map([...drivers.keys()].map((key) => [key, { up: [] as number[], down: [] as number[] }]));
  for (let round = 0; round < rounds; round++) {
    globalThis.gc?.();
    for (const [key, driver] of drivers) {
      times.get(key)?.up.push(await driver.time(up(key, name)));
      times.get(key)?.down.push(await driver.time('down'));
    }
  }
  for (const [key, driver] of drivers) if (key !== 'api') await driver.stop();
  const of = (key: Program, what: 'up' | 'down') => {
    const all = times.get(key)?.[what];
    return all && median(all);
  };
  const each = (what: 'up' | 'down') => ({ api: of('api', what), batch: of('batch', what), c: of('c', what) });
  return { name, up: each('up'), down: each('down') };
}

const up = (key: Program, name: string): string => (key === 'api' ? `up ${name}` : 'up');

/** Throws with the difference when the programs do not make the same state, or leave something behind. */
async function compare(host: LabHost, drivers: ReadonlyMap<Program, Driver>, name: string): Promise<void> {
  const before = await canonicalState(host);
  let expected: string | undefined;
  for (const [key, driver] of drivers) {
    await driver.ask(up(key, name));
    const state = await canonicalState(host);
    await driver.ask('down');
    const left = diffState(before, await canonicalState(host));
    if (left.length > 0) throw new Error(`${name}: ${key} leaves\n${left.slice(0, 20).join('\n')}`);
    expected ??= state;
    const differences = diffState(neutral(expected), neutral(state));
    if (differences.length > 0) throw new Error(`${name}: ${key} differs\n${differences.slice(0, 20).join('\n')}`);
  }
}

/**
 * `ip tuntap` leaves a device that nobody holds: without carrier, for which IPv6 does not start. Nothing else may differ.
 */
function neutral(state: string): string {
  return state
    .replaceAll(/"linkdown",?|,?"persist":(true|false)/g, '')
    .split('\n')
    .filter((line) => !/ (operstate|flags) |"ff00::\/8"/.test(line))
    .join('\n');
}

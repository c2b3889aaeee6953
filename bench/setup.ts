/**
 * `npm run bench:setup`: what setting up, protecting and standing by costs, measured side by side in one run. As root; in
 * namespaces of its own. docs/performance.md tells what the figures mean. It judges nothing by its exit status.
 *
 *   setup.js [setup] [routes] [protect] [send]     only these parts
 */
import { release } from 'node:os';
import { Lab } from '../test/lab/lib/lab.js';
import { EX_UNAVAILABLE, whyNoLab } from '../test/lab/lib/prerequisites.js';
import { compile } from './lib/compile.js';
import { LARGE, SMALL } from './lib/configs.js';
import { protectCost } from './lib/protect-cost.js';
import { CROWDS, sendCost } from './lib/send-cost.js';
import { type Cost, setupCost } from './lib/setup-cost.js';
import { printTable, printWanted } from './lib/table.js';

const ROUNDS = { setup: 31, routes: 9, protect: 5, send: 15 };
const PROTECT_CALLS = 4000;

const reason = whyNoLab();
if (reason !== undefined) {
  console.error(reason);
  process.exit(EX_UNAVAILABLE);
}
const asked = process.argv.slice(2);
const isAsked = (part: string): boolean => asked.length === 0 || asked.includes(part);
const lab = await Lab.create();
try {
  console.log(
    `Linux ${release()}, Node ${process.version}; medians of interleaved rounds, all on this machine, in one run`,
  );
  if (isAsked('setup')) await setup(`setUp and destroy, ${ROUNDS.setup} rounds`, 'setUp', SMALL, ROUNDS.setup);
  if (isAsked('routes'))
    await setup(`with 10,000 routes, ${ROUNDS.routes} rounds`, '10,000 routes', LARGE, ROUNDS.routes);
  if (isAsked('protect')) await protect();
  if (isAsked('send')) await send();
} finally {
  await lab.close();
}

async function setup(title: string, what: string, configs: typeof SMALL, rounds: number): Promise<void> {
  const program = compile('setup', lab.directory);
  const costs = await setupCost(await lab.host('setup'), configs, rounds, program);
  const ms = (value: number | undefined) => (value === undefined ? '-' : value.toFixed(2));
  const ratio = (a: number | undefined, b: number | undefined) =>
    ms(a === undefined || b === undefined ? a && b : a / b);
  const row = (cost: Cost, what: 'up' | 'down') => {
    const { api, batch, c } = cost[what];
    const call = what === 'up' ? 'setUp' : 'destroy';
    return [`${cost.name}: ${call}`, ms(api), ms(batch), ms(c), ratio(api, batch), ratio(api, c)];
  };
  printTable(
    `${title} (ms; each makes the same kernel state, which was compared)`,
    ['', 'API', 'ip -batch', 'C', 'API/batch', 'API/C'],
    costs.flatMap((cost) => [row(cost, 'up'), row(cost, 'down')]),
  );
  for (const { name, up } of costs)
    printWanted(`${what} (${name}), of ip -batch`, (up.api ?? 0) / (up.batch ?? 0), 0.5);
}

async function protect(): Promise<void> {
  const costs = await protectCost(await lab.host('protect'), ROUNDS.protect, PROTECT_CALLS);
  printTable(
    `protect, ${ROUNDS.protect} rounds of ${PROTECT_CALLS} calls`,
    ['beside', 'at a time', 'calls/s', 'p50 ms', 'p99 ms'],
    costs.map(({ beside, width, perSecond, p50Ms, p99Ms }) => {
      return [beside, String(width), perSecond.toFixed(0), p50Ms.toFixed(3), p99Ms.toFixed(3)];
    }),
  );
  for (const { beside, width, p99Ms } of costs) {
    if (width === 1) printWanted(`p99 ms of protect beside ${beside}`, p99Ms, 1, 3);
  }
}

async function send(): Promise<void> {
  const program = compile('send', lab.directory);
  if (program === undefined) return;
  const costs = await sendCost(lab, ROUNDS.send, program);
  const crowds = Object.keys(CROWDS) as (keyof typeof CROWDS)[];
  printTable(
    `a UDP send that no VPN covers, ${ROUNDS.send} rounds (ns; in brackets: of the same with none)`,
    ['others have', ...crowds],
    costs.map(({ who, nanoseconds }) => [
      who,
      ...crowds.map(
        (crowd) => `${nanoseconds[crowd].toFixed(0)} (${(nanoseconds[crowd] / nanoseconds.none).toFixed(2)})`,
      ),
    ]),
  );
  for (const { who, nanoseconds } of costs) {
    printWanted(`a send (${who}) beside 100 VPNs, of one beside none`, nanoseconds['100 VPNs'] / nanoseconds.none, 1.3);
  }
}

/**
 * `npm run bench:policy`: what the rules cost those whose traffic goes through them, and what many VPNs cost each other,
 * measured side by side in one run. As root; in namespaces of its own. It judges nothing by its exit status.
 *
 *   policy.js [throughput] [setup]     only these parts
 */
import { mkdirSync, rmdirSync } from 'node:fs';
import { release } from 'node:os';
import { cgroup2Root } from '../src/kernel/cgroup.js';
import { whyNoCgroup } from '../test/lab/lib/cgroup.js';
import { Lab } from '../test/lab/lib/lab.js';
import { EX_UNAVAILABLE, whyNoLab } from '../test/lab/lib/prerequisites.js';
import { compile } from './lib/compile.js';
import { POLICY_VPNS } from './lib/policy-configs.js';
import { policyCost } from './lib/policy-cost.js';
import { printTable, printWanted, printWantedAtLeast } from './lib/table.js';
import { buildSite, throughput } from './lib/throughput.js';

const ROUNDS = { throughput: 31, setup: 31 };
/** Which of the 16 are printed. */
const SHOWN = [1, 2, 4, 8, 12, 16];

const reason = whyNoLab();
if (reason !== undefined) {
  console.error(reason);
  process.exit(EX_UNAVAILABLE);
}
const asked = process.argv.slice(2);
const isAsked = (part: string): boolean => asked.length === 0 || asked.includes(part);
const lab = await Lab.create({ lifetimeSeconds: 1800 });
const cgroups = makeCgroups();
try {
  console.log(
    `Linux ${release()}, Node ${process.version}; medians of interleaved rounds, ratios are medians of theirs`,
  );
  if (isAsked('throughput')) await throughputs();
  if (isAsked('setup')) await setups();
} finally {
  await lab.close();
  cgroups?.remove();
}

async function throughputs(): Promise<void> {
  const [bulk, send] = ['bulk', 'send'].map((name) => compile(name, lab.directory));
  if (bulk === undefined || send === undefined) return;
  const without = await buildSite(lab, 'without', bulk);
  const withVpns = await buildSite(lab, 'with', bulk, { ...(cgroups && { cgroups: cgroups.path }) });
  const results = await throughput(without, withVpns, ROUNDS.throughput, { bulk, send });
  printTable(
    `through the rules of ${POLICY_VPNS} VPNs and without any, ${ROUNDS.throughput} rounds (covered: into a TUN that a C program reads; uncovered: over a veth; UDP: 64 bytes)`,
    ['', '', 'without', 'with', 'with/without'],
    results.map(({ what, unit, without, with: through, ratio }) => {
      return [what, unit, without.toFixed(0), through.toFixed(0), ratio.toFixed(3)];
    }),
  );
  for (const { what, unit, ratio } of results) if (unit === 'Mbit/s') printWantedAtLeast(what, ratio, 0.95, 3);
}

async function setups(): Promise<void> {
  const host = await lab.host('setups');
  const { setUps, ratio, reloads } = await policyCost(host, ROUNDS.setup, cgroups?.path);
  printTable(
    `setUp of the Nth user's VPN, with DNS and an application list${cgroups ? '' : ' (without a cgroup)'}, ${ROUNDS.setup} rounds`,
    ['N', ...SHOWN.map(String)],
    [['ms', ...SHOWN.map((number) => (setUps[number - 1] ?? Number.NaN).toFixed(2))]],
  );
  printWanted(`the ${POLICY_VPNS}th setUp, of the first`, ratio, 1.3);
  printTable(
    'reading a changed policy, each of 100 times',
    ['VPNs', 'ms', 'CPU ms of the service'],
    reloads.map(({ vpns, wallMs, cpuMs }) => [String(vpns), wallMs.toFixed(2), cpuMs.toFixed(2)]),
  );
}

/** One cgroup a user, in the machine's own tree; undefined where none can be made or no program attached to it. */
function makeCgroups(): { path: string; remove: () => void } | undefined {
  const why = whyNoCgroup();
  if (why !== undefined) {
    console.log(`application lists name no cgroups: ${why}`);
    return undefined;
  }
  const path = `/vpnd-bench-${process.pid}`;
  const root = `${cgroup2Root()}${path}`;
  const all = [root, ...Array.from({ length: POLICY_VPNS }, (_, index) => `${root}/app-${index}`)];
  for (const directory of all) mkdirSync(directory);
  const remove = () => {
    for (const directory of all.reverse()) rmdirSync(directory);
  };
  return { path, remove };
}

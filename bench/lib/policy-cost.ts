/** What the Nth VPN costs to set up when N - 1 others stand, and what reading the policy again costs with none and with all. */
import { readFileSync } from 'node:fs';
import type { LabHost } from '../../test/lab/lib/host.js';
import { startVpnd, type Vpnd } from '../../test/lab/lib/vpnd.js';
import { Driver } from './driver.js';
import { benchPolicy, POLICY_VPNS } from './policy-configs.js';
import { median } from './statistics.js';

export interface ReloadCost {
  vpns: number;
  wallMs: number;
  /** Of the service. */
  cpuMs: number;
}

export interface PolicyCost {
  /** Median milliseconds of the 1st, 2nd, … VPN. */
  setUps: number[];
  /** Of the last to the first: median of the rounds' ratios. */
  ratio: number;
  reloads: ReloadCost[];
}

const WARM_UP_ROUNDS = 5;
const RELOADS = 100;
/** USER_HZ, as /proc has it on every architecture that Node runs on. */
const TICKS_PER_SECOND = 100;

export async function policyCost(host: LabHost, rounds: number, cgroups: string | undefined): Promise<PolicyCost> {
  const vpnd = await startVpnd(host, { policy: benchPolicy('private') });
  const env = { VPND_SOCKET: vpnd.socket };
  const vpns = new Driver(
    host.spawnNode('dist/bench/lib/policy-vpns.js', cgroups === undefined ? [] : [cgroups], { env }),
  );
  const reloads = [await reload(vpnd, 0)];
  const times: number[][] = [];
  for (let round = 0; round < WARM_UP_ROUNDS + rounds; round++) {
    const all: number[] = [];
    for (let index = 0; index < POLICY_VPNS; index++) all.push(Number(await vpns.ask(`up ${index}`)));
    if (round >= WARM_UP_ROUNDS) times.push(all);
    if (round === WARM_UP_ROUNDS + rounds - 1) reloads.push(await reload(vpnd, POLICY_VPNS));
    for (let index = POLICY_VPNS - 1; index >= 0; index--) await vpns.ask(`down ${index}`);
  }
  await vpns.stop();
  await vpnd.stop();
  const setUps = Array.from({ length: POLICY_VPNS }, (_, index) =>
    median(times.map((all) => all[index] ?? Number.NaN)),
  );
  const ratio = median(times.map((all) => (all.at(-1) ?? Number.NaN) / (all[0] ?? Number.NaN)));
  return { setUps, ratio, reloads };
}

/** Per reload, each of which changes what covered traffic may reach on the LAN. */
async function reload(vpnd: Vpnd, vpns: number): Promise<ReloadCost> {
  const done = () => vpnd.log().split(' policy-loaded ').length;
  const [startMs, startCpu] = [performance.now(), cpuMs(vpnd.pid)];
  for (let count = 0; count < RELOADS; count++) {
    const before = done();
    vpnd.reload(benchPolicy(count % 2 === 0 ? 'off' : 'private'));
    for (let tries = 0; done() === before; tries++) {
      if (tries > 10_000) throw new Error('vpnd does not read its policy again');
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }
  const wallMs = (performance.now() - startMs) / RELOADS;
  return { vpns, wallMs, cpuMs: (cpuMs(vpnd.pid) - startCpu) / RELOADS };
}

/** User and system time of a process with all its threads: proc_pid_stat(5), fields 14 and 15. */
function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_PER_SECOND;
}

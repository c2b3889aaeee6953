/**
 * The rendered text of a plan is what the kernel gets:
 *
 *   ours      VpnHost raises the plan                    no link between the two; nothing is sent
 *   theirs    `ip`, `sysctl` and `nft` run its text
 *
 * and `ip -j`, `nft -j` and /proc/sys of both say the same. Only `ip tuntap` is replaced, by a process that makes the device
 * and keeps it open, as an app does: without a holder it would have no carrier.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { AppSelector } from '../../src/host/applications.js';
import { firewallBase, firewallTables } from '../../src/host/firewall-base.js';
import { LAST_UID } from '../../src/host/numbers.js';
import { type Plan, planBase } from '../../src/host/plan.js';
import { renderOperations, renderPlan } from '../../src/host/render.js';
import { VpnHost } from '../../src/host/vpn-host.js';
import { cgroup2Root } from '../../src/kernel/cgroup.js';
import { openTun } from '../../src/kernel/tun.js';
import { inputOf, planOf, SAMPLES, type SamplePlan } from '../unit/host/lib/sample-plans.js';
import { canonicalState, diffState } from './lib/canonical-state.js';
import type { LabHost } from './lib/host.js';
import { Lab } from './lib/lab.js';
import { requireRoot } from './lib/prerequisites.js';
import type { LabProcess } from './lib/process.js';

const SCRIPT = 'dist/test/lab/plan-text.test.js';
/** The samples' cgroup is one of ours, so that a program can be attached to it. */
const CGROUP = `/vpn-plan-text-${process.pid}`;

if (process.argv[2] === 'raise') await raise(JSON.parse(process.argv[3] ?? '') as SamplePlan);
else if (process.argv[2] === 'hold') hold(process.argv[3] ?? '', process.argv[4] === 'vnet_hdr');
else tests();

/** Raises a plan, and lowers it when something comes on standard input. */
async function raise(sample: SamplePlan): Promise<void> {
  const host = new VpnHost({
    stateDir: mkdtempSync('/run/vpnd/state-'),
    log: () => undefined,
    onContested: () => undefined,
  });
  const { selections: _, sections: __, lastUid: ___, outsideServers: ____, ...request } = inputOf(sample);
  const vpn = await host.raise(request);
  console.log('raised');
  process.stdin.once('data', async () => {
    await host.lower(vpn);
    await host.close();
    console.log('lowered');
    process.exit();
  });
}

function hold(device: string, vnetHeader: boolean): void {
  openTun(device, { vnetHeader });
  console.log('held');
  process.stdin.resume();
}

function tests(): void {
  test('a plan does to the kernel what its text says, and undoes all of it', { timeout: 600_000 }, async (t) => {
    if (!requireRoot(t)) return;
    const lab = await Lab.create();
    t.after(() => lab.close());
    const root = cgroup2Root();
    if (root !== undefined) {
      mkdirSync(join(root, CGROUP));
      t.after(() => rmdirSync(join(root, CGROUP)));
    }
    for (const given of SAMPLES) {
      const sample = withCgroup(given);
      await t.test(sample.name, async (t) => {
        if (root === undefined && usesCgroups(sample)) return t.skip('there is no cgroup v2');
        const [ours, theirs] = await Promise.all([lab.host('ours'), lab.host('theirs')]);
        // As on a real host, so that switching it off can be seen.
        await Promise.all([ours, theirs].map((host) => host.sysctl('net.ipv6.conf.default.accept_ra=1')));
        const before = await canonicalState(ours);
        const child = ours.spawnNode(SCRIPT, ['raise', JSON.stringify(sample)]);
        await child.waitFor(/^raised$/m, 60_000);
        const holder = await runText(theirs, planOf(sample));

        const [made, written] = [await canonicalState(ours), await canonicalState(theirs)];
        // What the resolver is told is no text of a plan.
        const differences = diffState(written, made).filter((line) => !line.includes('resolv.conf: '));
        assert.deepEqual(differences, []);
        assert.notDeepEqual(diffState(before, made), [], 'the listing sees the VPN');

        child.write('lower\n');
        await child.waitFor(/^lowered$/m, 60_000);
        await child.exited;
        assert.deepEqual(diffState(before, await canonicalState(ours)), []);
        await holder.kill('SIGKILL');
      });
    }
  });
}

/** The text as an administrator would run it; nft's lines as one file, because a shell would read their `&` and `|`. */
async function runText(host: LabHost, plan: Plan): Promise<LabProcess> {
  const lines = (renderOperations(planBase(LAST_UID)) + renderPlan(plan)).trimEnd().split('\n');
  const holder = host.spawnNode(SCRIPT, ['hold', plan.link.name, plan.link.vnetHeader ? 'vnet_hdr' : '']);
  await holder.waitFor(/^held$/m, 60_000);
  const shell = lines.filter((line) => /^(ip|sysctl) /.test(line) && !line.startsWith('ip tuntap'));
  await host.run('sh', ['-e'], { input: `${shell.join('\n')}\n`, timeoutMs: 60_000 });
  const nft = lines.filter((line) => line.startsWith('nft ')).map((line) => line.slice('nft '.length));
  if (nft.length > 0)
    await host.run('nft', ['-f', '-'], { input: [...firewallTables(), ...firewallBase(), ...nft, ''].join('\n') });
  return holder;
}

function withCgroup(sample: SamplePlan): SamplePlan {
  const here = (selectors: AppSelector[] = []) =>
    selectors.map((each): AppSelector => (each.kind === 'cgroup' ? { kind: 'cgroup', path: CGROUP } : each));
  return { ...sample, trusted: here(sample.trusted), blocked: here(sample.blocked) };
}

function usesCgroups({ trusted = [], blocked = [] }: SamplePlan): boolean {
  return [...trusted, ...blocked].some(({ kind }) => kind === 'cgroup');
}

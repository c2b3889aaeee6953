/** Rules and tables of the machine's own in the policy lab, and who gets where beside them. */
import assert from 'node:assert/strict';
import type { Victim } from './attackers/victim.js';
import { connect } from './exits.js';
import { POLICY_ADDRESSES, type PolicyLab } from './policy-lab.js';
import { ADDRESSES } from './standard-lab.js';
import { type VpnApp, vpnConfig } from './vpn-app.js';
import { eventually, exitOf } from './vpn-lab.js';

const { internet } = ADDRESSES;
const FAMILIES = ['ipv4', 'ipv6'] as const;
/** The one that rules of others lead to. */
export const TABLE = '200';

/** `ip` of one family, or of both. */
export const ip4 = (lab: PolicyLab, ...commands: string[]) => lab.app.ip(...commands);
export async function ip6(lab: PolicyLab, ...commands: string[]): Promise<void> {
  for (const command of commands) await lab.app.run('ip', ['-6', ...command.split(' ')]);
}
export async function ip(lab: PolicyLab, ...commands: string[]): Promise<void> {
  await ip4(lab, ...commands);
  await ip6(lab, ...commands);
}

/** Main has no default route; the machine's rules lead everybody to another table's. */
export async function onlyDefaultInTable(lab: PolicyLab): Promise<void> {
  const { router } = POLICY_ADDRESSES;
  for (const [far, via] of [
    ['default', router.ipv4],
    ['::/0', router.ipv6],
  ]) {
    await lab.app.ip(`route del ${far} dev eth0`, `route del ${far} dev eth1`);
    await lab.app.ip(`route add ${far} via ${via} dev eth0 table ${TABLE}`);
  }
  await ip(lab, `rule add pref 32000 lookup ${TABLE}`);
}

export async function raise(
  lab: PolicyLab,
  { owner, config }: Pick<Victim, 'owner' | 'config'>,
  number = 1,
): Promise<VpnApp> {
  const exit = exitOf(lab, number);
  const app = await lab.process(owner);
  await connect(app, exit, vpnConfig(exit.vnic, config));
  return app;
}

/** Whom the VPN covers, it carries, and nobody else. */
export async function covers(lab: PolicyLab, { covered, uncovered }: Victim, what: string): Promise<void> {
  const { client } = exitOf(lab, 1);
  for (const uid of [...covered, uncovered]) {
    for (const family of FAMILIES) {
      const answer = await lab.probe({ uid, protocol: 'udp', target: internet[family], timeoutMs: 5000 });
      const wanted = uid === uncovered ? 'server' : 'exit1';
      assert.equal('side' in answer ? answer.side : answer.error, wanted, `${what}: ${uid} ${family}`);
      if (uid !== uncovered) assert.equal('source' in answer && answer.source, client[family], what);
    }
  }
}

/** By what a protected socket of this process reaches the internet: the server's name and the source it saw. */
export async function protectedReaches(app: VpnApp, timeoutMs = 5000): Promise<string[]> {
  const heard: string[] = [];
  for (const family of FAMILIES) {
    const socket = await app.call('open', family === 'ipv6' ? 2 : 1, 'udp');
    await app.call('protect', socket);
    heard.push(await app.call('askOn', socket, { transport: 'udp', address: internet[family], timeoutMs }));
    await app.call('close', socket);
  }
  return heard;
}

export const by = (side: string, own: { ipv4: string; ipv6: string }) => [`${side} ${own.ipv4}`, `${side} ${own.ipv6}`];

export async function protectedReach(app: VpnApp, wanted: string[], what: string): Promise<void> {
  await eventually(what, async () => (await protectedReaches(app, 1000)).join() === wanted.join() || undefined).catch(
    async () => assert.deepEqual(await protectedReaches(app), wanted, what),
  );
}

/**
 * A machine without the files that give numbers names: /etc/protocols, /etc/services, /etc/passwd (minimal images). What the kernel is
 * told must not depend on them, and "ready" is said only by a service that can raise a VPN.
 *
 *   app: vpnd with an empty /etc       router ── server, exit1
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { raise, VICTIMS } from './lib/attackers/victim.js';
import { FAMILIES, isLinkUpkeep } from './lib/policy-facts.js';
import { policyLab } from './lib/policy-lab.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { exitOf, vpnLab } from './lib/vpn-lab.js';

const { internet } = ADDRESSES;
const PROTOCOLS = ['tcp', 'udp', 'icmp', 'dns-udp', 'dns-tcp'] as const;
const callers = [0, 2001, 2002].map((uid) => ({
  match: { uid },
  system: true,
  permissions: ['ohos.permission.MANAGE_VPN'],
}));

/** Users who are called like numbers of others, and of the ends of the ranges that the rules have. */
const NUMBERS = [0, 999, 2001, 2002, 2003, 4294967294]
  .map((name) => `${name}:x:${(name % 10_000) + 7000}:1::/:/bin/sh\n`)
  .join('');
const MACHINES = [
  ['where /etc names nothing', {}],
  ['where users have numbers for names', { passwd: NUMBERS }],
] as const;

const CASES = MACHINES.flatMap(([machine, bareEtc]) =>
  VICTIMS.flatMap((victim) => [false, true].map((isLocked) => ({ machine, bareEtc, victim, isLocked }))),
);

for (const { machine, bareEtc, victim, isLocked } of CASES) {
  const { whose, owner, covered } = victim;
  test(`${whose}${isLocked ? ' under lockdown' : ''} is as closed and as open as ever ${machine}`, {
    timeout: 180_000,
  }, async (t) => {
    const lab = await policyLab(t, { vpnd: { bareEtc, policy: { callers, lockdown: isLocked ? [owner] : [] } } });
    if (!lab) return;
    if (isLocked) {
      for (const family of FAMILIES) {
        const answer = await lab.probe({ uid: owner, protocol: 'tcp', target: internet[family] });
        assert.deepEqual(answer, { error: 'EACCES' }, `${family} before there is a VPN`);
      }
    }
    const exit = exitOf(lab, 1);
    const since = await lab.moment();
    const { facts } = await raise(lab, victim, { dnsAddresses: [exit.ipv4, exit.ipv6] });
    for (const uid of covered) {
      for (const family of FAMILIES) {
        for (const protocol of PROTOCOLS) {
          const answer = await lab.probe({ uid, protocol, target: internet[family], timeoutMs: 20_000 });
          assert.equal('side' in answer ? answer.side : answer.error, exit.name, `${uid} ${protocol} ${family}`);
        }
        const bound = { uid, protocol: 'udp', target: internet[family], bindTo: 'eth0', timeoutMs: 200 } as const;
        assert.ok('error' in (await lab.probe(bound)), `${uid} bound to the device, ${family}`);
      }
    }
    assert.deepEqual(await lab.leaks({ ...facts, isUncovered: isLinkUpkeep }, undefined, since), []);
  });
}

test('a service whose rules the kernel refuses ends at start and says why, in one line', {
  timeout: 120_000,
}, async (t) => {
  const lab = await vpnLab(t, { networks: [] });
  if (!lab) return;
  // Every capability, but in a user namespace that this network namespace does not belong to: a rootless container on the host's network.
  const paths = ['--socket', join(lab.lab.directory, 'other.sock'), '--state-dir', join(lab.lab.directory, 'other')];
  await lab.vpnd.stop();
  const { status, stdout, stderr } = await lab.app.run(
    'unshare',
    ['--user', '--map-root-user', '/run/node', lab.app.path('dist/src/service/vpnd.js'), ...paths],
    { check: false },
  );
  assert.equal(status, 77, stdout + stderr);
  const lines = stderr.split('\n').filter((line) => !/^\S+Z warning no-/.test(line));
  assert.equal(lines.length, 2, stderr);
  assert.match(lines[0] ?? '', /^vpnd: .*firewall.*network namespace.*user namespace/);
});

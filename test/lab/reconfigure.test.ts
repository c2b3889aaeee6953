/**
 * Nothing leaves while VPNs and policy come and go: a hundred times, with traffic of every kind on its way all the time.
 *
 *   app uid 2001 ── vpn-tunN ═══════════════════════════ exit1
 *       uid 2002, root: not covered, at work all the time
 *       eth0 ─── router ── server, lanhost      all that leaves is captured
 *       eth1 ─── cafe
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from './lib/exits.js';
import type { DepartedPacket } from './lib/leak-check.js';
import { FAMILIES, isInside, isLinkUpkeep, raise } from './lib/policy-facts.js';
import { isTunnelDatagram, POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { type Flow, plainFlows, startTraffic } from './lib/steady-traffic.js';
import { vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf } from './lib/vpn-lab.js';

const { internet, server: SERVER } = ADDRESSES;
const { app: HOST } = POLICY_ADDRESSES;
const ROUNDS = 100;
const TIMEOUT = { timeout: 600_000 };
const UIDS = [0, 2001, 2002];
const callers = UIDS.map((uid) => ({ match: { uid }, system: true, permissions: ['ohos.permission.MANAGE_VPN'] }));

/** The covered user never asks there: whatever goes there is somebody else's. */
const OTHERS = [SERVER.ipv4, SERVER.ipv6];
const COVERED: Flow[] = FAMILIES.flatMap((family) => [
  ...plainFlows([internet[family]]),
  { protocol: 'udp', target: internet[family], bindTo: 'eth0' },
  { protocol: 'tcp', target: internet[family], bindTo: 'eth1' },
  { protocol: 'udp', target: internet[family], source: HOST[family], isKept: true },
  { protocol: 'tcp', target: internet[family], source: HOST[family] },
]);

/** Every one another policy; none of them lets the covered user out. */
function policyOf(round: number, lockdown: number[]): object {
  const lan = ['private', 'off', ['192.168.50.0/24', 'fd50::/64'], ['192.168.0.0/16']][round % 4];
  return {
    callers,
    lan,
    udpServices: [[], [5353], [5353, 7000], [7]][(round >> 1) % 4],
    lockdown: [...lockdown, ...([[], [2005], [2005, 2006], [2006]][(round >> 2) % 4] ?? [])],
    forwarding: round % 3 === 0 ? { docker0: 'block' } : {},
  };
}

async function reload({ vpnd }: PolicyLab, policy: object): Promise<void> {
  const loads = () => vpnd.log().split('policy-loaded').length;
  const before = loads();
  vpnd.reload(policy);
  await eventually('the policy', async () => loads() > before || undefined);
}

/** Traffic and sessions of those who are not covered, which nothing of this may harm. */
async function startOthers(lab: PolicyLab, uids: readonly number[]) {
  const far = await lab.stranger(lab.server);
  const inbound = await Promise.all(
    FAMILIES.map((family) => far.call('openSession', { target: HOST[family], port: 22 })),
  );
  const users = await Promise.all(uids.map((uid) => lab.prober({ uid })));
  const outbound = await Promise.all(
    users.flatMap((prober) =>
      FAMILIES.map(async (family) => ({
        prober,
        number: await prober.call('openSession', { target: SERVER[family] }),
      })),
    ),
  );
  return {
    goOn: async (): Promise<void> => {
      for (const number of inbound) await far.goesOn(number);
      for (const { prober, number } of outbound) await prober.goesOn(number);
    },
  };
}

function isOthers({ destination, sourcePort = 0 }: DepartedPacket): boolean {
  return OTHERS.some((address) => address === destination) && sourcePort !== 0;
}

const facts = {
  isUncovered: (packet: DepartedPacket) => isLinkUpkeep(packet) || isOthers(packet),
  isProtected: isTunnelDatagram,
};

test(
  '100 times destroyed and set up again: nothing of a user under lockdown on a physical link',
  TIMEOUT,
  async (t) => {
    const lab = await policyLab(t, { vpnd: { policy: policyOf(0, [2001]) } });
    if (!lab) return;
    const exit = exitOf(lab, 1);
    const others = await startOthers(lab, [2002, 0]);
    const since = await lab.moment();
    const traffic = await startTraffic(lab.app, 2001, COVERED);
    const vpn = await lab.process(2001);
    for (let round = 1; round <= ROUNDS; round++) {
      await connect(vpn, exit, vpnConfig(exit.vnic));
      if (round % 2 === 0) await reload(lab, policyOf(round, [2001]));
      if (round % 10 === 1) {
        await isInside(lab, 2001);
        await traffic.answeredOn(({ bindTo, source }) => bindTo === undefined && source === undefined);
        await others.goOn();
      }
      await vpn.call('destroy');
      if (round % 2 === 1) await reload(lab, policyOf(round, [2001]));
    }
    await traffic.askedOn();
    await others.goOn();
    assert.deepEqual(await lab.leaks(facts, undefined, since), []);
    const sides = (await traffic.states()).flatMap((state) => state.sides);
    assert.deepEqual([...new Set(sides)], ['exit1']);
  },
);

for (const owner of [2001, 0]) {
  const whose = owner === 0 ? "root's VPN" : "a user's VPN";
  test(`100 other policies while ${whose} is up: it holds without lockdown`, TIMEOUT, async (t) => {
    const lab = await policyLab(t, { vpnd: { policy: policyOf(0, []) } });
    if (!lab) return;
    const others = owner === 0 ? await startOthers(lab, []) : await startOthers(lab, [2002, 0]);
    await raise(lab, owner);
    const traffic = await startTraffic(lab.app, 2001, COVERED);
    const since = await lab.moment();
    for (let round = 1; round <= ROUNDS; round++) {
      await reload(lab, policyOf(round, []));
      if (round % 20 === 0) {
        await traffic.answeredOn(({ bindTo, source }) => bindTo === undefined && source === undefined);
        await others.goOn();
      }
    }
    await traffic.askedOn();
    const isInbound = ({ sourcePort }: DepartedPacket) => sourcePort === 22;
    assert.deepEqual(await lab.leaks({ ...facts, isInbound }, undefined, since), []);
    const sides = (await traffic.states()).flatMap((state) => state.sides);
    assert.deepEqual([...new Set(sides)], ['exit1']);
    assert.doesNotMatch(lab.vpnd.log(), /policy-not-in-force|refresh-failed/);
  });
}

/**
 * Questions to port 53 by transports that cannot be redirected (UDP-Lite, SCTP, DCCP): a VPN with DNS servers lets them out nowhere,
 * neither to the local network's resolver nor to this host's, which would forward them under its own user.
 *
 *   app ── lo, eth0, eth1, vpn-tunN captured          lanhost, exit1: nobody of them is asked
 *     └─ docker0 ── container1
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { VpnConfig } from '../../src/model/vpn-types.js';
import { raise, VICTIMS } from './lib/attackers/victim.js';
import type { Capture } from './lib/capture.js';
import { whyNoCgroup } from './lib/cgroup.js';
import { startContainer, startDocker } from './lib/docker-bridge.js';
import type { LabHost } from './lib/host.js';
import { describePacket } from './lib/leak-check.js';
import type { CapturedPacket } from './lib/pcap.js';
import { POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import type { LabProcess } from './lib/process.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { eventually, exitOf } from './lib/vpn-lab.js';

const { internet } = ADDRESSES;
const { app: HOST, lanHost, attacker: ATTACKER } = POLICY_ADDRESSES;
const FAMILIES = ['ipv4', 'ipv6'] as const;
const LOOPBACK = { ipv4: '127.0.0.1', ipv6: '::1' };
const TIMEOUT = { timeout: 240_000 };
const DNS = 53;
const OTHER = 54;
const NUMBERS = { sctp: 132, dccp: 33, lite: 136 };

interface Sender {
  process: LabProcess;
  tries(attempts: readonly object[]): Promise<void>;
}

/** escape.py as this user, who says of each attempt how it went. */
async function sender(host: LabHost, uid: number, cgroup = ''): Promise<Sender> {
  const script = ['python3', '-SE', host.path('test/lab/lib/attackers/escape.py'), String(uid), 'raw'];
  const enter = cgroup === '' ? ['exec "$@"', 'sh'] : ['echo $$ > "$0/cgroup.procs" && exec "$@"', cgroup];
  const process = host.spawn('sh', ['-c', ...enter, ...script]);
  await process.waitFor(/^ready$/m);
  const tries = async (attempts: readonly object[]) => {
    const before = process.stdout.split('\n').length;
    process.write(attempts.map((attempt) => `${JSON.stringify(attempt)}\n`).join(''));
    const done = () => process.stdout.split('\n').length >= before + attempts.length || undefined;
    await eventually('all attempts', async () => done());
  };
  return { process, tries };
}

/** To this port of this address, by every transport and every way out. */
function questions(target: string, port: number): object[] {
  const source = target.includes(':') ? HOST.ipv6 : HOST.ipv4;
  const ports = Buffer.from([0x60, 0, port >> 8, port & 255]).toString('hex');
  const rest = '00'.repeat(28);
  return [
    { way: 'lite', target, port },
    { way: 'lite', target, port, source, from: port },
    { way: 'lite', target, port, device: 'eth0' },
    { way: 'raw', target, protocol: NUMBERS.sctp, data: ports + rest },
    { way: 'raw', target, protocol: NUMBERS.dccp, data: ports + rest },
  ];
}

const everywhere = (port: number) =>
  FAMILIES.flatMap((family) =>
    [lanHost[family], internet[family], LOOPBACK[family], HOST[family]].flatMap((target) => questions(target, port)),
  );

/** Those to this port, as `LINK PROTOCOL SOURCE > DESTINATION`; at least those that were sent before this call. */
async function asked(lab: PolicyLab, captures: Record<string, Capture>, port: number): Promise<string[]> {
  const numbers = Object.values(NUMBERS).map(String);
  const isAsked = ({ protocol, payload }: CapturedPacket) =>
    numbers.includes(protocol) && payload.length >= 4 && Buffer.from(payload).readUInt16BE(2) === port;
  const more = await Promise.all(
    Object.entries(captures).map(async ([link, capture]) => (await capture.peek()).map((each) => ({ ...each, link }))),
  );
  const found = [...(await lab.departed()), ...more.flat()].filter(isAsked).map(describePacket);
  return [...new Set(found)].sort();
}

const servers = (lab: PolicyLab): Omit<VpnConfig, 'addresses'> => {
  const { ipv4, ipv6 } = exitOf(lab, 1);
  return { dnsAddresses: [ipv4, ipv6] };
};

for (const victim of VICTIMS) {
  const { whose, covered, uncovered } = victim;
  const uid = covered.at(-1) ?? 0;

  test(`${whose}: no question to port 53 by UDP-Lite, SCTP or DCCP reaches anybody`, TIMEOUT, async (t) => {
    const lab = await policyLab(t);
    if (!lab) return;
    const tunnel = await raise(lab, victim, servers(lab));
    const captures = { lo: await lab.app.capture('lo'), tunnel: await lab.app.capture(tunnel.device) };
    const asking = await sender(lab.app, uid);
    // Other ports go where everything goes.
    await asking.tries(everywhere(OTHER));
    for (const family of FAMILIES) {
      for (const [number, link, target] of [
        [NUMBERS.lite, 'eth0', lanHost],
        [NUMBERS.sctp, 'eth0', lanHost],
        [NUMBERS.lite, 'tunnel', internet],
        [NUMBERS.dccp, 'tunnel', internet],
      ] as const) {
        await eventually(`${number} by ${link} to ${target[family]}`, async () => {
          const elsewhere = await asked(lab, captures, OTHER);
          const isIt = (line: string) => line.startsWith(`${link} ${number} `) && line.endsWith(target[family]);
          return elsewhere.some(isIt) || undefined;
        });
      }
    }
    await asking.tries(everywhere(DNS));
    assert.deepEqual(await asked(lab, captures, DNS), []);

    // Asked from port 53 first, so that the question looks like an answer.
    const attacker = await sender(lab.attacker, 0);
    for (const family of FAMILIES) {
      const source = HOST[family];
      await attacker.tries([{ way: 'lite', target: source, port: 6000, source: ATTACKER[family], from: DNS }]);
      const late = { way: 'lite', target: ATTACKER[family], port: DNS, source, from: 6000 };
      await asking.tries([late, { ...late, device: 'eth0' }]);
    }
    assert.deepEqual(await asked(lab, captures, DNS), []);

    await lab.vpnd.kill9();
    await asking.tries(everywhere(DNS));
    assert.deepEqual(await asked(lab, captures, DNS), []);
    const other = await sender(lab.app, uncovered);
    await other.tries([{ way: 'lite', target: lanHost.ipv4, port: DNS }]);
    await eventually('its question', async () => (await asked(lab, captures, DNS))[0]);
    assert.deepEqual(await asked(lab, captures, DNS), [`eth0 136 ${HOST.ipv4} > ${lanHost.ipv4}`]);
  });

  for (const [refused, index] of [
    ['ipv4', 1],
    ['ipv6', 0],
  ] as const) {
    test(`${whose} without ${refused}: no such question in that family either`, TIMEOUT, async (t) => {
      const lab = await policyLab(t);
      if (!lab) return;
      const exit = exitOf(lab, 1);
      const addresses = exit.vnic.filter((_, at) => at === index);
      const accepted = { isIPv4Accepted: refused !== 'ipv4', isIPv6Accepted: refused !== 'ipv6' };
      const vpn = await lab.process(victim.owner);
      const given = addresses.map((text) => {
        const [address = '', prefixLength] = text.split('/');
        return {
          address: { address, family: address.includes(':') ? 2 : 1 } as const,
          prefixLength: Number(prefixLength),
        };
      });
      const dnsAddresses = [refused === 'ipv4' ? exit.ipv6 : exit.ipv4];
      await vpn.call('setUp', { addresses: given, dnsAddresses, ...accepted, ...victim.config });
      const captures = { lo: await lab.app.capture('lo') };
      const asking = await sender(lab.app, uid);
      await asking.tries(everywhere(DNS));
      assert.deepEqual(await asked(lab, captures, DNS), []);
    });
  }

  test(`${whose} for one application: its questions only`, TIMEOUT, async (t) => {
    const reason = whyNoCgroup();
    if (reason !== undefined) return t.skip(reason);
    const lab = await policyLab(t);
    if (!lab) return;
    const cgroup = lab.cgroup('listed');
    const listed = { trustedApplications: [`cgroup:${cgroup.path}`] };
    const before = await sender(lab.app, uid, cgroup.directory);
    const tunnel = await raise(lab, { owner: victim.owner, config: {} }, { ...servers(lab), ...listed });
    const captures = { lo: await lab.app.capture('lo'), tunnel: await lab.app.capture(tunnel.device) };
    const asking = await sender(lab.app, uid, cgroup.directory);
    await before.tries(everywhere(DNS));
    await asking.tries(everywhere(DNS));
    assert.deepEqual(await asked(lab, captures, DNS), []);
    const other = await sender(lab.app, uid);
    await other.tries([{ way: 'lite', target: lanHost.ipv4, port: DNS }]);
    await eventually('its question', async () => (await asked(lab, captures, DNS))[0]);
    assert.deepEqual(await asked(lab, captures, DNS), [`eth0 136 ${HOST.ipv4} > ${lanHost.ipv4}`]);
  });
}

test("root's VPN: no such question of a container's", TIMEOUT, async (t) => {
  const lab = await policyLab(t);
  if (!lab) return;
  await startDocker(lab.app);
  const container = await startContainer(lab.lab, lab.app, 1);
  const tunnel = await raise(lab, { owner: 0, config: {} }, servers(lab));
  const captures = { tunnel: await lab.app.capture(tunnel.device) };
  const asking = await sender(container.host, 0);
  const targets = FAMILIES.flatMap((family) => [lanHost[family], internet[family]]);
  const to = (port: number) => targets.map((target) => ({ way: 'lite', target, port }));
  await asking.tries(to(OTHER));
  // What goes to the local network: of UDP-Lite no address is translated, so nothing of it gets into the vNIC.
  const nearby = async () => (await asked(lab, captures, OTHER)).filter((line) => line.startsWith('eth0'));
  await eventually('what is no question', async () => (await nearby()).length === FAMILIES.length || undefined);
  await asking.tries(to(DNS));
  await asking.tries(to(OTHER));
  assert.deepEqual(await asked(lab, captures, DNS), []);
});

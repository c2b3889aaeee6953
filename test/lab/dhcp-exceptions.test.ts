/**
 * Leases are renewed past the locks, by system accounts alone: where every port is anybody's (ip_unprivileged_port_start), a user
 * does not get out by the ports of DHCP clients.
 *
 *   app uid 0, 999 ── eth0 ─── lanhost, router ── server     captured: what goes to the ports of DHCP servers
 *       uid 2001, 2003, 1000, covered by root's VPN or under lockdown
 */
import assert from 'node:assert/strict';
import { dirname } from 'node:path';
import { type TestContext, test } from 'node:test';
import { udpFrame } from './lib/attackers/frames.js';
import { FAMILIES, raise } from './lib/policy-facts.js';
import { POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { eventually } from './lib/vpn-lab.js';
import { startVpnd } from './lib/vpnd.js';

const { internet, server } = ADDRESSES;
const { lanHost, app: HOST } = POLICY_ADDRESSES;
const TIMEOUT = { timeout: 300_000 };
const PORTS = { ipv4: { from: 68, port: 67 }, ipv6: { from: 546, port: 547 } } as const;
const SYSTEM = [0, 999];
/** All DHCP servers on the link. */
const GROUP = { ipv4: '255.255.255.255', ipv6: 'ff02::1:2' } as const;
const LOCKDOWN = 14890;
const callers = [0, 2001, 2003].map((uid) => ({
  match: { uid },
  system: true,
  permissions: ['ohos.permission.MANAGE_VPN'],
}));

/** One line for escape.py. */
type Attempt = Record<string, unknown> & { target: string };

/** By sockets of both families, bound to the link, to an address, or to nothing but the port. */
function renewals(): Attempt[] {
  return FAMILIES.flatMap((family) => {
    const any = anyOf(family);
    const ways: Record<string, unknown>[] = [
      { source: any },
      { source: any, device: 'eth0' },
      { source: HOST[family] },
      { source: HOST[family], device: 'eth0' },
      { source: any, pktinfo: [HOST[family], 'eth0'] },
      ...(family === 'ipv4'
        ? [
            { source: any, mapped: true },
            { source: any, mapped: true, device: 'eth0' },
          ]
        : []),
    ];
    const everywhere = [internet[family], server[family], lanHost[family]].flatMap((target) =>
      ways.map((way) => ({ target, ...way })),
    );
    const onLink = { target: GROUP[family], source: any, device: 'eth0', broadcast: true };
    return [...everywhere, onLink].map((way) => ({ way: 'udp', ...PORTS[family], ...way }));
  });
}

function anyOf(family: 'ipv4' | 'ipv6'): string {
  return family === 'ipv4' ? '0.0.0.0' : '::';
}

/** What dhclient and NetworkManager do: frames made by hand. */
async function frames(lab: PolicyLab): Promise<Attempt[]> {
  const stations = { from: await lab.mac(lab.app), to: await lab.mac(lab.attacker) };
  return FAMILIES.map((family) => {
    const { from: sourcePort, port: destinationPort } = PORTS[family];
    const flow = { source: HOST[family], destination: internet[family], sourcePort, destinationPort };
    return { way: 'packet', device: 'eth0', target: internet[family], frame: udpFrame(stations, flow, 'escape') };
  });
}

/** What the kernel said of each: `ok` or an errno. */
async function attempt(lab: PolicyLab, uid: number, attempts: readonly Attempt[]): Promise<string[]> {
  const script = lab.app.path('test/lab/lib/attackers/escape.py');
  const input = attempts.map((each) => `${JSON.stringify(each)}\n`).join('');
  const { stdout } = await lab.app.run('python3', ['-SE', script, String(uid), 'raw'], { input });
  return stdout.trim().split('\n').slice(1);
}

/** From the ports of clients to those of servers, by a physical link, since there were so many. */
async function renewed(lab: PolicyLab): Promise<string[]> {
  return (await lab.departed())
    .filter(({ sourcePort, destinationPort }) =>
      FAMILIES.some((family) => PORTS[family].from === sourcePort && PORTS[family].port === destinationPort),
    )
    .map(({ link, source, destination }) => `${link} ${source} > ${destination}`);
}

/** Nothing of these users; then the renewals of system accounts, behind which nothing older can come. */
async function onlySystemAccounts(
  lab: PolicyLab,
  users: readonly number[],
  what: string,
  { isFarIpv6Covered = false } = {},
): Promise<void> {
  const sends = [...renewals(), ...(await frames(lab))];
  const before = (await renewed(lab)).length;
  for (const uid of users) await attempt(lab, uid, sends);
  assert.deepEqual((await renewed(lab)).slice(before), [], what);
  for (const uid of SYSTEM) {
    const sofar = (await renewed(lab)).length;
    await attempt(
      lab,
      uid,
      renewals().filter(({ device }) => device === 'eth0'),
    );
    for (const family of FAMILIES) {
      // Behind a VPN the rules leave an IPv6 socket that is bound to the link no other way than the link.
      const isLinkOnly = isFarIpv6Covered && family === 'ipv6';
      for (const target of [
        GROUP[family],
        ...(isLinkOnly ? [] : [internet[family], server[family], lanHost[family]]),
      ]) {
        await eventually(`${what}: uid ${uid} renews at ${target}`, async () => {
          const sent = (await renewed(lab)).slice(sofar);
          return sent.some((each) => each.startsWith('eth0 ') && each.endsWith(` > ${target}`)) || undefined;
        });
      }
    }
    // By packet sockets alone.
    const byFrames = (await renewed(lab)).length;
    await attempt(lab, uid, await frames(lab));
    for (const family of FAMILIES) {
      await eventually(`${what}: a frame of uid ${uid}`, async () => {
        const sent = (await renewed(lab)).slice(byFrames);
        return sent.includes(`eth0 ${HOST[family]} > ${internet[family]}`) || undefined;
      });
    }
  }
}

async function openPorts(t: TestContext, policy: object): Promise<PolicyLab | undefined> {
  // Nothing local is reached directly, so that only the exception for leases could let a packet out.
  const lab = await policyLab(t, { vpnd: { policy: { callers, lan: 'off', ...policy } } });
  if (!lab) return undefined;
  await lab.app.sysctl('net.ipv4.ip_unprivileged_port_start=0');
  return lab;
}

test("root's VPN: only system accounts renew leases past it", TIMEOUT, async (t) => {
  const lab = await openPorts(t, {});
  if (!lab) return;
  await raise(lab, 0);
  await onlySystemAccounts(lab, [2001, 2003, 1000], 'with vpnd', { isFarIpv6Covered: true });
  await lab.vpnd.kill9();
  await onlySystemAccounts(lab, [2001, 1000], 'vpnd dead', { isFarIpv6Covered: true });
});

test("a user's VPN: nobody's lease is its affair, and its user has no such exception", TIMEOUT, async (t) => {
  const lab = await openPorts(t, {});
  if (!lab) return;
  await raise(lab, 2001);
  await onlySystemAccounts(lab, [2001], 'with vpnd');
});

for (const locked of [[2001, 1000], [0]]) {
  const whose = locked[0] === 0 ? "everyone's" : "a user's";
  test(
    `${whose} lockdown: only system accounts renew leases, also when vpnd is dead or another came`,
    TIMEOUT,
    async (t) => {
      const policy = { lockdown: locked };
      const lab = await openPorts(t, policy);
      if (!lab) return;
      const users = [2001, 1000];
      const refusedByTheRules = async (what: string) => {
        const unbound = renewals().filter(({ device, pktinfo }) => device === undefined && pktinfo === undefined);
        // One after the other: both bind the same ports.
        for (const uid of users) {
          assert.deepEqual(new Set(await attempt(lab, uid, unbound)), new Set(['EACCES']), what);
        }
      };
      await onlySystemAccounts(lab, users, 'with vpnd');
      await refusedByTheRules('with vpnd');
      await lab.vpnd.kill9();
      await onlySystemAccounts(lab, users, 'vpnd dead');
      // What an older vpnd left.
      for (const [option, port] of [
        ['-4', 68],
        ['-6', 546],
      ] as const) {
        await lab.app.run('ip', [
          ...[option, 'rule', 'add', 'pref', `${LOCKDOWN}`, 'ipproto', 'udp', 'sport', `${port}`],
          ...['goto', '14953', 'protocol', 'kernel'],
        ]);
      }
      await startVpnd(lab.app, { directory: dirname(lab.vpnd.socket), policy: { callers, lan: 'off', ...policy } });
      await refusedByTheRules('a new vpnd');
      await onlySystemAccounts(lab, users, 'a new vpnd');
    },
  );
}

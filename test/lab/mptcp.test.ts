/**
 * MPTCP, whose further paths the kernel opens as nobody's: of whom a VPN or lockdown holds, none of them leaves by another link,
 * whatever endpoints somebody has registered and whatever addresses the far end names; and who is not held keeps them.
 *
 *   client uid 2001, 2003 or root ── eth0 (registered as an endpoint, with a second address) ── router ── server (MPTCP)
 *                                 └─ vpn-tun0 ══ exit1 (MPTCP, names the server's address as its own too)
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { cgroup2Root } from '../../src/kernel/cgroup.js';
import { raise, VICTIMS } from './lib/attackers/victim.js';
import { whyNoCgroup } from './lib/cgroup.js';
import { connect, type Exit } from './lib/exits.js';
import type { LabHost } from './lib/host.js';
import { describePacket, type LeakException } from './lib/leak-check.js';
import {
  allowPaths,
  counter,
  isMptcp,
  MPTCP_PORT,
  type MptcpClient,
  mptcpClient,
  pathsTried,
  pathTried,
  startMptcpServer,
  talk,
  whyNoMptcp,
} from './lib/mptcp.js';
import { POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { startApp, vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf, type VpnLabOptions } from './lib/vpn-lab.js';
import { startVpnd } from './lib/vpnd.js';

const { internet, server: SERVER } = ADDRESSES;
const { app: HOST, lanHost: LAN_HOST } = POLICY_ADDRESSES;
const both = ({ ipv4, ipv6 }: { ipv4: string; ipv6: string }) => [ipv4, ipv6];
const FAMILIES = ['ipv4', 'ipv6'] as const;
/** Second addresses of eth0. */
const SECOND = { ipv4: '192.168.50.3', ipv6: 'fd50::3' };
const TIMEOUT = { timeout: 180_000 };
const UNCOVERED = 2002;
const MANAGE_VPN = 'ohos.permission.MANAGE_VPN';
/** TCP flags of what a listener says: SYN and ACK, RST. */
const ANSWERS = new Set([0x12, 0x04, 0x14]);

/** MPTCP everywhere, and a second address at eth0. Undefined, and the test skipped, where that cannot be. */
async function mptcpLab(t: TestContext, options: VpnLabOptions = {}): Promise<PolicyLab | undefined> {
  const reason = whyNoMptcp() ?? whyNoCgroup();
  if (reason !== undefined) return void t.skip(reason);
  const lab = await policyLab(t, options);
  if (!lab) return undefined;
  await Promise.all([lab.server, lab.lanHost, ...lab.exits.map(({ host }) => host)].map(startMptcpServer));
  await allowPaths(lab.app);
  await lab.app.configure('eth0', [`${SECOND.ipv4}/24`, `${SECOND.ipv6}/64`]);
  return lab;
}

async function register(host: LabHost, addresses: readonly string[], device: string, how = 'subflow'): Promise<void> {
  for (const address of addresses) {
    await host.run('ip', ['mptcp', 'endpoint', 'add', address, 'dev', device, ...how.split(' ')]);
  }
}

async function deviceOf(lab: PolicyLab, address: string): Promise<string> {
  const links = await lab.app.json<{ ifname: string; addr_info: { local: string }[] }[]>('ip', [
    '-j',
    'address',
    'show',
  ]);
  return links.find(({ addr_info }) => addr_info.some(({ local }) => local === address))?.ifname ?? '';
}

/** One line for each packet of MPTCP that left by a physical link. */
async function outside(lab: PolicyLab): Promise<string[]> {
  return (await lab.departed()).filter(isMptcp).map(describePacket);
}

/** A connection of this user that goes on. */
async function connection(lab: PolicyLab, uid: number, address: string): Promise<MptcpClient> {
  const client = await mptcpClient(lab.app, uid, address);
  await talk(client);
  return client;
}

/** The same that has tried a further path, and goes on. */
async function connectionWithPath(lab: PolicyLab, uid: number, address: string): Promise<MptcpClient> {
  const before = await pathsTried(lab.app);
  const client = await connection(lab, uid, address);
  await pathTried(lab.app, before);
  assert.equal(await client.ask('say'), 'heard');
  return client;
}

/** A connection to which the far end has tried to add a path. It does not take every offer. */
async function connectionThatIsJoined(
  lab: PolicyLab,
  far: LabHost,
  uid: number,
  address: string,
): Promise<MptcpClient> {
  const before = await pathsTried(far);
  for (let attempt = 1; ; attempt++) {
    const client = await connection(lab, uid, address);
    const isTried = await pathTried(far, before, 4000).catch((error: unknown) => {
      if (attempt === 8) throw error;
      return false;
    });
    if (isTried) return client;
    await client.ask('close');
  }
}

/** The far end has taken further paths. */
async function joined(host: LabHost, count: number): Promise<void> {
  const taken = async () => (await counter(host, 'MPTcpExt', 'MPJoinAckRx')) >= count || undefined;
  await eventually('a path taken', taken);
}

/** Nothing comes out of the tunnel any more. */
async function stall({ host }: Exit): Promise<void> {
  const input = 'table inet stall { chain c { type filter hook prerouting priority -500; drop; }; }\n';
  await host.run('nft', ['-f', '-'], { input });
}

/** TCP has waited in vain and tried again, this many times. */
async function retried(host: LabHost, times: number, since: number): Promise<void> {
  const isTriedAgain = async () => (await timeouts(host)) >= since + times || undefined;
  // Each time it waits twice as long.
  await eventually('TCP tries again', isTriedAgain, 90_000);
}

function timeouts(host: LabHost): Promise<number> {
  return counter(host, 'TcpExt', 'TCPTimeouts');
}

for (const victim of VICTIMS) {
  const { whose, owner, covered } = victim;

  test(`${whose}: no path from a registered address, also with a stalled tunnel and at close`, TIMEOUT, async (t) => {
    const lab = await mptcpLab(t);
    if (!lab) return;
    const { exit } = await raise(lab, victim);
    await register(lab.app, [...both(HOST), ...both(SECOND)], 'eth0');
    const clients: MptcpClient[] = [];
    for (const uid of covered) {
      for (const family of FAMILIES) clients.push(await connectionWithPath(lab, uid, internet[family]));
    }
    await stall(exit);
    const before = await timeouts(lab.app);
    for (const client of clients) assert.match(await client.ask('fill'), /^filled [1-9]/);
    await retried(lab.app, 4, before);
    for (const client of clients) assert.equal(await client.ask('close'), 'closed');
    await retried(lab.app, 8, before);
    assert.deepEqual(await outside(lab), []);
  });

  test(`${whose}: no path to an address that the far end names, vpnd alive or dead`, TIMEOUT, async (t) => {
    const lab = await mptcpLab(t);
    if (!lab) return;
    const { exit } = await raise(lab, victim);
    const [uid = 0] = covered;
    const clients = [];
    for (const family of FAMILIES) clients.push(await connection(lab, uid, internet[family]));
    for (const address of both(SERVER)) {
      const before = await pathsTried(lab.app);
      await register(exit.host, [address], 'lo', 'signal');
      await pathTried(lab.app, before);
      if (lab.vpnd.process.running) await lab.vpnd.kill9();
    }
    for (const client of clients) assert.equal(await client.ask('say'), 'heard');
    assert.deepEqual(await outside(lab), []);
  });

  test(`${whose}: no path comes in to an address that this host names`, TIMEOUT, async (t) => {
    const lab = await mptcpLab(t);
    if (!lab) return;
    const { exit } = await raise(lab, victim);
    // The far end has a way to the host's own addresses that is no tunnel.
    const { router, app } = lab;
    await lab.lab.link(exit.host, 'eth0', ['198.51.101.2/24', '2001:db8:3::2/64'], router, 'eth9', [
      '198.51.101.1/24',
      '2001:db8:3::1/64',
    ]);
    await exit.host.ip('route add 192.168.50.0/24 via 198.51.101.1', 'route add fd50::/64 via 2001:db8:3::1');
    await register(app, both(HOST), 'eth0', `signal port ${MPTCP_PORT}`);
    await app.sysctl('net.mptcp.add_addr_timeout=1');
    const [uid = 0] = covered;
    const clients: MptcpClient[] = [];
    for (const family of FAMILIES) clients.push(await connectionThatIsJoined(lab, exit.host, uid, internet[family]));
    if (owner !== 0) await joined(app, 1);
    await stall(exit);
    const before = await timeouts(app);
    for (const client of clients) assert.match(await client.ask('fill'), /^filled [1-9]/);
    await retried(app, 6, before);
    for (const client of clients) assert.equal(await client.ask('close'), 'closed');
    await retried(app, 9, before);
    // A listener answers whoever comes; nothing of the connection follows.
    const left = (await lab.departed()).filter((packet) => isMptcp(packet) && !ANSWERS.has(packet.tcpFlags ?? 0));
    assert.deepEqual(left.map(describePacket), []);
  });

  test(`${whose}: of a connection from before nothing leaves, and its end is heard`, TIMEOUT, async (t) => {
    const lab = await mptcpLab(t);
    if (!lab) return;
    await lab.app.sysctl('net.mptcp.close_timeout=3');
    await register(lab.app, [...both(HOST), ...both(SECOND)], 'eth0');
    const [uid = 0] = covered;
    const clients: MptcpClient[] = [];
    for (const [index, family] of FAMILIES.entries()) {
      clients.push(await connectionWithPath(lab, uid, internet[family]));
      await joined(lab.server, index + 1);
    }
    const { facts } = await raise(lab, victim);
    const since = await lab.moment();
    for (const client of clients) assert.match(await client.ask('hear'), /^ended (ENOTCONN|ECONNABORTED|ECONNRESET)$/);
    const left = await lab.leaks({ ...facts, isUncovered: (packet) => !isMptcp(packet) }, undefined, since);
    assert.deepEqual(left, []);
  });
}

test("no path leads into a VPN of somebody else's", TIMEOUT, async (t) => {
  const lab = await mptcpLab(t, { networks: [1, 2] });
  if (!lab) return;
  const [one, two] = [exitOf(lab, 1), exitOf(lab, 2)];
  await connect(await lab.process(2001), one, vpnConfig(one.vnic));
  await connect(await lab.process(2003), two, vpnConfig(two.vnic));
  const device = await deviceOf(lab, one.client.ipv4);
  const capture = await lab.app.capture(device);
  await register(lab.app, both(one.client), device);
  for (const uid of [2003, UNCOVERED]) {
    for (const family of FAMILIES) await connectionWithPath(lab, uid, internet[family]);
  }
  // What is the VPN's own still goes in, and shows that the capture sees it.
  await connection(lab, 2001, internet.ipv4);
  const inside = (await capture.peek()).filter(isMptcp);
  assert.ok(inside.length > 0);
  assert.deepEqual(
    [...new Set(inside.map(({ source, destination }) => `${source} ${destination}`))].sort(),
    [`${one.client.ipv4} ${internet.ipv4}`, `${internet.ipv4} ${one.client.ipv4}`].sort(),
  );
});

test("a user whom no VPN covers keeps all paths beside others' VPNs", TIMEOUT, async (t) => {
  const lab = await mptcpLab(t);
  if (!lab) return;
  await raise(lab, { owner: 2001, config: {} });
  await register(lab.app, [...both(HOST), ...both(SECOND)], 'eth0');
  for (const [index, family] of FAMILIES.entries()) {
    await connectionWithPath(lab, UNCOVERED, internet[family]);
    await joined(lab.server, index + 1);
  }
});

for (const list of ['trustedApplications', 'blockedApplications'] as const) {
  for (const owner of [2001, 0]) {
    test(`uid ${owner}, ${list}: an application by id gets no MPTCP, others do`, TIMEOUT, async (t) => {
      const lab = await mptcpLab(t);
      if (!lab) return;
      // It shows that there is such an application, and is no program's.
      lab.cgroup('app-org.lab.Maps-1.scope');
      await raise(lab, { owner, config: { [list]: ['org.lab.Maps'] } });
      const listed = lab.cgroup('app-org.lab.Maps-17.scope');
      for (const address of both(internet)) {
        const client = await mptcpClient(lab.app, 2001, address, listed);
        assert.equal(await client.ask('connect'), 'failed EPERM');
        assert.equal(await client.ask('open'), 'refused EPERM');
        const other = await mptcpClient(lab.app, 2001, address, lab.cgroup('app-org.lab.Other-1.scope'));
        await talk(other);
      }
      const left = new Set((await outside(lab)).length > 0 ? ['outside'] : []);
      assert.deepEqual([...left], list === 'trustedApplications' ? ['outside'] : []);
    });
  }
}

test(
  'under lockdown no path leads from a connection on the local network to what its far end names',
  TIMEOUT,
  async (t) => {
    const callers = [{ match: { uid: 0 }, system: true, permissions: [MANAGE_VPN] }];
    const lab = await mptcpLab(t, { vpnd: { policy: { callers, lockdown: [2001] } } });
    if (!lab) return;
    const clients = [];
    for (const family of FAMILIES) clients.push(await connection(lab, 2001, LAN_HOST[family]));
    await lab.vpnd.kill9();
    for (const address of both(internet)) {
      await lab.lanHost.ip(`address replace ${address} dev lo`);
      const before = await pathsTried(lab.app);
      await register(lab.lanHost, [address], 'lo', 'signal');
      await pathTried(lab.app, before);
    }
    for (const client of clients) assert.equal(await client.ask('say'), 'heard');
    const names = new Set<string>(both(internet));
    const left = (await lab.departed()).filter(({ destination = '' }) => names.has(destination));
    assert.deepEqual(left.filter(isMptcp).map(describePacket), []);
  },
);

test('without BPF no further path of anybody leaves, connections go on, and leaks says so', TIMEOUT, async (t) => {
  const lab = await mptcpLab(t);
  if (!lab) return;
  await lab.vpnd.stop();
  await lab.app.run('umount', ['--all-targets', '--lazy', cgroup2Root() ?? '']);
  const callers = [0, 2001].map((uid) => ({ match: { uid }, system: true, permissions: [MANAGE_VPN] }));
  const policy = { callers, lockdown: [2003] };
  const { exits } = lab;
  const vpnd = await startVpnd(lab.app, { policy });
  await vpnd.process.waitFor(/no-second-lock.*cgroup v2: mount it/);
  const [exit] = exits;
  if (!exit) return;
  await connect(await startApp(lab.app, 2001, vpnd), exit, vpnConfig(exit.vnic));
  await register(lab.app, [...both(HOST), ...both(SECOND)], 'eth0');
  for (const uid of [2001, UNCOVERED]) {
    for (const family of FAMILIES) await connectionWithPath(lab, uid, internet[family]);
  }
  for (const family of FAMILIES) await connectionWithPath(lab, 2003, LAN_HOST[family]);
  const byPath = [
    await counter(lab.server, 'MPTcpExt', 'MPJoinSynRx'),
    await counter(lab.lanHost, 'MPTcpExt', 'MPJoinSynRx'),
  ];
  assert.deepEqual(byPath, [0, 0]);
  const { stdout } = await lab.app.node('dist/src/cli/vpnctl.js', ['leaks', '--json'], {
    env: { VPND_SOCKET: vpnd.socket },
  });
  const said = (JSON.parse(stdout) as LeakException[]).filter(({ kind }) => kind === 'multipath');
  assert.deepEqual(
    said.map(({ uid, lockdown }) => [uid, lockdown]),
    [
      [2001, undefined],
      [2003, true],
    ],
  );
});

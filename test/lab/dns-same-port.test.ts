/**
 * Port numbers come round again: queries with the same addresses and ports, one after the other, of those whose VPNs differ.
 * The kernel remembers for a while where the first was translated to, which is no business of the second. All ask the same
 * resolver from the same source address, as on every machine with a local one. lib/dns-lab.ts has the picture.
 *
 *   uid 2001 ─── vpn-tunA ═══ exit1, but for the applications that its VPN leaves out
 *   uid 2002 ─── vpn-tunB ═══ exit2
 *   uid 2003 ─── eth0 ─────── lanhost, until root has a VPN
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type DnsLab, dnsLab, dnsOf, MACHINE } from './lib/dns-lab.js';
import { connect } from './lib/exits.js';
import { POLICY_ADDRESSES } from './lib/policy-lab.js';
import type { ProberOptions } from './lib/prober.js';
import { vpnConfig } from './lib/vpn-app.js';
import { exitOf } from './lib/vpn-lab.js';

const RESOLVERS = [MACHINE[0], MACHINE[1]];
/** Where nobody serves anything yet. */
const FREE = { ipv4: '192.168.50.54', ipv6: 'fd50::54' } as const;
const CALLERS = [0, 2001, 2002].map((uid) => ({
  match: { uid },
  system: true,
  permissions: ['ohos.permission.MANAGE_VPN'],
}));

/** Who answers a query that is sent from this port, over IPv4 and over IPv6. */
async function ask(lab: DnsLab, who: ProberOptions, port: number): Promise<string[]> {
  const prober = await lab.prober(who);
  const answers: string[] = [];
  for (const address of RESOLVERS) {
    const isIpv6 = address.includes(':');
    const fd = await prober.call('open', isIpv6 ? 2 : 1, 'udp');
    await prober.call('bind', fd, isIpv6 ? '::' : '0.0.0.0', port);
    answers.push(await prober.call('askOn', fd, { transport: 'dns-udp', address, timeoutMs: 10_000 }));
    await prober.call('close', fd);
  }
  return answers;
}

const both = (name: string): string[] => [name, name];

type Person = readonly [who: ProberOptions, server: string];

/** Everybody after everybody else, each pair from a port of its own. */
async function askInTurn(lab: DnsLab, people: readonly Person[], firstPort: number): Promise<void> {
  let port = firstPort;
  for (const [first, server] of people) {
    for (const [second, next] of people) {
      port += 1;
      assert.deepEqual(await ask(lab, first, port), both(server), `${server}, the first to ask from ${port}`);
      assert.deepEqual(await ask(lab, second, port), both(next), `${next}, from ${port} after ${server}`);
    }
  }
}

test('queries from one port, of one user after the other: each gets the servers that are its own', {
  timeout: 300_000,
}, async (t) => {
  const lab = await dnsLab(t, 'file', { networks: [1, 2], vpnd: { policy: { callers: CALLERS } } });
  if (!lab) return;
  const left = lab.cgroup('app-left-1.scope');
  const lists = { blockedApplications: [`cgroup:${left.path}`] };
  const [one, two] = [exitOf(lab, 1), exitOf(lab, 2)];
  const [first, second] = [await lab.process(2001), await lab.process(2002)];
  await connect(first, one, vpnConfig(one.vnic, dnsOf(one, lists)));
  await connect(second, two, vpnConfig(two.vnic, dnsOf(two)));

  const people: Person[] = [
    [{ uid: 2001 }, 'exit1'],
    [{ uid: 2001, cgroup: left }, 'machine'],
    [{ uid: 2002 }, 'exit2'],
    [{ uid: 2003 }, 'machine'],
  ];
  await askInTurn(lab, people, 21_000);
  await second.call('destroy');

  // Root's covers whoever has none; those that it leaves out ask outside.
  const root = await lab.process(0);
  await connect(root, two, vpnConfig(two.vnic, dnsOf(two, { blockedApplications: ['uid:2004'] })));
  const withRoot: Person[] = [
    [{ uid: 2001 }, 'exit1'],
    [{ uid: 2001, cgroup: left }, 'machine'],
    [{ uid: 2003 }, 'exit2'],
    [{ uid: 2004 }, 'machine'],
  ];
  await askInTurn(lab, withRoot, 22_000);

  // Whose place is taken over by a VPN with other servers.
  await root.call('destroy');
  await first.call('destroy');
  await connect(first, two, vpnConfig(two.vnic, dnsOf(two)));
  assert.deepEqual(await ask(lab, { uid: 2001 }, 21_001), both('exit2'));
  assert.deepEqual(await ask(lab, { uid: 2003 }, 22_001), both('machine'));
});

test('a socket of an application that is left out, older than the VPN, leads no query of others past it', {
  timeout: 300_000,
}, async (t) => {
  const lab = await dnsLab(t, 'file');
  if (!lab) return;
  const left = lab.cgroup('app-left-1.scope');
  const prober = await lab.prober({ uid: 2001, cgroup: left });
  const sockets = await Promise.all([1, 2].map((family) => prober.call('open', family as 1 | 2, 'udp')));
  const one = exitOf(lab, 1);
  const lists = { blockedApplications: [`cgroup:${left.path}`] };
  await connect(await lab.process(2001), one, vpnConfig(one.vnic, dnsOf(one, lists)));
  for (const [index, address] of RESOLVERS.entries()) {
    const fd = sockets[index] ?? 0;
    await prober.call('bind', fd, address.includes(':') ? '::' : '0.0.0.0', 23_001);
    const question = { transport: 'dns-udp', address, unconnected: true, timeoutMs: 10_000 } as const;
    assert.equal(await prober.call('askOn', fd, question), 'machine');
    await prober.call('close', fd);
  }
  const { outside } = await lab.asked(async () => {
    for (const answer of await ask(lab, { uid: 2001 }, 23_001)) assert.match(answer, /^(exit1|EPERM)$/);
  });
  assert.deepEqual(outside, []);
  assert.deepEqual(await ask(lab, { uid: 2001 }, 23_002), both('exit1'));
});

test("a name server here answers those who ask from port 53, whatever it asked them through root's VPN", {
  timeout: 300_000,
}, async (t) => {
  const lab = await dnsLab(t, 'file');
  if (!lab) return;
  const two = exitOf(lab, 2);
  await connect(await lab.process(0), two, vpnConfig(two.vnic, dnsOf(two)));
  const [server, client] = await Promise.all([lab.prober({ uid: 0 }), lab.stranger(lab.lanHost)]);
  const { app } = POLICY_ADDRESSES;
  await lab.lanHost.configure('eth0', [`${FREE.ipv4}/24`, `${FREE.ipv6}/64`]);
  const from53 = { transport: 'udp', port: 53, unconnected: true } as const;
  for (const family of ['ipv4', 'ipv6'] as const) {
    const notifier = await server.call('open', family === 'ipv6' ? 2 : 1, 'udp');
    await server.call('bind', notifier, app[family], 53);
    await server.call('askOn', notifier, { ...from53, address: FREE[family], timeoutMs: 500 });
    await server.call('close', notifier);
  }
  await server.call('serve', 'here', 53);
  for (const family of ['ipv4', 'ipv6'] as const) {
    const fd = await client.call('open', family === 'ipv6' ? 2 : 1, 'udp');
    await client.call('bind', fd, FREE[family], 53);
    for (let round = 0; round < 3; round++) {
      const answer = await client.call('askOn', fd, { ...from53, address: app[family], timeoutMs: 10_000 });
      assert.match(answer, /^here /, `${family}, round ${round}`);
    }
  }
});

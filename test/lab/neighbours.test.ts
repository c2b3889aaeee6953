/**
 * Other programs with rules and tables of their own (lib/neighbours.ts), before and after ours: each does for those whom no VPN
 * covers what it did before, and gets nothing of those whom one covers.
 *
 *   app  wg0 ── wg        tailscale0 ── tailnet        eth0 ── LAN with lanhost ── router ── server, exit1, exit2
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { canonicalState } from './lib/canonical-state.js';
import { connect } from './lib/exits.js';
import type { DepartedPacket } from './lib/leak-check.js';
import {
  CLOSED_PORT,
  FIREWALLD,
  OPEN_PORT,
  startFarEnds,
  TAILNET,
  tailscaleUp,
  UFW,
  WG,
  wgQuickDown,
  wgQuickUp,
} from './lib/neighbours.js';
import { startPeer } from './lib/peers.js';
import { isTunnelDatagram, POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import type { Answer } from './lib/prober/operations.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf, settledState } from './lib/vpn-lab.js';

const { internet } = ADDRESSES;
const own = POLICY_ADDRESSES.app;
const FAMILIES = ['ipv4', 'ipv6'] as const;
const PROTOCOLS = ['tcp', 'udp', 'icmp'] as const;
type Both = { ipv4: string; ipv6: string };

/** The reverse path filter strict, as some distributions have it, or loose. */
async function neighbourLab(t: TestContext, rpFilter: 1 | 2 = 1): Promise<PolicyLab | undefined> {
  const lab = await policyLab(t, { networks: [1, 2] });
  await lab?.app.sysctl(`net.ipv4.conf.all.rp_filter=${rpFilter}`, `net.ipv4.conf.default.rp_filter=${rpFilter}`);
  return lab;
}

/** By every protocol: as whom, seen from where. */
async function reaches(lab: PolicyLab, uids: readonly number[], side: string, source: Both, what: string) {
  for (const uid of uids) {
    for (const family of FAMILIES) {
      for (const protocol of PROTOCOLS) {
        const answer = await lab.probe({ uid, protocol, target: internet[family], timeoutMs: 20_000 });
        assert.deepEqual(answer, { side, source: source[family] }, `${what}: ${uid} ${protocol} ${family}`);
      }
    }
  }
}

const vpns = (lab: PolicyLab) => {
  const [first, second] = [exitOf(lab, 1), exitOf(lab, 2)];
  return {
    first,
    second,
    raiseRoots: async () => {
      const root = await lab.process(0);
      await connect(root, first, vpnConfig(first.vnic, { dnsAddresses: [first.ipv4, first.ipv6] }));
      return root;
    },
    raiseUsers: async () => {
      const user = await lab.process(2001);
      await connect(user, second, vpnConfig(second.vnic, { dnsAddresses: [second.ipv4, second.ipv6] }));
      return user;
    },
  };
};

const isInbound = ({ sourcePort, protocol, icmpType = -1, tcpFlags = 0 }: DepartedPacket) =>
  sourcePort === OPEN_PORT || [0, 129].includes(icmpType) || (protocol === 'tcp' && (tcpFlags & 4) !== 0);
const FACTS = { isProtected: isTunnelDatagram, isInbound };

test('wg-quick serves whom no VPN covers, whoever comes first, and gets nothing of those whom one covers', {
  timeout: 240_000,
}, async (t) => {
  const lab = await neighbourLab(t, 2);
  if (!lab) return;
  const { app } = lab;
  await startFarEnds(lab);
  const capture = await app.capture(WG.link);
  const without = await canonicalState(app);
  const { first, second, raiseRoots, raiseUsers } = vpns(lab);

  await wgQuickUp(app);
  await reaches(lab, [0, 2001, 2002], WG.name, WG.client, 'wg-quick alone');
  // What the neighbour's own socket sends, it marks.
  const outside = await app.run('ip', ['-j', 'route', 'get', ADDRESSES.server.ipv4, 'mark', '51820']);
  assert.match(outside.stdout, /"dev":"eth0"/);

  const since = await lab.moment();
  const user = await raiseUsers();
  await reaches(lab, [2001], 'exit2', second.client, 'with the user’s VPN');
  await reaches(lab, [0, 2002], WG.name, WG.client, 'with the user’s VPN');
  const stillOutside = await app.run('ip', ['-j', 'route', 'get', ADDRESSES.server.ipv4, 'mark', '51820']);
  assert.match(stillOutside.stdout, /"dev":"eth0"/);
  const root = await raiseRoots();
  const before = (await capture.peek()).length;
  const inBoth = async (what: string) => {
    await reaches(lab, [2001], 'exit2', second.client, what);
    await reaches(lab, [0, 2002], 'exit1', first.client, what);
  };
  await inBoth('wg-quick first');
  await wgQuickDown(app);
  await inBoth('wg-quick gone');
  const inWg = (await capture.peek()).slice(before).filter(({ protocol }) => ['tcp', 'udp'].includes(protocol));
  assert.deepEqual(inWg, [], 'covered traffic in wg-quick’s tunnel');

  // What closed connections still say would go by rules that are not led past yet.
  await lab.moment();
  // The kernel puts rules without a priority before all that stand. What is ours to decide is soon led past them.
  await wgQuickUp(app);
  const closed = (await capture.peek()).length;
  const ways = await eventually('rules in front of wg-quick’s', async () => {
    const rules = await app.json<{ priority: number; protocol?: string }[]>('ip', ['-j', '-d', 'rule', 'list']);
    const [first] = rules.filter(({ priority }) => priority > 0);
    return first?.protocol === 'kernel' ? rules : undefined;
  });
  assert.ok(ways.some(({ priority, protocol }) => priority > 0 && priority < 10_000 && protocol !== 'kernel'));
  await eventually(
    'both VPNs at work again',
    () =>
      inBoth('wg-quick last').then(
        () => true,
        () => undefined,
      ),
    90_000,
  );
  const strays = (await capture.peek())
    .slice(closed)
    .filter(({ destination }) => Object.values(internet).some((each) => each === destination));
  assert.deepEqual(
    strays.filter(({ protocol }) => protocol !== 'arp'),
    [],
    'covered traffic in wg-quick’s tunnel',
  );
  assert.deepEqual(await lab.leaks(FACTS, undefined, since), []);

  await user.call('destroy');
  await root.call('destroy');
  await reaches(lab, [0, 2001, 2002], WG.name, WG.client, 'wg-quick alone again');
  await wgQuickDown(app);
  await settledState(app, without);
});

test('Tailscale’s rules stand before ours: it serves whom no VPN covers, and takes nothing of the others outside', {
  timeout: 240_000,
}, async (t) => {
  const lab = await neighbourLab(t);
  if (!lab) return;
  const { app } = lab;
  await startFarEnds(lab);
  await tailscaleUp(app);
  const before = await canonicalState(app);
  const { first, second, raiseRoots, raiseUsers } = vpns(lab);
  const daemon = await lab.process(0);
  const asDaemon = async (timeoutMs: number): Promise<string> => {
    const socket = await daemon.call('open', 1, 'udp');
    await daemon.call('setMark', socket, TAILNET.mark);
    const answer = await daemon.call('askOn', socket, { transport: 'udp', address: internet.ipv4, timeoutMs });
    await daemon.call('close', socket);
    return answer;
  };
  const tailnet = (uid: number, family: 'ipv4' | 'ipv6', timeoutMs: number): Promise<Answer> =>
    lab.probe({ uid, protocol: 'udp', target: TAILNET.address[family], timeoutMs });
  const isServed = async (uids: readonly number[], what: string) => {
    assert.equal(await asDaemon(20_000), `server ${own.ipv4}`, what);
    for (const uid of uids) {
      for (const family of FAMILIES) {
        const wanted = { side: TAILNET.name, source: TAILNET.client[family] };
        assert.deepEqual(await tailnet(uid, family, 20_000), wanted, `${what}: ${uid} ${family}`);
      }
    }
  };
  await isServed([0, 2001, 2002], 'alone');
  const since = await lab.moment();
  const user = await raiseUsers();
  await isServed([0, 2002], 'with the user’s VPN');
  await reaches(lab, [2001], 'exit2', second.client, 'with the user’s VPN');
  await reaches(lab, [0, 2002], 'server', own, 'with the user’s VPN');
  const beforeRoots = await lab.moment();
  const root = await raiseRoots();
  await reaches(lab, [2001], 'exit2', second.client, 'with both');
  await reaches(lab, [0, 2002], 'exit1', first.client, 'with both');
  // It is one of the covered now, and so are those who would use it.
  assert.match(await asDaemon(300), /^(EPERM|silence|exit1 .*)$/);
  for (const uid of [2001, 2002]) {
    for (const family of FAMILIES) {
      const answer = await tailnet(uid, family, 300);
      assert.ok('error' in answer, JSON.stringify(answer));
    }
  }
  assert.deepEqual(await lab.leaks(FACTS, undefined, beforeRoots), []);
  await user.call('destroy');
  await root.call('destroy');
  await settledState(app, before);
  await isServed([0, 2001, 2002], 'alone again');
  const mixed = await lab.leaks(
    { ...FACTS, isUncovered: ({ source }) => source === own.ipv4 || source === own.ipv6 },
    [],
    since,
  );
  assert.deepEqual(
    mixed.filter((line) => !/ arp | icmpv6 fe80| icmpv6 .* type 13[3-6]/.test(line)),
    [],
  );
});

for (const [name, ruleset] of [
  ['firewalld', FIREWALLD],
  ['ufw', UFW],
] as const) {
  test(`${name}, loaded before our VPNs and again beside them: open ports open, closed ones closed, tunnels work`, {
    timeout: 240_000,
  }, async (t) => {
    const lab = await neighbourLab(t);
    if (!lab) return;
    const { app } = lab;
    const { first, second, raiseRoots, raiseUsers } = vpns(lab);
    await startPeer(app, { kind: 'whoami', name: 'closed', port: CLOSED_PORT });
    const load = () => app.run('nft', ['-f', '-'], { input: ruleset });
    const tables = [...ruleset.matchAll(/^table (\S+ \S+)/gm)].map(([, table]) => `delete table ${table}`);
    await load();
    const strangers = await Promise.all([lab.stranger(lab.server), lab.stranger(lab.lanHost)]);
    const filters = async (what: string) => {
      for (const stranger of strangers) {
        for (const family of FAMILIES) {
          const ask = (port: number, timeoutMs: number) =>
            stranger.call('probe', { protocol: 'tcp', target: own[family], port, timeoutMs });
          const open = await ask(OPEN_PORT, 20_000);
          assert.equal('side' in open && open.side, 'app', `${what}: ${family} ${JSON.stringify(open)}`);
          const closed = await ask(CLOSED_PORT, 300);
          assert.ok('error' in closed, `${what}: ${family} ${JSON.stringify(closed)}`);
          const ping = await stranger.call('probe', { protocol: 'icmp', target: own[family], timeoutMs: 20_000 });
          assert.deepEqual(ping, { side: 'kernel', source: '-' }, `${what}: ${family}`);
        }
      }
    };
    await filters('alone');
    await reaches(lab, [0, 2001, 2002], 'server', own, 'alone');
    const before = await canonicalState(app);
    const sessions = await Promise.all(
      strangers.flatMap((stranger) =>
        FAMILIES.map(async (family) => {
          const session = await stranger.call('openSession', { target: own[family], port: OPEN_PORT });
          return () => stranger.goesOn(session);
        }),
      ),
    );
    const since = await lab.moment();
    const user = await raiseUsers();
    await filters('with the user’s VPN');
    await reaches(lab, [2001], 'exit2', second.client, 'with the user’s VPN');
    await reaches(lab, [0, 2002], 'server', own, 'with the user’s VPN');
    const beforeRoots = await lab.moment();
    const root = await raiseRoots();
    const bothWork = async (what: string) => {
      await filters(what);
      await reaches(lab, [2001], 'exit2', second.client, what);
      await reaches(lab, [0, 2002], 'exit1', first.client, what);
      for (const goesOn of sessions) await goesOn();
    };
    await bothWork('with both');
    await app.run('nft', [tables.join('; ')]);
    await load();
    await bothWork('reloaded');
    assert.deepEqual(await lab.leaks(FACTS, undefined, beforeRoots), []);
    await user.call('destroy');
    await root.call('destroy');
    await settledState(app, before);
    for (const goesOn of sessions) await goesOn();
    await filters('alone again');
    const users = (await lab.departed()).slice([...since.values()].reduce((sum, each) => sum + each, 0));
    assert.deepEqual(
      users.filter(({ source }) => [...Object.values(first.client), ...Object.values(second.client)].includes(source)),
      [],
    );
  });
}

test('a rule of a stranger’s before all of ours leads nothing outside: what it takes is blocked', {
  timeout: 240_000,
}, async (t) => {
  const lab = await neighbourLab(t);
  if (!lab) return;
  const { first, second, raiseRoots, raiseUsers } = vpns(lab);
  await raiseUsers();
  await raiseRoots();
  await reaches(lab, [2001], 'exit2', second.client, 'before');
  const since = await lab.moment();
  await lab.app.ip('rule add pref 100 table main');
  await lab.app.run('ip', ['-6', 'rule', 'add', 'pref', '100', 'table', 'main']);
  for (const uid of [0, 2001, 2002]) {
    for (const family of FAMILIES) {
      for (const protocol of [...PROTOCOLS, 'dns-tcp'] as const) {
        const answer = await lab.probe({ uid, protocol, target: internet[family], timeoutMs: 200 });
        assert.ok('error' in answer, `${uid} ${protocol} ${family}: ${JSON.stringify(answer)}`);
      }
    }
  }
  assert.deepEqual(await lab.leaks(FACTS, undefined, since), []);
  await lab.app.ip('rule del pref 100');
  await lab.app.run('ip', ['-6', 'rule', 'del', 'pref', '100']);
  await reaches(lab, [2001], 'exit2', second.client, 'after');
  await reaches(lab, [0, 2002], 'exit1', first.client, 'after');
});

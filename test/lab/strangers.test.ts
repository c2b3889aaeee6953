/**
 * Somebody else takes away what is ours while VPNs are up: it is put back, and where one of the two locks still stands nothing
 * of covered traffic leaves by a physical link meanwhile.
 *
 *   app: vpnd, user 2001 with a VPN to exit2, everybody else by root's VPN to exit1; root with `ip`, `nft`, `sysctl` as the stranger
 *   eth0 ── LAN ── router ── server, exit1, exit2        eth1 ── cafe
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { canonicalState, diffState } from './lib/canonical-state.js';
import { connect } from './lib/exits.js';
import type { LabHost } from './lib/host.js';
import { keepsTables, tablesOfAnybody } from './lib/nobodys-tables.js';
import { isTunnelDatagram, POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import { ADDRESSES } from './lib/standard-lab.js';
import type { VpnApp } from './lib/vpn-app.js';
import { vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf, settledState } from './lib/vpn-lab.js';

const { internet } = ADDRESSES;
const FAMILIES = ['ipv4', 'ipv6'] as const;
const PROTOCOLS = ['tcp', 'udp', 'icmp'] as const;
/** Root's VPN covers 0 and 2002. */
const USERS = [
  { uid: 2001, exit: 2 },
  { uid: 2002, exit: 1 },
  { uid: 0, exit: 1 },
] as const;

interface StandingLab extends PolicyLab {
  root: VpnApp;
  user: VpnApp;
  /** As it was before the VPNs, and with them. */
  before: string;
  standing: string;
}

/** `ofAnybody`: as nobodys-tables.ts has it. */
async function standingLab(
  t: TestContext,
  more: { rpFilter?: 1; ofAnybody?: boolean } = {},
): Promise<StandingLab | undefined> {
  const lab = await policyLab(t, { networks: [1, 2] });
  if (!lab) return undefined;
  if (more.rpFilter) await lab.app.sysctl('net.ipv4.conf.eth0.rp_filter=1');
  const before = await canonicalState(lab.app);
  if (more.ofAnybody) await tablesOfAnybody(lab.app);
  const [first, second] = [exitOf(lab, 1), exitOf(lab, 2)];
  const [root, user] = await Promise.all([lab.process(0), lab.process(2001)]);
  await connect(root, first, vpnConfig(first.vnic, { dnsAddresses: [first.ipv4, first.ipv6] }));
  await connect(user, second, vpnConfig(second.vnic, { dnsAddresses: [second.ipv4, second.ipv6] }));
  return { ...lab, root, user, before, standing: inOrder(await canonicalState(lab.app)) };
}

/** Rules of one chain keep their order; that of chains, sets and tables means nothing. */
function inOrder(state: string): string {
  const key = (line: string): string => {
    const [kind, object] = Object.entries(JSON.parse(/^nft (.*)/.exec(line)?.[1] ?? '{}') as object)[0] ?? [];
    return kind === 'rule' ? `nft rule ${object.family} ${object.table} ${object.chain}` : line;
  };
  return state
    .split('\n')
    .map((line) => ({ line, key: key(line) }))
    .sort((a, b) => (a.key === b.key ? 0 : a.key < b.key ? -1 : 1))
    .map(({ line }) => line)
    .join('\n');
}

async function isBack({ app, standing }: StandingLab, what: string): Promise<void> {
  let last = '';
  const isSame = async () => {
    last = inOrder(await canonicalState(app));
    return last === standing || undefined;
  };
  await eventually(what, isSame, 60_000).catch(() => assert.deepEqual(diffState(standing, last), [], what));
}

/** Each covered user by its own tunnel, by every protocol and by DNS to whatever resolver. */
async function isCovered(lab: PolicyLab, what: string): Promise<void> {
  for (const { uid, exit } of USERS) {
    for (const family of FAMILIES) {
      for (const protocol of PROTOCOLS) {
        const answer = await lab.probe({ uid, protocol, target: internet[family], timeoutMs: 20_000 });
        const wanted = { side: `exit${exit}`, source: exitOf(lab, exit).client[family] };
        assert.deepEqual(answer, wanted, `${what}: ${uid} ${protocol} ${family}`);
      }
      const target = POLICY_ADDRESSES.router[family];
      const asked = await lab.probe({ uid, protocol: 'dns-udp', target, timeoutMs: 20_000 });
      assert.deepEqual(asked, { side: `exit${exit}` }, `${what}: ${uid} DNS ${family}`);
    }
  }
}

/** All users ask everywhere while `work` is done, whatever becomes of it. Who gets an answer gets it by the tunnel. */
async function amidTraffic(lab: PolicyLab, work: () => Promise<void>): Promise<void> {
  let isOver = false;
  const strays: string[] = [];
  const questions = USERS.flatMap(({ uid, exit }) =>
    FAMILIES.flatMap((family) => PROTOCOLS.map((protocol) => ({ uid, exit, family, protocol }))),
  );
  const traffic = questions.map(async ({ uid, exit, family, protocol }) => {
    while (!isOver) {
      const answer = await lab.probe({ uid, protocol, target: internet[family], timeoutMs: 100 });
      if ('side' in answer && answer.side !== `exit${exit}`) strays.push(`${uid} ${protocol} ${family} ${answer.side}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  });
  try {
    await work();
  } finally {
    isOver = true;
    await Promise.all(traffic);
  }
  assert.deepEqual(strays, []);
}

const ourRules = async (app: LabHost, option: '-4' | '-6'): Promise<string[]> => {
  const rules = await app.json<{ priority: number }[]>('ip', ['-j', option, 'rule', 'show']);
  return rules
    .map(({ priority }) => priority)
    .filter((each) => each >= 9900 && each <= 30000)
    .map(String);
};
const ourTables = async (app: LabHost): Promise<string[]> => {
  const routes = await app.json<{ table?: string }[]>('ip', ['-j', 'route', 'show', 'table', 'all']);
  return [...new Set(routes.map(({ table }) => Number(table)).filter((table) => table >= 50000))].map(String);
};
const shell = (app: LabHost, script: string) => app.run('sh', ['-ec', script]);

/** One lock at a time, so that the other one has to hold. Few in a row: a fight would slow the repairs down. */
const TAMPERINGS: Record<string, Record<string, (app: LabHost) => Promise<unknown>>> = {
  'the rules': {
    'all rules of both families': async (app) => {
      const lines = async (option: '-4' | '-6') =>
        (await ourRules(app, option)).map((priority) => `ip ${option} rule del pref ${priority}`);
      await shell(app, [...(await lines('-4')), ...(await lines('-6'))].join('\n'));
    },
    'every second rule': async (app) => {
      const lines = async (option: '-4' | '-6') =>
        (await ourRules(app, option))
          .filter((_, index) => index % 2 === 0)
          .map((priority) => `ip ${option} rule del pref ${priority}`);
      await shell(app, [...(await lines('-6')), ...(await lines('-4'))].join('\n'));
    },
    'the targets of gotos': (app) =>
      shell(app, 'for p in 30000 14000 13000 15000 15010; do ip rule del pref $p; ip -6 rule del pref $p; done'),
  },
  'the routing tables': {
    'all tables flushed': async (app) => {
      const tables = await ourTables(app);
      assert.ok(tables.length > 2);
      await shell(
        app,
        tables.map((table) => `ip route flush table ${table} || :\nip -6 route flush table ${table} || :\n`).join(''),
      );
    },
    'default routes and the unreachable behind': (app) =>
      shell(
        app,
        `for t in 50002 50012; do for f in -4 -6; do
          ip $f route del default table $t; ip $f route del unreachable default table $t; done; done`,
      ),
    'routes changed to lead outside': (app) =>
      shell(
        app,
        `ip route change default via 192.168.50.1 table 50002; ip route change default via 192.168.60.1 table 50012
         ip -6 route change default via fd50::1 metric 1 table 50002; ip -6 route change default via fd60::1 metric 1 table 50012`,
      ),
  },
  'the firewall': {
    'nft flush ruleset': (app) => app.run('nft', ['flush', 'ruleset']),
    'each table deleted': (app) =>
      app.run('nft', ['delete table inet vpnd; delete table arp vpnd; delete table netdev vpnd']),
    'chains flushed and rules deleted': (app) =>
      app.run('nft', [
        'flush chain inet vpnd lock; flush chain inet vpnd sent; flush chain inet vpnd enter_0; flush chain netdev vpnd frames',
      ]),
    'a rule of a stranger in a chain of ours': (app) => app.run('nft', ['insert rule inet vpnd lock accept']),
  },
};

for (const [lock, tamperings] of Object.entries(TAMPERINGS)) {
  test(`a stranger takes away ${lock}: all of it is back, and nothing left meanwhile`, {
    timeout: 240_000,
  }, async (t) => {
    const lab = await standingLab(t, { ofAnybody: lock === 'the firewall' });
    if (!lab) return;
    await isCovered(lab, 'before');
    const since = await lab.moment();
    await amidTraffic(lab, async () => {
      for (const [what, tamper] of Object.entries(tamperings)) {
        await tamper(lab.app);
        await isBack(lab, what);
      }
    });
    assert.deepEqual(await lab.leaks({ isProtected: isTunnelDatagram }, undefined, since), []);
    await isCovered(lab, 'afterwards');
    assert.match(lab.vpnd.log(), / restored/);
    await lab.user.call('destroy');
    await lab.root.call('destroy');
    await settledState(lab.app, lab.before);
  });
}

test('where the kernel keeps tables for their owner (Linux 6.9), no stranger changes or deletes them', {
  timeout: 240_000,
}, async (t) => {
  if (!keepsTables()) return t.skip('this kernel has no such tables');
  const lab = await standingLab(t);
  if (!lab) return;
  const { app, vpnd, root, user, before, standing } = lab;
  const since = await lab.moment();
  await amidTraffic(lab, async () => {
    for (const [what, tamper] of Object.entries(TAMPERINGS['the firewall'] ?? {})) {
      if (what === 'nft flush ruleset') await tamper(app);
      else await assert.rejects(tamper(app), /Operation not permitted/, what);
      assert.deepEqual(diffState(standing, inOrder(await canonicalState(app))), [], what);
    }
  });
  assert.deepEqual(await lab.leaks({ isProtected: isTunnelDatagram }, undefined, since), []);
  assert.deepEqual(restores(vpnd.log()), [], vpnd.log());
  await isCovered(lab, 'afterwards');
  await user.call('destroy');
  await root.call('destroy');
  await settledState(app, before);
});

test('a stranger sets the vNIC down, takes its addresses, the sysctl, the resolver’s file: all are back', {
  timeout: 240_000,
}, async (t) => {
  const lab = await standingLab(t, { rpFilter: 1 });
  if (!lab) return;
  await isCovered(lab, 'before');
  const since = await lab.moment();
  await amidTraffic(lab, async () => {
    for (const script of [
      'sysctl -qw net.ipv4.conf.eth0.src_valid_mark=0',
      "echo 'nameserver 192.0.2.53' > /etc/resolv.conf",
      'ip link set vpn-tun0 down; ip link set vpn-tun1 down',
      'ip address flush dev vpn-tun0; ip -6 address flush dev vpn-tun1',
    ]) {
      await shell(lab.app, script);
      await isBack(lab, script);
    }
  });
  assert.deepEqual(await lab.leaks({ isProtected: isTunnelDatagram }, undefined, since), []);
  await isCovered(lab, 'afterwards');
  await lab.user.call('destroy');
  await lab.root.call('destroy');
  await settledState(lab.app, lab.before);
});

test('a fight is told as an event and in the log, and not fought more than twice a second', {
  timeout: 400_000,
}, async (t) => {
  const lab = await standingLab(t, { ofAnybody: true });
  if (!lab) return;
  const { app, vpnd } = lab;
  const events = app.spawnNode('dist/src/cli/vpnctl.js', ['events'], { env: { VPND_SOCKET: vpnd.socket } });
  const stranger = app.spawn('sh', [
    '-c',
    // Ended by SIGTERM it is behind an nft that it waits for, so that none comes later.
    'trap exit TERM; n=0; while [ $n -lt 2000 ]; do nft delete table inet vpnd 2>/dev/null && n=$((n+1)); sleep 0.02; done',
  ]);
  await events.waitFor(/"type":"contested"/, 120_000);
  // The fight goes on for a while.
  await eventually('more repairs', async () => restores(vpnd.log()).length >= 12 || undefined, 150_000);
  await stranger.kill();
  assert.match(events.stdout, /nft table vpnd/);
  assert.match(vpnd.log(), / warning contested .*nft table vpnd/);
  const times = restores(vpnd.log());
  const seconds = ((times.at(-1) ?? 0) - (times[0] ?? 0)) / 1000;
  // Each is logged at its end, and the first may have taken seconds.
  assert.ok(times.length <= 2 * (seconds + 3), `${times.length} in ${seconds} s`);
  await isBack(lab, 'after the fight');
  await isCovered(lab, 'after the fight');
});

const restores = (log: string): number[] =>
  [...log.matchAll(/^(\S+) warning restored/gm)].map(([, time = '']) => Date.parse(time));

test('what the service itself does, and other programs in their own tables, is nothing to put back', {
  timeout: 240_000,
}, async (t) => {
  const lab = await standingLab(t);
  if (!lab) return;
  const { app, vpnd, root, user } = lab;
  const second = exitOf(lab, 2);
  for (let round = 0; round < 3; round++) {
    await user.call('destroy');
    await connect(user, second, vpnConfig(second.vnic, { dnsAddresses: [second.ipv4] }));
  }
  await shell(
    app,
    `nft 'add table inet other; add chain inet other c; delete table inet other'
     ip rule add pref 5210 fwmark 0x80000/0xff0000 lookup main; ip rule del pref 5210
     ip route add 198.18.0.0/15 via 192.168.50.1 table 52; ip route flush table 52
     ip link add stranger0 type bridge; ip address add 10.66.0.1/24 dev stranger0; ip link set stranger0 up; ip link del stranger0`,
  );
  await user.call('destroy');
  await root.call('destroy');
  await settledState(app, lab.before);
  assert.deepEqual(restores(vpnd.log()), [], vpnd.log());
});

test('a vNIC that a stranger deletes stays closed until destroy, which takes the rest away', {
  timeout: 240_000,
}, async (t) => {
  const lab = await standingLab(t);
  if (!lab) return;
  const { app, vpnd, root, user } = lab;
  await isCovered(lab, 'before');
  const since = await lab.moment();
  const isClosed = async (uids: readonly number[], what: string) => {
    for (const uid of uids) {
      for (const family of FAMILIES) {
        for (const protocol of [...PROTOCOLS, 'dns-udp', 'dns-tcp'] as const) {
          for (const bindTo of [undefined, 'eth0']) {
            const more = { timeoutMs: 200, ...(bindTo && { bindTo }) };
            const answer = await lab.probe({ uid, protocol, target: internet[family], ...more });
            assert.ok('error' in answer, `${what}: ${uid} ${protocol} ${family} ${bindTo}: ${JSON.stringify(answer)}`);
          }
        }
      }
    }
  };
  await app.ip('link del vpn-tun1');
  await isClosed([2001], 'user');
  await app.ip('link del vpn-tun0');
  await isClosed([2001, 2002, 0], 'both');
  await eventually('the service has looked', async () => restores(vpnd.log()).length > 0 || undefined);
  await isClosed([2001, 2002], 'both, after the repair');
  assert.deepEqual(await lab.leaks({ isProtected: isTunnelDatagram }, undefined, since), []);
  await user.call('destroy');
  const answer = await lab.probe({ uid: 2001, protocol: 'udp', target: internet.ipv4, timeoutMs: 200 });
  assert.ok('error' in answer, 'root’s VPN is still closed');
  await root.call('destroy');
  await settledState(app, lab.before);
  const open = await lab.probe({ uid: 2001, protocol: 'tcp', target: internet.ipv4 });
  assert.deepEqual(open, { side: 'server', source: POLICY_ADDRESSES.app.ipv4 });
});

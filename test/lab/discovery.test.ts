/**
 * Discovery by programs that name no link: it goes where it would without a VPN, when the policy allows a local network there, and
 * nowhere else.
 *
 *   app eth0 192.168.50.2, metric 100 ─── LAN         vpn-tunN ═══ exit1
 *       eth1 192.168.60.2, metric 2000 ── cafe
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { raise, type Tunnel, VICTIMS } from './lib/attackers/victim.js';
import type { TestCgroup } from './lib/cgroup.js';
import type { LabHost } from './lib/host.js';
import { ip4, onlyDefaultInTable, TABLE } from './lib/machine-rules.js';
import { POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import { pythonFor } from './lib/python.js';
import { route } from './lib/vpn-app.js';
import { eventually } from './lib/vpn-lab.js';

const TIMEOUT = { timeout: 240_000 };
const IPV4_GROUPS = ['239.255.255.250', '224.0.0.251', '224.0.0.252', '224.0.0.1', '255.255.255.255'];
const IPV6_GROUPS = ['ff02::fb', 'ff02::c', 'ff02::1:3'];
const GROUPS = [...IPV4_GROUPS, ...IPV6_GROUPS];
/** What no policy lets out: organization- and site-wide groups. */
const WIDE = ['239.192.0.1', '224.0.1.1', 'ff05::c', 'ff0e::1'];
/** From the sockets of a process that chooses no link. Prints the destinations that the kernel took. */
const SEND = `
import socket, sys
for to in sys.argv[2:]:
    s = socket.socket(socket.AF_INET6 if ':' in to else socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    try:
        s.sendto(b'?', (to, int(sys.argv[1])))
        print(to)
    except OSError:
        pass
`;
/** Joins without a link, and stays. */
const JOIN = `
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton('239.255.255.250') + bytes(4))
t = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
t.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, 'ff02::c') + bytes(4))
print('ready', flush=True)
time.sleep(600)
`;

async function python({ app }: PolicyLab, uid: number): Promise<string> {
  const found = await pythonFor(app, uid);
  if (found === undefined) throw new Error(`no python3 that uid ${uid} may run`);
  return found;
}

let port = 20_000;

interface Way {
  /** Destinations, by the link that they left by. */
  eth0: string[];
  eth1: string[];
  tunnel: string[];
}

type Sender = { uid: number; cgroup?: TestCgroup | undefined };

/** Sends to these, and to a host in the tunnel last; what came before that has been captured by then. */
async function ways(lab: PolicyLab, tunnel: Tunnel, { uid, cgroup }: Sender, targets: readonly string[]): Promise<Way> {
  const inside = await lab.app.capture(tunnel.device);
  const mine = String(port++);
  const user = ['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--'];
  const enter = cgroup ? `echo $$ > '${cgroup.directory}/cgroup.procs'; ` : '';
  const send = [await python(lab, uid), '-c', SEND, mine];
  await lab.app.run('sh', ['-ec', `${enter}exec "$@"`, 'sh', ...user, ...send, ...targets, tunnel.exit.ipv4]);
  const isMine = ({ destinationPort }: { destinationPort?: number | undefined }) => destinationPort === Number(mine);
  await eventually(
    'the last datagram in the tunnel',
    async () =>
      (await inside.peek()).some((packet) => isMine(packet) && packet.destination === tunnel.exit.ipv4) || undefined,
  );
  const departed = (await lab.departed()).filter(isMine);
  const by = (link: string) => departed.filter((packet) => packet.link === link).map(({ destination }) => destination);
  const within = (await inside.stop()).filter(isMine).map(({ destination }) => destination);
  return {
    eth0: by('eth0').sort(),
    eth1: by('eth1').sort(),
    tunnel: within.filter((destination) => destination !== tunnel.exit.ipv4).sort(),
  };
}

async function scene(t: TestContext, owner: number, policy: object = {}): Promise<PolicyLab | undefined> {
  const callers = [{ match: { uid: owner }, system: true, permissions: ['ohos.permission.MANAGE_VPN'] }];
  return policyLab(t, { vpnd: { policy: { callers, ...policy } } });
}

const sorted = (...lists: (readonly string[])[]) => lists.flat().sort();
const NOTHING: Way = { eth0: [], eth1: [], tunnel: [] };

for (const victim of VICTIMS) {
  const { whose, owner, covered } = victim;
  const uid = covered.at(-1) ?? owner;

  test(
    `${whose}: discovery without a named link leaves as without a VPN, by the link that main prefers`,
    TIMEOUT,
    async (t) => {
      const lab = await scene(t, owner);
      if (!lab) return;
      const { app } = lab;
      const since = await lab.moment();
      const tunnel = await raise(lab, victim);
      const broadcast = '192.168.50.255';
      const first = await ways(lab, tunnel, { uid }, [...GROUPS, broadcast, ...WIDE]);
      assert.deepEqual(first.eth0, sorted(GROUPS, [broadcast]));
      assert.deepEqual(first.eth1, []);
      const sources = (await lab.departed()).filter(({ destination }) => IPV4_GROUPS.includes(destination));
      const foreign = sources.filter(
        ({ source, protocol }) => protocol === 'udp' && source !== POLICY_ADDRESSES.app.ipv4,
      );
      assert.deepEqual(foreign, []);

      // The machine's own route for groups, then none but by the other link.
      await app.ip('route add 224.0.0.0/4 dev eth1');
      await eventually('the other link', async () => {
        const way = await ways(lab, tunnel, { uid }, ['239.255.255.250', '224.0.0.251']);
        return way.eth1.length === 2 || undefined;
      });
      await app.ip('route del 224.0.0.0/4 dev eth1');
      await eventually('the first link again', async () => {
        const way = await ways(lab, tunnel, { uid }, ['239.255.255.250', '224.0.0.251']);
        return way.eth0.length === 2 || undefined;
      });
      await app.ip('link set eth0 down');
      await eventually('the other link', async () => {
        const way = await ways(lab, tunnel, { uid }, IPV4_GROUPS);
        return way.eth1.length === IPV4_GROUPS.length || undefined;
      });
      // The kernel gives every link that comes up a route to all groups, behind those that are there: the vNIC's is the first now.
      await app.ip('link set eth1 down', 'link set eth0 up', 'link set eth1 up');
      await Promise.all([app.linkIsUp('eth0'), app.linkIsUp('eth1')]);
      const after = await ways(lab, tunnel, { uid }, IPV6_GROUPS);
      assert.deepEqual([...after.eth0, ...after.eth1].sort(), sorted(IPV6_GROUPS));
      assert.deepEqual(after.tunnel, []);
      assert.deepEqual(await lab.leaks(tunnel.facts, undefined, since), []);
    },
  );

  test(`${whose}: where no local network is allowed discovery goes into the tunnel or nowhere`, TIMEOUT, async (t) => {
    const lab = await scene(t, owner, { lan: 'off' });
    if (!lab) return;
    const since = await lab.moment();
    const tunnel = await raise(lab, victim);
    const way = await ways(lab, tunnel, { uid }, [...GROUPS, '192.168.50.255', ...WIDE]);
    assert.deepEqual({ ...way, tunnel: [] }, NOTHING);
    assert.deepEqual(await lab.leaks(tunnel.facts, undefined, since), []);
  });

  test(
    `${whose}: what the VPN has a route for stays in it, and a link without an allowed network gets nothing`,
    TIMEOUT,
    async (t) => {
      const lab = await scene(t, owner, { lan: ['192.168.60.0/24', 'fd60::/64'] });
      if (!lab) return;
      const since = await lab.moment();
      const routes = [route('0.0.0.0/0'), route('::/0'), route('239.0.0.0/8')];
      const tunnel = await raise(lab, victim, { routes });
      const way = await ways(lab, tunnel, { uid }, IPV4_GROUPS);
      assert.deepEqual(way.eth0, []);
      assert.deepEqual(way.eth1, sorted(IPV4_GROUPS.filter((each) => !each.startsWith('239.'))));
      assert.deepEqual(way.tunnel, ['239.255.255.250']);
      assert.deepEqual(await lab.leaks(tunnel.facts, undefined, since), []);
    },
  );

  test(`${whose}: who joins a group without a named link joins it on the local network`, TIMEOUT, async (t) => {
    const lab = await scene(t, owner);
    if (!lab) return;
    await raise(lab, victim);
    const joined = lab.app.spawn(await python(lab, uid), ['-c', JOIN], { uid });
    await joined.waitFor(/^ready$/m);
    assert.deepEqual(await linksWith(lab.app, '239.255.255.250'), ['eth0']);
    assert.deepEqual(await linksWith(lab.app, 'ff02::c'), ['eth0']);
    await joined.kill('SIGKILL');
  });
}

for (const victim of VICTIMS) {
  const { whose, owner, covered } = victim;

  test(`${whose}: discovery leaves by the link of the only default route in a table of its own`, TIMEOUT, async (t) => {
    const lab = await scene(t, owner);
    if (!lab) return;
    await onlyDefaultInTable(lab);
    const uid = covered.at(-1) ?? owner;
    const since = await lab.moment();
    const tunnel = await raise(lab, victim);
    const way = await ways(lab, tunnel, { uid }, [...IPV4_GROUPS, ...WIDE]);
    assert.deepEqual(way.eth0, sorted(IPV4_GROUPS));
    assert.deepEqual(way.eth1, []);
    await ip4(lab, `route replace default via ${POLICY_ADDRESSES.cafe.ipv4} dev eth1 table ${TABLE}`);
    await eventually('where the table leads now', async () => {
      const { eth0, eth1 } = await ways(lab, tunnel, { uid }, ['239.255.255.250']);
      return (eth0.length === 0 && eth1.length === 1) || undefined;
    });
    // Nobody is led there any more, and main knows no way.
    await ip4(lab, 'rule del pref 32000');
    await eventually('nowhere outside', async () => {
      const { eth0, eth1 } = await ways(lab, tunnel, { uid }, ['239.255.255.250']);
      return eth0.length + eth1.length === 0 || undefined;
    });
    assert.deepEqual(await lab.leaks(tunnel.facts, undefined, since), []);
  });
}

test('an application that a VPN covers discovers like a user whom one covers', TIMEOUT, async (t) => {
  const lab = await scene(t, 2001);
  if (!lab) return;
  const cgroup = lab.cgroup('app-finder.scope');
  const since = await lab.moment();
  const trustedApplications = [`cgroup:${cgroup.path}`];
  const tunnel = await raise(lab, { owner: 2001, config: {} }, { trustedApplications });
  const way = await ways(lab, tunnel, { uid: 2001, cgroup }, GROUPS);
  assert.deepEqual(way, { eth0: sorted(GROUPS), eth1: [], tunnel: [] });
  assert.deepEqual(await lab.leaks(tunnel.facts, undefined, since), []);
});

for (const [lan, expected] of [
  ['private', GROUPS],
  ['off', []],
] as const) {
  test(`under lockdown discovery leaves as the policy says: lan ${lan}`, TIMEOUT, async (t) => {
    const lab = await scene(t, 2001, { lan, lockdown: [2002] });
    if (!lab) return;
    const tunnel = await raise(lab, { owner: 2001, config: {} });
    const since = await lab.moment();
    const mine = String(port++);
    const send = ['-c', SEND, mine, ...GROUPS, '192.168.50.255', ...WIDE];
    await lab.app.run(await python(lab, 2002), send, { uid: 2002 });
    await ways(lab, tunnel, { uid: 2001 }, []);
    const departed = (await lab.departed()).filter(({ destinationPort }) => destinationPort === Number(mine));
    const left = departed.map(({ destination }) => destination).sort();
    assert.deepEqual(left, lan === 'off' ? [] : sorted(expected, ['192.168.50.255']));
    assert.deepEqual(await lab.leaks(tunnel.facts, undefined, since), []);
  });
}

/** Whoever has joined, of any family. */
async function linksWith(app: LabHost, group: string): Promise<string[]> {
  const links = await app.json<{ ifname: string; maddr: { address?: string }[] }[]>('ip', ['-j', 'maddress', 'show']);
  return links.filter(({ maddr }) => maddr.some(({ address }) => address === group)).map(({ ifname }) => ifname);
}

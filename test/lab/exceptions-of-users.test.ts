/**
 * What leaves because of a covered user and is not that user's to the locks, one by one, as `vpnctl leaks` has it: what the kernel says
 * by itself, groups that it joins, sockets that somebody else made, sockets that are no IP.
 *
 *   app uid 2001 ── vpn-tunN ══ exit1          what leaves by eth0 and eth1 is captured
 *     eth0 ─── attacker, who sends what makes the kernel speak
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  echoRequestFrame,
  type Flow,
  fragmentsOf,
  type Stations,
  udpFrame,
  unreadableFrame,
} from './lib/attackers/frames.js';
import { raise, VICTIMS } from './lib/attackers/victim.js';
import { type TestCgroup, whyNoCgroup } from './lib/cgroup.js';
import { type DepartedPacket, describePacket, isExplainedBy } from './lib/leak-check.js';
import { POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { eventually } from './lib/vpn-lab.js';

const { internet } = ADDRESSES;
const { app: HOST, attacker: ATTACKER } = POLICY_ADDRESSES;
const FAMILIES = ['ipv4', 'ipv6'] as const;
const TIMEOUT = { timeout: 180_000 };
const ECHO_REPLIES = [0, 129];
const USER = VICTIMS[0] as (typeof VICTIMS)[number];

/** The policy of these tests: a local network that is allowed would explain most of it. */
const policyOf = (more: object = {}) => ({
  lan: 'off',
  callers: [0, 2001].map((uid) => ({ match: { uid }, system: true, permissions: ['ohos.permission.MANAGE_VPN'] })),
  ...more,
});

async function stationsOf(lab: PolicyLab): Promise<Stations> {
  const [link] = await lab.app.json('ip', ['-j', 'link', 'show', 'eth0']);
  return { from: await lab.mac(lab.attacker), to: String(link?.address) };
}

/** Put on the LAN, and taken in by the host: it has answered a ping that came behind. */
async function put(lab: PolicyLab, frames: readonly string[]): Promise<void> {
  const stations = await stationsOf(lab);
  const attacker = await lab.stranger(lab.attacker);
  const before = (await lab.departed()).filter(isEchoReply).length;
  const ping = echoRequestFrame(stations, { source: ATTACKER.ipv4, destination: HOST.ipv4 });
  for (const frame of [...frames, ping]) assert.equal(await attacker.call('sendFrame', 'eth0', frame), 'ok');
  const replied = async () => (await lab.departed()).filter(isEchoReply).length > before || undefined;
  await eventually('an answer to the ping', replied);
}

const isEchoReply = ({ icmpType = -1 }: DepartedPacket) => ECHO_REPLIES.includes(icmpType);
const NOISE = (packet: DepartedPacket) =>
  packet.protocol === 'arp' || isEchoReply(packet) || isNeighbourDiscovery(packet);
const isNeighbourDiscovery = ({ icmpType = 0, protocol }: DepartedPacket) =>
  protocol === 'icmpv6' && icmpType >= 133 && icmpType <= 136;

/** From the far end to the host, of the two families. */
const flowOf = (family: (typeof FAMILIES)[number]): Flow => ({
  source: internet[family],
  destination: HOST[family],
  sourcePort: 7,
  destinationPort: 40_404,
});

const WAYS = [
  { name: "a user's VPN", owner: 2001, lockdown: undefined, speaks: true },
  { name: 'a user under lockdown', owner: undefined, lockdown: [2001], speaks: true },
  { name: "root's VPN", owner: 0, lockdown: undefined, speaks: false },
  { name: "everybody's lockdown", owner: undefined, lockdown: [0], speaks: false },
];

for (const { name, owner, lockdown, speaks } of WAYS) {
  test(`${name}: what the kernel says of packets that it cannot read or put together`, TIMEOUT, async (t) => {
    const lab = await policyLab(t, { vpnd: { policy: policyOf(lockdown && { lockdown }) } });
    if (!lab) return;
    await lab.app.sysctl('net.ipv4.ipfrag_time=1', 'net.ipv6.ip6frag_time=1');
    await lab.app.run('sysctl', ['-qw', 'net.netfilter.nf_conntrack_frag6_timeout=1'], { check: false });
    const tunnel = owner === undefined ? undefined : await raise(lab, { owner, config: {} });
    const stations = await stationsOf(lab);
    const since = await lab.moment();
    const frames = FAMILIES.flatMap((family, index) => [
      unreadableFrame(stations, flowOf(family)),
      fragmentsOf(udpFrame(stations, flowOf(family), 'x'.repeat(64)), 32, 77 + index)[0],
    ]);
    if (speaks) {
      const seen = async () => {
        const types = (await lab.departed()).map(({ protocol, icmpType }) => `${protocol} ${icmpType}`);
        const wanted = ['icmp 12', 'icmpv6 4', 'icmp 11', 'icmpv6 3'];
        return wanted.every((type) => types.includes(type)) || undefined;
      };
      await put(lab, frames);
      await eventually('errors of every kind', seen);
    } else {
      const attacker = await lab.stranger(lab.attacker);
      for (const frame of frames) assert.equal(await attacker.call('sendFrame', 'eth0', frame), 'ok');
      // Longer than fragments are waited for: what is not said then is not said.
      await new Promise((resolve) => setTimeout(resolve, 2500));
    }
    // To conntrack it is an answer to the datagram, as "port unreachable" is.
    const isInbound = ({ protocol, icmpType }: DepartedPacket) => owner === 0 && protocol === 'icmp' && icmpType === 12;
    const facts = { isUncovered: NOISE, isInbound, isProtected: tunnel?.facts.isProtected ?? (() => false) };
    assert.deepEqual(await lab.leaks(facts, undefined, since), []);
  });
}

const isLeaving = ({ protocol, icmpType, payload }: DepartedPacket) =>
  protocol === 'igmp' ? payload[0] === 0x17 : protocol === 'icmpv6' && icmpType === 132;

/** Joins groups on every link, by index, by address and by neither, and stays in them until its input ends. */
const JOIN = `
import os, socket, struct, sys
os.setresgid(2001, 2001, 2001)
os.setresuid(2001, 2001, 2001)
kept = []
def join(link, number):
    for family, level, option, group, rest in (
        (socket.AF_INET, socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, "239.1.2.%d" % number, bytes(4) + struct.pack("=i", link)),
        (socket.AF_INET6, socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, "ff05::1:%d" % number, struct.pack("=I", link)),
    ):
        made = socket.socket(family, socket.SOCK_DGRAM)
        kept.append(made)
        try:
            made.setsockopt(level, option, socket.inet_pton(family, group) + rest)
        except OSError:
            if link != 0:  # under lockdown there may be no way to any group
                raise
for number, name in enumerate(("eth0", "eth1")):
    join(socket.if_nametoindex(name), number)
join(0, 2)
four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
group = socket.inet_aton("239.1.2.9")
four.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + socket.inet_aton("${HOST.ipv4}") + bytes(4))
print("done", flush=True)
sys.stdin.read()
`;

const LISTENER_REPORTS = [131, 132, 143];

function isMembership({ protocol, icmpType }: DepartedPacket): boolean {
  return protocol === 'igmp' || (protocol === 'icmpv6' && LISTENER_REPORTS.includes(icmpType ?? 0));
}

for (const { name, owner, lockdown } of WAYS) {
  for (const version of [3, 1]) {
    test(
      `${name}: joins to groups (MLD and IGMP of ${version === 3 ? 'today' : 'old'}) are what leaks lists`,
      TIMEOUT,
      async (t) => {
        const lab = await policyLab(t, { vpnd: { policy: policyOf(lockdown && { lockdown }) } });
        if (!lab) return;
        if (version === 1) {
          await lab.app.sysctl(
            ...['eth0', 'eth1'].flatMap((link) => [
              `net.ipv4.conf.${link}.force_igmp_version=2`,
              `net.ipv6.conf.${link}.force_mld_version=1`,
              `net.ipv4.conf.${link}.igmpv2_unsolicited_report_interval=100`,
              `net.ipv6.conf.${link}.mldv1_unsolicited_report_interval=100`,
            ]),
          );
        }
        const tunnel = owner === undefined ? undefined : await raise(lab, { owner, config: {} });
        const since = await lab.moment();
        const joining = lab.app.spawn('python3', ['-SEc', JOIN]);
        await joining.waitFor(/^done$/m);
        const after = async () => {
          const packets = (await lab.departed()).filter(isMembership);
          const links = new Set(packets.map(({ link, protocol }) => `${link} ${protocol}`));
          return links.size === 4 || undefined;
        };
        await eventually('joins by both links', after);
        await joining.kill();
        const left = async () => (await lab.departed()).some(isLeaving) || undefined;
        if (version === 1) await eventually('a word at the end', left);
        const facts = { isUncovered: NOISE, isProtected: tunnel?.facts.isProtected ?? (() => false) };
        const exceptions = await lab.exceptions();
        assert.deepEqual(await lab.leaks(facts, exceptions, since), []);
        const joins = (await lab.departed()).filter(isMembership);
        for (const join of joins) {
          const explaining = exceptions.filter((each) => isExplainedBy(join, each)).map(({ kind }) => kind);
          const kind = join.protocol === 'igmp' ? 'igmp' : 'mld';
          assert.deepEqual(explaining, [kind], describePacket(join));
          assert.equal(join.hopLimit, 1);
        }
      },
    );
  }
}

/**
 * Arguments: who makes the socket and who sends with it; whether it is handed over (SCM_RIGHTS), inherited (fork) or made before a
 * change of user (setuid); whom to ask; for what is handed over also the cgroups of maker and sender.
 */
const HAND_OVER = `
import array, os, socket, sys
maker, sender, way, target = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
cgroups = (sys.argv[5:] + ["", ""])[:2]
def enter(cgroup):
    if cgroup:
        with open(cgroup + "/cgroup.procs", "w") as procs:
            procs.write(str(os.getpid()))
def become(uid):
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
def make():
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    return socket.socket(family, socket.SOCK_DGRAM)
def send(made):
    made.sendto(way.encode(), (target, 7))
    made.settimeout(20)
    print(made.recv(2048).split()[0].decode(), flush=True)
if way == "rights":
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    if os.fork() == 0:
        enter(cgroups[0])
        become(maker)
        made = make()
        socket.send_fds(there, [b"x"], [made.fileno()])
        os._exit(0)
    enter(cgroups[1])
    become(sender)
    _, descriptors, _, _ = socket.recv_fds(here, 1, 1)
    send(socket.socket(fileno=descriptors[0]))
else:
    os.seteuid(maker)
    made = make()
    os.seteuid(0)
    if way == "fork" and os.fork() != 0:
        os.wait()
        os._exit(0)
    become(sender)
    send(made)
`;

test('a socket is covered as its maker, whoever sends with it, and leaks says so', TIMEOUT, async (t) => {
  const lab = await policyLab(t);
  if (!lab) return;
  await raise(lab, USER);
  const [own, other] = [USER.covered[0] ?? 0, USER.uncovered];
  for (const target of [internet.ipv4, internet.ipv6]) {
    for (const way of ['rights', 'fork', 'setuid']) {
      const answered = async (maker: number, sender: number): Promise<string> =>
        (await lab.app.run('python3', ['-SEc', HAND_OVER, String(maker), String(sender), way, target])).stdout.trim();
      assert.equal(await answered(other, own), 'server', `${way} ${target}`);
      assert.equal(await answered(own, other), 'exit1', `${way} ${target}`);
    }
  }
  const listed = (await lab.exceptions()).filter(({ socket }) => socket === 'handed-over');
  assert.deepEqual(
    listed.map(({ kind, uid }) => [kind, uid]),
    [['handed-over', own]],
  );
});

for (const { whose, owner, covered } of VICTIMS) {
  test(
    `${whose} for one application: a socket is its maker's, whichever application sends with it`,
    TIMEOUT,
    async (t) => {
      const reason = whyNoCgroup();
      if (reason !== undefined) return t.skip(reason);
      const lab = await policyLab(t);
      if (!lab) return;
      const [listed, other] = [lab.cgroup('listed'), lab.cgroup('other')];
      await raise(lab, { owner, config: {} }, { trustedApplications: [`cgroup:${listed.path}`] });
      const uid = String(covered.at(-1));
      for (const target of [internet.ipv4, internet.ipv6]) {
        const answered = async (maker: TestCgroup, sender: TestCgroup): Promise<string> => {
          const who = [uid, uid, 'rights', target, maker.directory, sender.directory];
          return (await lab.app.run('python3', ['-SEc', HAND_OVER, ...who])).stdout.trim();
        };
        assert.equal(await answered(other, listed), 'server', target);
        assert.equal(await answered(listed, other), 'exit1', target);
      }
      assert.ok((await lab.exceptions()).some((each) => each.uid === owner && each.socket === 'handed-over'));
    },
  );
}

test('a covered user may open AF_VSOCK, which no lock sees, and leaks says so', TIMEOUT, async (t) => {
  const lab = await policyLab(t, { vpnd: { policy: policyOf({ lockdown: [2003] }) } });
  if (!lab) return;
  await raise(lab, USER);
  // Bound, and no more: at the other end is the hypervisor of whoever runs this test.
  const script =
    'import os, socket; os.setresuid(2001, 2001, 2001); socket.socket(40, 1, 0).bind((0xFFFFFFFF, 0xFFFFFFFF))';
  const { status, stderr } = await lab.app.run('python3', ['-SEc', script], { check: false });
  if (stderr.includes('EAFNOSUPPORT') || stderr.includes('not supported')) t.diagnostic('this kernel has no AF_VSOCK');
  else assert.equal(status, 0, stderr);
  const listed = (await lab.exceptions()).filter(({ socket }) => socket === 'vsock');
  assert.deepEqual(
    listed.map(({ kind, uid, lockdown = false }) => [kind, uid, lockdown]),
    [
      ['vsock', 2001, false],
      ['vsock', 2003, true],
    ],
  );
});

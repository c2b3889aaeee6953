/**
 * Who receives what arrives on a vNIC, with the real kernel: sockets of several users and marks wait for packets of a peer.
 *
 *   peer ── eth0 ═════ vnic0 ── host        vnic0 stands for a vNIC: it has a rule
 *   10.9.0.1, fd09::1  10.9.0.2, fd09::2
 *        └─ eth1 ═════ lan0 ──┘             lan0 has none
 *           10.8.0.1   10.8.0.2
 *
 * The program is attached from outside, to the machine's root cgroup, for the host's network namespace only.
 */
import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { BYPASS_MARK, SELECTION_FIELD, selectionMark } from '../../src/host/numbers.js';
import { ReceiveGuard, receiveGuardProblem } from '../../src/host/receive-guard.js';
import { ATTACH_TYPE, attachProgram, listPrograms, sweepPrograms } from '../../src/kernel/bpf-attach.js';
import {
  LIST_KEY_BYTES,
  type ReceiveRule,
  RULE_BYTES,
  receiveGuardProgram,
  ruleValue,
} from '../../src/kernel/bpf-receive-guard.js';
import { HashMap, loadProgram, PROGRAM_TYPE } from '../../src/kernel/bpf-syscall.js';
import { cgroup2Root } from '../../src/kernel/cgroup.js';
import { kernelOffsets } from '../../src/kernel/kernel-offsets.js';
import { whyNoCgroup } from './lib/cgroup.js';
import type { LabHost } from './lib/host.js';
import { Lab } from './lib/lab.js';
import { requireRoot } from './lib/prerequisites.js';

const root = cgroup2Root() ?? '';
const [ONE, TWO] = [selectionMark(1), selectionMark(2)];

/** A receiver: the uid that made its sockets, and their mark. */
type Receiver = readonly [uid: number, mark: number];

/**
 * Makes every kind of socket for each receiver, sends pings from the ping sockets, and says which sockets got something.
 * setfsuid(2) gives a socket another owner but leaves the right to mark it and to make raw ones.
 */
const RECEIVER = `
import ctypes, json, select, socket, struct, sys, time
libc = ctypes.CDLL(None)
SO_MARK, SO_BINDTODEVICE, SO_NETNS_COOKIE = 36, 25, 71
V4, V6, DEVICE = '10.9.0.2', 'fd09::2', b'vnic0'

def sockets(number, uid, mark):
    made = {}
    def make(name, family, kind, protocol=0, address=None, device=False):
        libc.setfsuid(uid)
        s = socket.socket(family, kind, protocol)
        libc.setfsuid(0)
        s.setsockopt(socket.SOL_SOCKET, SO_MARK, struct.pack('I', mark))
        if device: s.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, DEVICE)
        if family == socket.AF_INET6 and kind != socket.SOCK_RAW: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address is not None: s.bind((address, 20000 + 20 * number + len(made)))
        if kind == socket.SOCK_STREAM: s.listen()
        s.setblocking(False)
        made[name] = s
    for family, own, any_, v in ((socket.AF_INET, V4, '0.0.0.0', '4'), (socket.AF_INET6, V6, '::', '6')):
        make('tcp' + v, family, socket.SOCK_STREAM, 0, any_)
        make('tcp-address' + v, family, socket.SOCK_STREAM, 0, own)
        make('udp' + v, family, socket.SOCK_DGRAM, 0, any_)
        make('udp-address' + v, family, socket.SOCK_DGRAM, 0, own)
        make('udp-device' + v, family, socket.SOCK_DGRAM, 0, any_, True)
    make('ping4', socket.AF_INET, socket.SOCK_DGRAM, 1)
    make('ping6', socket.AF_INET6, socket.SOCK_DGRAM, 58)
    make('raw4', socket.AF_INET, socket.SOCK_RAW, 1)
    make('raw6', socket.AF_INET6, socket.SOCK_RAW, 58)
    made['raw6'].setsockopt(socket.IPPROTO_ICMPV6, 1, struct.pack('8I', *([0xffffffff] * 4 + [0xfffffffe] + [0xffffffff] * 3)))
    return made

def got(s):
    try:
        if s.type == socket.SOCK_STREAM: s.accept()[0].close()
        else: s.recv(2048)
        return True
    except BlockingIOError: return False

with socket.socket() as s: print(s.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8).hex(), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if 'receivers' in request:
        receivers = [sockets(number, *each) for number, each in enumerate(request['receivers'])]
        print('made', flush=True)
        continue
    for each in receivers:
        each['ping4'].sendto(b'\\x08\\0\\0\\0\\0\\0\\0\\1ping', ('10.9.0.1', 0))
        each['ping6'].sendto(b'\\x80\\0\\0\\0\\0\\0\\0\\1ping', ('fd09::1', 0))
    # What shall arrive gets all the time it needs, within reason; the rest a moment more.
    end = time.monotonic() + 10
    for each, expected in zip(receivers, request['expected']):
        for name in expected: select.select([each[name]], [], [], max(0, end - time.monotonic()))
    select.select([], [], [], 0.2)
    print(json.dumps([[name for name, s in each.items() if got(s)] for each in receivers]), flush=True)
    for each in receivers:
        for s in each.values(): s.close()
`;

/** The receiver's sockets, in its order. */
const BOUND = ['tcp', 'tcp-address', 'udp', 'udp-address', 'udp-device'];
const ALL = [...BOUND.map((name) => `${name}4`), ...BOUND.map((name) => `${name}6`), 'ping4', 'ping6', 'raw4', 'raw6'];

/** Knocks at every port of every receiver, then pings; the answers prove that all before has been dealt with. */
const SENDER = `
import socket, sys
v4, v6, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
pending = []
for number in range(count):
    for index in range(10):
        family, address = ((socket.AF_INET, v4), (socket.AF_INET6, v6))[index // 5]
        s = socket.socket(family, (socket.SOCK_STREAM, socket.SOCK_DGRAM)[index % 5 > 1])
        s.setblocking(False)
        pending.append(s)
        if s.connect_ex((address, 20000 + 20 * number + index)) == 0: s.send(b'hello')
for family, protocol, request, reply, address in (
    (socket.AF_INET, 1, b'\\x08\\0\\xf7\\xfd\\0\\1\\0\\1', 0, v4), (socket.AF_INET6, 58, b'\\x80\\0\\0\\0\\0\\1\\0\\1', 129, v6)):
    s = socket.socket(family, socket.SOCK_RAW, protocol)
    s.settimeout(5)
    s.sendto(request, (address, 0))
    while True:
        data = s.recv(2048)
        if data[20 if protocol == 1 else 0] == reply: break
    print('answered', flush=True)
# A port nobody listens on: the kernel's reset comes through.
for family, address in ((socket.AF_INET, v4), (socket.AF_INET6, v6)):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(5)
    try: s.connect((address, 9))
    except ConnectionRefusedError: print('refused', flush=True)
`;

interface GuardLab {
  host: LabHost;
  cookie: bigint;
  ifindex: number;
  /** Sends to every socket of the receivers by vnic0; asserts who gets it. */
  expect(receivers: readonly (readonly [...Receiver, boolean])[], what: string): Promise<void>;
  /** The same by lan0, which sockets bound to vnic0 or its address do not see; all the others get it. */
  expectFromLan(receivers: readonly Receiver[], what: string): Promise<void>;
}

const programName = `vpnd_r${process.pid.toString(36)}`;

async function guardLab(t: TestContext): Promise<GuardLab | undefined> {
  if (!requireRoot(t)) return undefined;
  const lab = await Lab.create();
  t.after(async () => {
    await lab.close();
    sweepPrograms(root, (name) => name === programName);
    assert.deepEqual(
      listPrograms(root, ATTACH_TYPE.ingress).filter(({ name }) => name === programName),
      [],
    );
  });
  const host = await lab.host('host');
  const peer = await lab.host('peer');
  await lab.link(host, 'vnic0', ['10.9.0.2/24', 'fd09::2/64'], peer, 'eth0', ['10.9.0.1/24', 'fd09::1/64']);
  await lab.link(host, 'lan0', ['10.8.0.2/24', 'fd08::2/64'], peer, 'eth1', ['10.8.0.1/24', 'fd08::1/64']);
  const [link] = await host.json<{ ifindex: number }[]>('ip', ['-j', 'link', 'show', 'vnic0']);
  const receiver = host.spawn('python3', ['-c', RECEIVER]);
  const [cookie] = await receiver.waitFor(/^[0-9a-f]{16}$/m);
  let said = receiver.stdout.length;
  const answer = async (request: object, pattern: RegExp): Promise<string> => {
    receiver.write(`${JSON.stringify(request)}\n`);
    for (;;) {
      const [line] = pattern.exec(receiver.stdout.slice(said)) ?? [];
      if (line !== undefined) {
        said = receiver.stdout.length;
        return line;
      }
      assert.ok(receiver.running, receiver.stderr);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  const send = async (addresses: string[], receivers: readonly Receiver[], expected: string[][], what: string) => {
    await answer({ receivers }, /^made$/m);
    const { stdout } = await peer.run('python3', ['-c', SENDER, ...addresses, String(receivers.length)]);
    assert.equal(stdout, 'answered\nanswered\nrefused\nrefused\n', `${what}: the kernel's own answers`);
    const results = JSON.parse(await answer({ expected }, /^\[.*\]$/m)) as string[][];
    receivers.forEach(([uid, mark], index) => {
      assert.deepEqual(
        results[index],
        expected[index],
        `${what}: what uid ${uid}, mark 0x${mark.toString(16)} receives`,
      );
    });
  };
  return {
    host,
    cookie: Buffer.from(cookie as string, 'hex').readBigUInt64LE(),
    ifindex: link?.ifindex as number,
    expect(receivers, what) {
      const expected = receivers.map(([, , receives]) => (receives ? ALL : []));
      const who = receivers.map(([uid, mark]) => [uid, mark] as const);
      return send(['10.9.0.2', 'fd09::2'], who, expected, what);
    },
    expectFromLan(receivers, what) {
      const unbound = ALL.filter((name) => /^(tcp|udp|raw)[46]$/.test(name));
      return send(
        ['10.8.0.2', 'fd08::2'],
        receivers,
        receivers.map(() => unbound),
        what,
      );
    },
  };
}

const skip = whyNoCgroup() ?? false;
const [YES, NO] = [true, false];
const rule = (change: Partial<ReceiveRule> = {}): ReceiveRule => ({ owner: 2001, others: true, list: [], ...change });
const roots = (change: Partial<ReceiveRule> = {}): ReceiveRule => rule({ owner: 0, ...change });

/** A rule and who receives under it; TCP, UDP, ping and raw, IPv4 and IPv6, bound or not, all alike. */
const MATRIX: readonly [what: string, rule: ReceiveRule, receivers: readonly (readonly [...Receiver, boolean])[]][] = [
  [
    "a user's VPN",
    rule(),
    [
      [2001, 0, YES],
      [2002, 0, NO],
      [0, 0, NO],
      [2001, ONE, YES],
      [2001, BYPASS_MARK, NO],
      [2001, 0x42, YES],
    ],
  ],
  [
    "a user's VPN, some trusted",
    rule({ others: false, covered: ONE }),
    [
      [2001, 0, NO],
      [2001, ONE, YES],
      [2002, ONE, NO],
      [2001, TWO, NO],
      [2001, ONE + BYPASS_MARK, NO],
      [2001, ONE + 0x42, YES],
    ],
  ],
  [
    "a user's VPN, some blocked",
    rule({ covered: TWO, blocked: ONE }),
    [
      [2001, 0, YES],
      [2001, ONE, NO],
      [2001, TWO, YES],
      [0, 0, NO],
    ],
  ],
  [
    "root's VPN",
    roots(),
    [
      [0, 0, YES],
      [2002, 0, YES],
      [2003, 0, NO],
      [2003, ONE, NO],
      [2002, BYPASS_MARK, NO],
    ],
  ],
  [
    "root's VPN, some uids trusted",
    roots({ others: false, list: [2002] }),
    [
      [2002, 0, YES],
      [0, 0, NO],
      [2001, 0, NO],
      [2003, 0, NO],
    ],
  ],
  [
    "root's VPN, an own VPN beats the list",
    roots({ others: false, list: [2002, 2003] }),
    [
      [2002, 0, YES],
      [2003, 0, NO],
    ],
  ],
  [
    "root's VPN, some uids blocked",
    roots({ list: [2002] }),
    [
      [2002, 0, NO],
      [0, 0, YES],
      [2001, 0, YES],
      [2003, 0, NO],
    ],
  ],
  [
    "root's VPN, an application trusted",
    roots({ others: false, covered: ONE }),
    [
      [2002, ONE, YES],
      [2002, 0, NO],
      [0, ONE, YES],
      [2003, ONE, NO],
    ],
  ],
  [
    "root's VPN, an application blocked",
    roots({ blocked: ONE }),
    [
      [2002, ONE, NO],
      [2002, 0, YES],
      [2002, TWO, YES],
    ],
  ],
];

test('only covered sockets receive from a vNIC, whatever they are and are bound to', {
  skip,
  timeout: 240_000,
}, async (t) => {
  const lab = await guardLab(t);
  if (!lab) return;
  const guard = new ReceiveGuard(lab.cookie, programName);
  const everyone = [
    [2001, 0, YES],
    [2002, ONE, YES],
    [0, 0, YES],
    [2001, BYPASS_MARK, YES],
  ] as const;
  await lab.expect(everyone, 'without a guard');
  // A VPN of uid 2003 that nothing arrives on.
  guard.set(lab.ifindex + 1000, rule({ owner: 2003 }));
  await lab.expect(everyone, 'a guard with no rule for the link');
  for (const [what, each, receivers] of MATRIX) {
    guard.set(lab.ifindex, each);
    await lab.expect(receivers, what);
  }
  guard.set(lab.ifindex, rule());
  await lab.expectFromLan(
    [
      [2002, 0],
      [0, 0],
      [2002, BYPASS_MARK],
    ],
    'another link',
  );
  guard.delete(lab.ifindex);
  await lab.expect(everyone, 'when the rule is gone');
  guard.set(lab.ifindex, roots());
  guard.delete(lab.ifindex + 1000);
  await lab.expect([[2003, 0, YES]], 'when its own VPN is gone');
  guard.delete(lab.ifindex);
  guard.delete(lab.ifindex);
  assert.deepEqual(
    listPrograms(root, ATTACH_TYPE.ingress).filter(({ name }) => name === programName),
    [],
  );
});

test('a link with the same index in another network namespace is none of its business', {
  skip,
  timeout: 60_000,
}, async (t) => {
  const lab = await guardLab(t);
  if (!lab) return;
  const guard = new ReceiveGuard(lab.cookie ^ (1n << 63n), programName);
  guard.set(lab.ifindex, rule());
  await lab.expect(
    [
      [2001, 0, YES],
      [2002, 0, YES],
      [2001, BYPASS_MARK, YES],
    ],
    'the cookie is another',
  );
  guard.delete(lab.ifindex);
});

test('before Linux 6.15 the program finds the namespace by itself', { skip, timeout: 60_000 }, async (t) => {
  const lab = await guardLab(t);
  if (!lab) return;
  for (const netnsCookie of [lab.cookie, lab.cookie ^ (1n << 63n)]) {
    const maps = { rules: new HashMap('vpnd_t', 4, RULE_BYTES, 1), lists: new HashMap('vpnd_t', LIST_KEY_BYTES, 4, 1) };
    const fds = { rules: maps.rules.fd, lists: maps.lists.fd, bypass: BYPASS_MARK, field: SELECTION_FIELD };
    const instructions = receiveGuardProgram({ ...fds, netnsCookie, offsets: kernelOffsets() });
    const attachType = ATTACH_TYPE.ingress;
    const program = loadProgram({ name: programName, type: PROGRAM_TYPE.cgroupSkb, attachType, instructions });
    attachProgram(root, program, attachType);
    const key = Buffer.alloc(4);
    key.writeUInt32LE(lab.ifindex);
    maps.rules.set(key, ruleValue(rule()));
    const isOurs = netnsCookie === lab.cookie;
    await lab.expect(
      [
        [2001, 0, YES],
        [2002, 0, !isOurs],
        [2001, BYPASS_MARK, !isOurs],
      ],
      `cookie ${netnsCookie}`,
    );
    closeSync(program);
    for (const map of Object.values(maps)) map.close();
    assert.equal(sweepPrograms(root, (name) => name === programName).length, 1);
  }
});

test('what it costs a receiver on a link without a rule', { skip, timeout: 60_000 }, async (t) => {
  const lab = await guardLab(t);
  if (!lab) return;
  assert.equal(receiveGuardProblem(), undefined);
  const script = `
import socket, time
r = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); r.bind(('127.0.0.1', 0))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(r.getsockname())
best = 1e9
for batch in range(30):
    start = time.perf_counter_ns()
    for n in range(2000): s.send(b'x'); r.recv(10)
    best = min(best, (time.perf_counter_ns() - start) / 2000)
print(round(best))`;
  const measure = async () => Number((await lab.host.run('python3', ['-c', script])).stdout);
  const guard = new ReceiveGuard(lab.cookie, programName);
  const without = await measure();
  guard.set(lab.ifindex, roots());
  const attached = await measure();
  guard.delete(lab.ifindex);
  t.diagnostic(`a datagram sent and received: ${without} ns, with the program ${attached} ns`);
});

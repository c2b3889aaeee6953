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
import { spawnSync } from 'node:child_process';
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
import { ALL, RECEIVER, SENDER } from './receive-guard/sockets.js';

const root = cgroup2Root() ?? '';
const [ONE, TWO] = [selectionMark(1), selectionMark(2)];

/** A receiver: the uid that made its sockets, and their mark. */
type Receiver = readonly [uid: number, mark: number];

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
  timeout: 180_000,
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

test('before Linux 6.15 the program finds the namespace by itself', { skip, timeout: 180_000 }, async (t) => {
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

test('what is missing is named', { skip }, (t) => {
  if (!requireRoot(t)) return;
  assert.equal(receiveGuardProblem(), undefined);
  const module = new URL('../../src/host/receive-guard.js', import.meta.url).href;
  const script = `console.log((await import(${JSON.stringify(module)})).receiveGuardProblem())`;
  const node = [process.execPath, '--input-type=module', '-e', script];
  const say = (...words: string[]) => spawnSync(words[0] as string, [...words.slice(1), ...node]).stdout.toString();
  assert.equal(say('setpriv', '--bounding-set=-all,+net_admin,+bpf,+perfmon', '--inh-caps=-all'), 'undefined\n');
  const said = say('setpriv', '--bounding-set=-all,+net_admin', '--inh-caps=-all');
  assert.match(said, /^keeping other users from receiving through a VPN needs CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON /);
});

test('what it costs a receiver on a link without a rule', { skip, timeout: 180_000 }, async (t) => {
  const lab = await guardLab(t);
  if (!lab) return;
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

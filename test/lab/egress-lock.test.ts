/**
 * The second lock while the firewall is away: somebody deletes our nft tables, as many firewalls do when they are loaded again,
 * and until they are back nothing of covered sockets leaves that is bound to a physical link.
 *
 *   app uid 2001 or everyone, bound to eth0 ─── router ── server      captured from the beginning
 */
import assert from 'node:assert/strict';
import { dirname } from 'node:path';
import { type TestContext, test } from 'node:test';
import { raise, VICTIMS } from './lib/attackers/victim.js';
import { whyNoCgroup } from './lib/cgroup.js';
import { type DepartedPacket, describePacket } from './lib/leak-check.js';
import { whyNoMptcp } from './lib/mptcp.js';
import { keepsTables, tablesOfAnybody } from './lib/nobodys-tables.js';
import { POLICY_ADDRESSES, type PolicyLab, policyLab } from './lib/policy-lab.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { route } from './lib/vpn-app.js';
import { eventually } from './lib/vpn-lab.js';
import { startVpnd } from './lib/vpnd.js';

const { internet } = ADDRESSES;
const ROUNDS = 5;
const [IPPROTO_TCP, IPPROTO_MPTCP] = [6, 262];

/** Datagrams from sockets bound to eth0, as fast as they go, until its input ends; a minute at the most. */
const FLOOD = `
import os, select, socket, sys, time
os.setresuid(*[int(sys.argv[1])] * 3)
pairs = []
for family, target in ((socket.AF_INET, sys.argv[2]), (socket.AF_INET6, sys.argv[3])):
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    made.setblocking(False)
    pairs.append((made, (target, 4242)))
print("flooding", flush=True)
end = time.monotonic() + 60
sent = 0
while time.monotonic() < end and not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(20):
        for made, target in pairs:
            sent += 1
            try:
                made.sendto(b"covered", target)
            except OSError:
                pass
print("sent", sent, flush=True)
`;

/** Undefined, and the test skipped, where no program can be attached. */
async function bpfLab(t: TestContext): Promise<PolicyLab | undefined> {
  const reason = whyNoCgroup();
  return reason === undefined ? policyLab(t) : void t.skip(reason);
}

interface Flood {
  end(): Promise<void>;
}

/** From sockets of these users, from now on. */
async function flood(lab: PolicyLab, uids: readonly number[]): Promise<Flood> {
  const words = ['-SE', '-c', FLOOD];
  const floods = uids.map((uid) => lab.app.spawn('python3', [...words, String(uid), internet.ipv4, internet.ipv6]));
  for (const each of floods) await each.waitFor(/^flooding$/m);
  return {
    end: async () => {
      for (const each of floods) each.write('end\n');
      for (const each of floods) {
        const [, sent] = await each.waitFor(/^sent (\d+)$/m);
        assert.ok(Number(sent) > 1000, `${sent} datagrams tried`);
      }
    },
  };
}

/** The tables go, again and again, and are put back; at last they go for good, when vpnd is dead. */
async function takeAway(lab: PolicyLab, tables: readonly string[]): Promise<void> {
  const [first] = tables;
  for (const command of [`delete table ${first}`, 'flush ruleset']) {
    for (let round = 0; round < ROUNDS; round++) {
      await lab.app.run('nft', [command]);
      await eventually('the tables are back', async () => {
        const { stdout } = await lab.app.run('nft', ['list', 'tables']);
        return tables.every((table) => stdout.includes(`table ${table}\n`)) || undefined;
      });
    }
  }
  await lab.vpnd.kill9();
  await flush(lab);
}

/** The flood goes on for some time after it. */
async function flush(lab: PolicyLab): Promise<void> {
  await lab.app.run('nft', ['flush ruleset']);
  for (let count = 0; count < 20; count++) await lab.app.run('nft', ['list', 'tables']);
}

async function lockdownStands({ app }: PolicyLab): Promise<void> {
  await eventually('lockdown', async () => {
    const { stdout } = await app.run('nft', ['list', 'table', 'inet', 'vpnd_lockdown'], { check: false });
    return stdout.includes('chain lockdown') || undefined;
  });
}

async function nothingLeft(lab: PolicyLab): Promise<void> {
  const left = (await lab.departed()).filter(({ destinationPort }: DepartedPacket) => destinationPort === 4242);
  assert.deepEqual([left.length, ...new Set(left.map(describePacket))].slice(0, 4), [0]);
}

for (const { whose, covered, ...victim } of VICTIMS) {
  test(`${whose}: nothing that is bound to a link leaves while nft's tables are gone`, {
    timeout: 180_000,
  }, async (t) => {
    const lab = await bpfLab(t);
    if (!lab) return;
    await tablesOfAnybody(lab.app);
    await raise(lab, victim);
    const { end } = await flood(lab, covered);
    await takeAway(lab, ['inet vpnd', 'arp vpnd', 'netdev vpnd']);
    await end();
    await nothingLeft(lab);
  });
}

for (const { whose, lockdown, locked } of [
  { whose: "a user's", lockdown: [2001], locked: [2001] },
  { whose: "root's", lockdown: [0], locked: [0, 2002] },
]) {
  test(`${whose} lockdown: nothing leaves while nft's tables are gone`, { timeout: 180_000 }, async (t) => {
    const lab = await bpfLab(t);
    if (!lab) return;
    const policy = { callers: [], lockdown };
    lab.vpnd.reload(policy);
    await lockdownStands(lab);
    const { end } = await flood(lab, locked);
    // While vpnd lives they are its own on a new kernel.
    await lab.vpnd.kill9();
    await flush(lab);
    // A successor takes over, and dies too.
    const again = () => startVpnd(lab.app, { directory: dirname(lab.vpnd.socket), policy });
    const successor = await again();
    await lockdownStands(lab);
    if (keepsTables()) {
      await assert.rejects(lab.app.run('nft', ['delete table inet vpnd_lockdown']), /Operation not permitted/);
    }
    await successor.kill9();
    await flush(lab);
    // One that ends in order leaves what every nft can read.
    const last = await again();
    await lockdownStands(lab);
    await last.stop();
    const { stdout: left } = await lab.app.run('nft', ['list', 'ruleset']);
    assert.match(left, /^table inet vpnd_lockdown/m);
    await lab.app.run('nft', ['--check', '-f', '-'], { input: left });
    await flush(lab);
    await end();
    await nothingLeft(lab);
  });
}

/** Sends and goes, with most of it still to be sent. Arguments: uid, address, port, protocol. */
const LEAVER = `
import os, socket, sys
os.setresuid(*[int(sys.argv[1])] * 3)
made = socket.socket(socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET, socket.SOCK_STREAM, int(sys.argv[4]))
made.connect((sys.argv[2], int(sys.argv[3])))
made.setblocking(False)
sent = 0
try:
    while sent < 1 << 24: sent += made.send(b"x" * 65536)
except BlockingIOError: pass
print("sent", sent, flush=True)
`;

/** Takes what comes when it is told that the sender has gone. Arguments: port, protocol. */
const TAKER = `
import socket, sys
listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, int(sys.argv[2]))
listener.bind(("::", int(sys.argv[1])))
listener.listen()
print("ready", flush=True)
made = listener.accept()[0]
sys.stdin.readline()
taken = 0
while data := made.recv(65536): taken += len(data)
print("taken", taken, flush=True)
`;

test('what a program leaves behind when it goes is delivered wherever its VPN lets it send', {
  timeout: 180_000,
}, async (t) => {
  const lab = await bpfLab(t);
  if (!lab) return;
  const excluded = [`${internet.ipv4}/32`, `${internet.ipv6}/128`].map((each) =>
    route(each, { isExcludedRoute: true }),
  );
  await raise(lab, { owner: 2001, config: {} }, { routes: [route('0.0.0.0/0'), route('::/0'), ...excluded] });
  const protocols = whyNoMptcp() === undefined ? [IPPROTO_TCP, IPPROTO_MPTCP] : [IPPROTO_TCP];
  let port = 4300;
  for (const [host, addresses] of [
    [lab.lanHost, [POLICY_ADDRESSES.lanHost.ipv4, POLICY_ADDRESSES.lanHost.ipv6]],
    [lab.server, [internet.ipv4, internet.ipv6]],
  ] as const) {
    for (const [address, protocol] of addresses.flatMap((each) =>
      protocols.map((protocol) => [each, protocol] as const),
    )) {
      const words = [String(++port), String(protocol)];
      const taker = host.spawn('python3', ['-SE', '-c', TAKER, ...words]);
      await taker.waitFor(/^ready$/m);
      const { stdout } = await lab.app.run('python3', ['-SE', '-c', LEAVER, '2001', address, ...words]);
      taker.write('go\n');
      const [, taken] = await taker.waitFor(/^taken (\d+)$/m, 60_000);
      assert.equal(`sent ${taken}\n`, stdout, `${address}, protocol ${protocol}`);
    }
  }
});

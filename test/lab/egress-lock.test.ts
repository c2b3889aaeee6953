/**
 * The second lock while the firewall is away: somebody deletes our nft tables, as many firewalls do when they are loaded again,
 * and until they are back nothing of covered sockets leaves that is bound to a physical link.
 *
 *   app uid 2001 or everyone, bound to eth0 ─── router ── server      captured from the beginning
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { raise, VICTIMS } from './lib/attackers/victim.js';
import { type DepartedPacket, describePacket } from './lib/leak-check.js';
import { policyLab } from './lib/policy-lab.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { eventually } from './lib/vpn-lab.js';

const { internet } = ADDRESSES;
const ROUNDS = 5;

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

for (const { whose, covered, ...victim } of VICTIMS) {
  test(`${whose}: nothing that is bound to a link leaves while nft's tables are gone`, {
    timeout: 180_000,
  }, async (t) => {
    const lab = await policyLab(t);
    if (!lab) return;
    await raise(lab, victim);
    const floods = covered.map((uid) =>
      lab.app.spawn('python3', ['-SE', '-c', FLOOD, String(uid), internet.ipv4, internet.ipv6]),
    );
    for (const flood of floods) await flood.waitFor(/^flooding$/m);
    for (const command of ['delete table inet vpnd', 'flush ruleset']) {
      for (let round = 0; round < ROUNDS; round++) {
        await lab.app.run('nft', [command]);
        await eventually('the tables are back', async () => {
          const { stdout } = await lab.app.run('nft', ['list', 'tables']);
          return ['inet', 'arp', 'netdev'].every((family) => stdout.includes(`table ${family} vpnd\n`)) || undefined;
        });
      }
    }
    for (const flood of floods) flood.write('end\n');
    for (const flood of floods) {
      const [, sent] = await flood.waitFor(/^sent (\d+)$/m);
      assert.ok(Number(sent) > 1000, `${sent} datagrams tried`);
    }
    const left = (await lab.departed()).filter(({ destinationPort }: DepartedPacket) => destinationPort === 4242);
    assert.deepEqual([left.length, ...new Set(left.map(describePacket))].slice(0, 4), [0]);
  });
}

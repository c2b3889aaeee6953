/**
 * Several VPNs at once, each with a far end of its own that says its name.
 *
 *   app                                      router           server
 *   uid 2001 ── vpn-tunA ════════════════════════════════════ UDP 51821 ══ exit1
 *   uid 2002 ── vpn-tunB ════════════════════════════════════ UDP 51822 ══ exit2
 *   uid 0    ── vpn-tunC (in one test) ══════════════════════ UDP 51823 ══ exit3
 *   uid 2003 ── eth0 ─────────────────────── 192.0.2.1 ────── answers as `server`
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TunnelPacket } from './lib/app/operations.js';
import { kinds } from './lib/departures.js';
import { connect, EVERYWHERE, type Exit, PLACES, pathOf } from './lib/exits.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { type VpnApp, vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf, vpnLab } from './lib/vpn-lab.js';

const PHYSICAL = pathOf('server', ADDRESSES.app);

/** Every place by TCP and UDP as this process is answered. */
const ask = (app: VpnApp) => app.call('ask', ...EVERYWHERE);
const inside = (exit: Exit) => pathOf(exit.name, exit.client);

for (const networks of [
  [1, 2],
  [1, 1],
]) {
  const which = networks[0] === networks[1] ? 'with the same addresses' : 'with different addresses';
  test(`two users with two VPNs ${which}: each in its own, a third untouched`, { timeout: 120_000 }, async (t) => {
    const lab = await vpnLab(t, { networks });
    if (!lab) return;
    const [one, two] = [exitOf(lab, 1), exitOf(lab, 2)];
    const [first, second] = await Promise.all([lab.process(2001), lab.process(2002)]);
    const users = await Promise.all([2001, 2002, 2003].map((uid) => lab.process(uid)));
    await Promise.all([connect(first, one, vpnConfig(one.vnic)), connect(second, two, vpnConfig(two.vnic))]);

    assert.deepEqual(await Promise.all(users.map(ask)), [inside(one), inside(two), PHYSICAL]);
    await first.call('destroy');
    assert.deepEqual(await Promise.all(users.map(ask)), [PHYSICAL, inside(two), PHYSICAL]);
    await second.call('destroy');
    assert.deepEqual(await Promise.all(users.map(ask)), [PHYSICAL, PHYSICAL, PHYSICAL]);
  });
}

test("what is read from a user's TUN was sent by that user, even to the other's addresses", {
  timeout: 120_000,
}, async (t) => {
  const lab = await vpnLab(t, { networks: [] });
  if (!lab) return;
  const owners = await Promise.all([2001, 2002, 0].map((uid) => lab.process(uid)));
  const vnics = [
    ['10.9.0.2/24', 'fd09::2/64'],
    ['10.10.0.2/24', 'fd0a::2/64'],
    ['10.11.0.2/24', 'fd0b::2/64'],
  ];
  for (const [index, owner] of owners.entries()) {
    await owner.call('record', await owner.call('setUp', vpnConfig(vnics[index] ?? [])));
  }
  // Each user sends to a port of its own: to the internet, and to an address inside every tunnel.
  const targets = [...PLACES, '10.9.0.77', '10.10.0.77', '10.11.0.77', 'fd09::77', 'fd0a::77', 'fd0b::77'];
  await Promise.all(
    [2001, 2002, 0, 2003].map(async (uid) => {
      const app = await lab.process(uid);
      const questions = targets.flatMap((address) => [
        { transport: 'tcp' as const, address, port: 5000 + uid, timeoutMs: 300 },
        { transport: 'udp' as const, address, port: 5000 + uid, timeoutMs: 300 },
      ]);
      await app.call('ask', ...questions);
    }),
  );
  const senders = [[2001], [2002], [0, 2003]];
  for (const [index, owner] of owners.entries()) {
    const ports = senders[index]?.map((uid) => 5000 + uid) ?? [];
    const wanted = targets.flatMap((to) => ports.flatMap((port) => [`tcp ${to}:${port}`, `udp ${to}:${port}`]));
    const packets = await eventually(`all packets of uid ${owner.uid}`, async () => {
      const found = await owner.call('recorded');
      const texts = found.map(describe);
      return wanted.every((text) => texts.includes(text)) ? found : undefined;
    });
    assert.deepEqual(kinds(packets.map(describe)), wanted.sort(), `uid ${owner.uid}`);
    const own = (vnics[index] ?? []).map((prefix) => prefix.replace(/\/.*/, ''));
    assert.deepEqual(kinds(packets.map((packet) => packet.source)), own);
  }
});

function describe({ protocol, destination, destinationPort }: TunnelPacket): string {
  return `${protocol} ${destination}:${destinationPort}`;
}

test("root's VPN covers everybody but the user who has a VPN of its own", { timeout: 120_000 }, async (t) => {
  const lab = await vpnLab(t, { networks: [1, 2, 3] });
  if (!lab) return;
  const [one, three] = [exitOf(lab, 1), exitOf(lab, 3)];
  const [owner, root, user, other, zero] = (await Promise.all(
    [2001, 0, 2001, 2003, 0].map((uid) => lab.process(uid)),
  )) as [VpnApp, VpnApp, VpnApp, VpnApp, VpnApp];
  const [inOne, inThree] = [inside(one), inside(three)];
  const all = () => Promise.all([ask(user), ask(other), ask(zero)]);

  await connect(root, three, vpnConfig(three.vnic));
  assert.deepEqual(await all(), [inThree, inThree, inThree]);
  await connect(owner, one, vpnConfig(one.vnic));
  assert.deepEqual(await all(), [inOne, inThree, inThree]);
  await root.call('destroy');
  assert.deepEqual(await all(), [inOne, PHYSICAL, PHYSICAL]);
  await connect(root, three, vpnConfig(three.vnic));
  assert.deepEqual(await all(), [inOne, inThree, inThree]);
  await owner.call('destroy');
  assert.deepEqual(await all(), [inThree, inThree, inThree]);
  await root.call('destroy');
  assert.deepEqual(await all(), [PHYSICAL, PHYSICAL, PHYSICAL]);
});

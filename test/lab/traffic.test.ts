/**
 * The traffic of a user with a VPN goes into the tunnel, the tunnel's own datagrams leave physically.
 *
 *   app                                      router                server            exit1
 *   uid 2001 ── vpn-tun0 10.9.0.2, fd09::2 ═══════ UDP 51821 ═══════════════════════ tun1 10.9.0.1, fd09::1
 *                eth0 192.0.2.2 ──────────── 192.0.2.1 ─────────── 198.51.100.2      answers as `exit1`
 *                                                                  answers as `server`
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nothingIsClosing } from './lib/closing.js';
import { captureDepartures, kinds } from './lib/departures.js';
import { connect, EVERYWHERE, pathOf } from './lib/exits.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { vpnConfig } from './lib/vpn-app.js';
import { exitOf, vpnLab } from './lib/vpn-lab.js';

test('TCP and UDP, IPv4 and IPv6, go through the tunnel; only its datagrams leave physically', {
  timeout: 120_000,
}, async (t) => {
  const lab = await vpnLab(t);
  if (!lab) return;
  const exit = exitOf(lab, 1);
  const [owner, user] = await Promise.all([lab.process(2001), lab.process(2001)]);
  const physical = pathOf('server', ADDRESSES.app);
  assert.deepEqual(await user.call('ask', ...EVERYWHERE), physical);
  await nothingIsClosing(lab.app);

  await connect(owner, exit, vpnConfig(exit.vnic, { mtu: 1400 }));
  const departures = await captureDepartures(lab.app);
  for (const process of [user, owner]) {
    assert.deepEqual(await process.call('ask', ...EVERYWHERE), pathOf('exit1', exit.client));
  }
  await lab.app.run('ping', ['-c2', '-i0.1', '-W5', ADDRESSES.internet.ipv4], { uid: 2001 });
  await lab.app.run('ping', ['-c2', '-i0.1', '-W5', ADDRESSES.internet.ipv6], { uid: 2001 });
  const left = await departures.stop();
  assert.deepEqual(kinds(left), [`udp ${ADDRESSES.app.ipv4} > ${exit.address}:${exit.port}`]);
  assert.ok(left.length >= 2 * EVERYWHERE.length, `${left.length} datagrams`);

  await owner.call('destroy');
  assert.deepEqual(await user.call('ask', ...EVERYWHERE), physical);
});

test('what is bound to the physical address goes nowhere: not out, and not into the tunnel with a foreign source', {
  timeout: 120_000,
}, async (t) => {
  const lab = await vpnLab(t);
  if (!lab) return;
  const exit = exitOf(lab, 1);
  const [owner, user] = await Promise.all([lab.process(2001), lab.process(2001)]);
  await connect(owner, exit, vpnConfig(exit.vnic));
  const departures = await captureDepartures(lab.app);
  const bound = EVERYWHERE.map((question) => ({
    ...question,
    from: question.address.includes(':') ? ADDRESSES.app.ipv6 : ADDRESSES.app.ipv4,
    timeoutMs: 500,
  }));
  await user.call('ask', ...bound);
  assert.deepEqual(kinds(await departures.stop()), []);
});

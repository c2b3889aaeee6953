/**
 * How long a VPN lives: as long as the process that set it up, or until its user's destroy.
 *
 *   app                              router              server
 *   uid 2001 ── vpn-tun0 ═══════════════════════════════ UDP 51821 ══ exit1
 *   uid 2002 ── vpn-tun1 ═══════════════════════════════ UDP 51822 ══ exit2
 *                eth0 ──────capture─ 192.0.2.1 ───────── answers as `server`
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { canonicalState } from './lib/canonical-state.js';
import { captureDepartures, kinds } from './lib/departures.js';
import { connect, EVERYWHERE, pathOf } from './lib/exits.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { type VpnApp, vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf, settledState, vpnLab } from './lib/vpn-lab.js';

/** Discard (RFC 863). */
const FLOOD_PORT = 9;
const PHYSICAL = pathOf('server', ADDRESSES.app);
const QUESTIONS = EVERYWHERE.map((each) => ({ ...each, timeoutMs: 20_000 }));
const ask = (app: VpnApp) => app.call('ask', ...QUESTIONS);

test('killed with SIGKILL: nothing of the covered user leaves before the VPN is down, then everything is as it was', {
  timeout: 300_000,
}, async (t) => {
  const lab = await vpnLab(t);
  if (!lab) return;
  const exit = exitOf(lab, 1);
  const before = await canonicalState(lab.app);
  const [owner, user] = await Promise.all([lab.process(2001), lab.process(2001)]);
  await connect(owner, exit, vpnConfig(exit.vnic, { dnsAddresses: [exit.ipv4] }));
  assert.deepEqual(await ask(user), pathOf('exit1', exit.client));

  // Between the app's death and the service's work there is as much time as the service needs; here, as the test wants.
  process.kill(lab.vpnd.pid, 'SIGSTOP');
  await owner.kill9();
  await eventually('no TUN', async () => {
    const links = await lab.app.json('ip', ['-j', 'link', 'show', 'type', 'tun']);
    return links.length === 0 || undefined;
  });
  const departures = await captureDepartures(lab.app);
  const refused = await ask(user);
  assert.deepEqual(
    kinds(refused).filter((answer) => !/^E(NET|HOST)UNREACH$/.test(answer)),
    [],
  );
  const [dns = ''] = await user.call('ask', { transport: 'dns-udp', address: '192.0.2.1', timeoutMs: 300 });
  assert.match(dns, /^(E(NET|HOST)UNREACH|EPERM|silence)$/);
  assert.deepEqual(await departures.stop(), []);

  process.kill(lab.vpnd.pid, 'SIGCONT');
  await settledState(lab.app, before);
  assert.deepEqual(await ask(user), PHYSICAL);
});

test('while a VPN is taken down, packets go in, then nowhere, then out: never out before the end', {
  timeout: 300_000,
}, async (t) => {
  const lab = await vpnLab(t);
  if (!lab) return;
  const exit = exitOf(lab, 1);
  const user = await lab.process(2001);
  for (const ending of ['SIGKILL', 'destroy'] as const) {
    let refusals = 0;
    // A sender that the machine gives no time in the few milliseconds in between sees no refusal: then once more.
    for (let round = 0; round < 20 && refusals === 0; round++) {
      const owner = await lab.process(2001);
      await connect(owner, exit, vpnConfig(exit.vnic));
      const departures = await captureDepartures(lab.app);
      const flood = user.call('flood', ADDRESSES.internet.ipv4, FLOOD_PORT);
      await eventually('packets in the tunnel', async () => (await departures.peek()).length > 20 || undefined);
      if (ending === 'SIGKILL') await owner.kill9();
      else await owner.call('destroy');
      const outside = async () =>
        (await departures.packets()).filter((packet) => packet.destinationPort === FLOOD_PORT);
      await eventually('packets outside', async () => (await outside()).length > 0 || undefined);
      await user.call('flood', '', 0);
      const { refused } = await flood;
      const first = Math.min(...(await outside()).map(({ payload }) => Buffer.from(payload).readUInt32BE()));
      assert.ok(first > refused.last, `${ending}: number ${first} left, ${refused.last} was still refused`);
      refusals = refused.count;
      await departures.stop();
      await owner.kill9();
    }
    assert.notEqual(refusals, 0, `${ending}: nothing was ever refused`);
  }
});

test('a VPN ends with the connection of its process, though the process lives on', { timeout: 300_000 }, async (t) => {
  const lab = await vpnLab(t);
  if (!lab) return;
  const exit = exitOf(lab, 1);
  const before = await canonicalState(lab.app);
  const [owner, user] = await Promise.all([lab.process(2001), lab.process(2001)]);
  await connect(owner, exit, vpnConfig(exit.vnic));
  assert.deepEqual(await ask(user), pathOf('exit1', exit.client));
  await owner.call('disconnect');
  await settledState(lab.app, before);
  assert.deepEqual(await ask(user), PHYSICAL);

  await connect(owner, exit, vpnConfig(exit.vnic));
  assert.deepEqual(await ask(user), pathOf('exit1', exit.client), 'and it can have the next one');
});

test("destroy ends the user's VPN from any process of that user, and nobody else's", {
  timeout: 300_000,
}, async (t) => {
  const lab = await vpnLab(t, { networks: [1, 2] });
  if (!lab) return;
  const [one, two] = [exitOf(lab, 1), exitOf(lab, 2)];
  const before = await canonicalState(lab.app);
  const [first, second, again, root, third] = (await Promise.all(
    [2001, 2002, 2001, 0, 2003].map((uid) => lab.process(uid)),
  )) as [VpnApp, VpnApp, VpnApp, VpnApp, VpnApp];
  await connect(first, one, vpnConfig(one.vnic));
  await connect(second, two, vpnConfig(two.vnic));
  const both = [pathOf('exit1', one.client), pathOf('exit2', two.client)];

  for (const stranger of [root, third]) await stranger.call('destroy');
  assert.deepEqual(await Promise.all([ask(first), ask(second)]), both);
  await again.call('destroy');
  assert.deepEqual(await Promise.all([ask(first), ask(second)]), [PHYSICAL, both[1]]);
  await again.call('destroy');
  await first.call('destroy');

  // The VPN that comes next belongs to its own process: neither the end of the old owner nor its connection's touches it.
  await connect(again, one, vpnConfig(one.vnic));
  await first.kill9();
  assert.deepEqual(await Promise.all([ask(again), ask(second)]), both);
  await second.call('destroy');
  await again.call('destroy');
  await settledState(lab.app, before);
});

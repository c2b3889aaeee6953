/**
 * A family that a VPN does not accept is refused to the covered user at once, by the kernel, and nothing of it is seen on the
 * physical link.
 *
 *   app                              router              server
 *   uid 2001 ── vpn-tun0 ═══════════════════════════════ UDP 51821 ══ exit1
 *                eth0 ──────capture─ 192.0.2.1 ───────── answers by both families
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { captureDepartures, kinds } from './lib/departures.js';
import { connect, EVERYWHERE, pathOf } from './lib/exits.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { vpnConfig } from './lib/vpn-app.js';
import { exitOf, vpnLab } from './lib/vpn-lab.js';

const FAMILIES = [
  { name: 'IPv6', isRefused: (address: string) => address.includes(':'), config: {}, vnic: 0 },
  {
    name: 'IPv4',
    isRefused: (address: string) => !address.includes(':'),
    config: { isIPv4Accepted: false, isIPv6Accepted: true },
    vnic: 1,
  },
];

for (const { name, isRefused, config, vnic } of FAMILIES) {
  test(`a VPN without ${name}: refused at once, zero packets on the physical link`, { timeout: 120_000 }, async (t) => {
    const lab = await vpnLab(t);
    if (!lab) return;
    const exit = exitOf(lab, 1);
    const [owner, user, other] = await Promise.all([2001, 2001, 2002].map((uid) => lab.process(uid)));
    assert.ok(owner && user && other);
    await connect(owner, exit, vpnConfig([exit.vnic[vnic] ?? ''], config));

    const departures = await captureDepartures(lab.app);
    const inside = pathOf('exit1', exit.client);
    const expected = EVERYWHERE.map(({ address }, index) => (isRefused(address) ? 'ENETUNREACH' : inside[index]));
    // Without a time to wait: a refusal that comes later than at the call would be `silence`.
    const questions = EVERYWHERE.map((question) => ({
      ...question,
      timeoutMs: isRefused(question.address) ? 0 : 20_000,
    }));
    assert.deepEqual(await user.call('ask', ...questions), expected);
    const bound = questions
      .filter(({ address }) => isRefused(address))
      .map((question) => ({
        ...question,
        from: question.address.includes(':') ? ADDRESSES.app.ipv6 : ADDRESSES.app.ipv4,
        // The reset comes by lo, which a busy machine may serve a moment later.
        timeoutMs: question.transport === 'tcp' ? 20_000 : 0,
      }));
    // A TCP socket with a port gets a route, as an answer would; it is refused all the same.
    assert.deepEqual(
      await user.call('ask', ...bound),
      bound.map(({ transport }) => (transport === 'tcp' ? 'ECONNREFUSED' : 'ENETUNREACH')),
    );
    const target = name === 'IPv6' ? ADDRESSES.internet.ipv6 : ADDRESSES.internet.ipv4;
    const ping = await lab.app.run('ping', ['-c1', '-W5', target], { uid: 2001, check: false });
    assert.match(ping.stderr + ping.stdout, /Network is unreachable/);
    assert.deepEqual(kinds(await departures.stop()), [`udp ${ADDRESSES.app.ipv4} > ${exit.address}:${exit.port}`]);

    assert.deepEqual(await other.call('ask', ...EVERYWHERE), pathOf('server', ADDRESSES.app), 'uncovered');
  });
}

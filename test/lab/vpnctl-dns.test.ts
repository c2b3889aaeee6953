/**
 * `vpnctl up` of a file whose DNS servers are not inside its VPN (vpnctl-lab.ts): it says so, and names are found all the same.
 *
 *   app uid 2001 ── vpn-tun0 ═══ wg0        DNS 10.7.0.1 `inside`
 *        └── eth0 ── router ──── server     DNS 203.0.113.10, 2001:db8:f::10 `server`
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { kinds } from './lib/departures.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { INSIDE, officeConf, userOf, type VpnctlLab, vpnctlLab } from './lib/vpnctl-lab.js';

const TIMEOUT = { timeout: 180_000 };
const { internet } = ADDRESSES;
const QUESTIONS = (['dns-udp', 'dns-tcp'] as const).flatMap((transport) =>
  [ADDRESSES.server.ipv4, ADDRESSES.server.ipv6].map((address) => ({ transport, address })),
);

function splitConf(lab: VpnctlLab, servers: readonly string[], more: readonly string[] = []): string {
  return officeConf(lab)
    .replace(/^DNS = .*$/m, `DNS = ${servers.join(', ')}`)
    .replace(/^AllowedIPs = .*$/m, `AllowedIPs = ${['198.18.0.0/15', ...more].join(', ')}`);
}

for (const uid of [2001, 0]) {
  test(`uid ${uid}: servers that AllowedIPs do not have are warned of, listed, and asked`, TIMEOUT, async (t) => {
    const lab = await vpnctlLab(t);
    if (!lab) return;
    const user = userOf(lab, uid);
    const app = await lab.process(2001);
    const servers = [internet.ipv4, internet.ipv6];
    const path = user.write('office.conf', splitConf(lab, servers));
    const { status, stderr } = await user.vpnctl('up', path);
    const lines = stderr.trim().split('\n');
    assert.equal(status, 0, stderr);
    assert.equal(lines.length, servers.length, stderr);
    for (const [index, server] of servers.entries()) {
      assert.match(lines[index] ?? '', /office\.conf:4: warning: .*the VPN has no route .*AllowedIPs/);
      assert.ok(lines[index]?.includes(` ${server}: `), stderr);
    }
    assert.deepEqual(kinds(await app.call('ask', ...QUESTIONS)), ['server']);
    const leaks = await user.vpnctl('leaks');
    assert.match(leaks.stdout, new RegExp(`uid ${uid}  dns  family=4 .*destinations=${internet.ipv4}/32`));
    await user.vpnctl('down');

    // In the foreground too.
    const foreground = user.spawnVpnctl('up', '--foreground', path);
    await foreground.waitFor(/up$/m);
    await foreground.waitFor(/warning: DNS server 203\.0\.113\.10: /);
    await foreground.kill('SIGTERM');

    const inner = Object.values(INSIDE.server);
    const carried = inner.map((server) => `${server}/${server.includes(':') ? 128 : 32}`);
    const named = user.write('office.conf', splitConf(lab, inner, carried));
    const inside = await user.vpnctl('up', named);
    assert.deepEqual([inside.status, inside.stderr], [0, '']);
    assert.deepEqual(kinds(await app.call('ask', ...QUESTIONS)), ['inside']);
    await user.vpnctl('down');

    const nobodys = await user.vpnctl('up', user.write('office.conf', splitConf(lab, inner)));
    assert.equal(nobodys.status, 0, nobodys.stderr);
    for (const server of inner) {
      assert.match(nobodys.stderr, new RegExp(`office\\.conf:4: warning: no peer's AllowedIPs have ${server},`));
    }
    await user.vpnctl('down');
  });
}

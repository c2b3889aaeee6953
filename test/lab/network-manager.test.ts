/**
 * NetworkManager manages the host's link beside our VPNs: it leaves the vNICs alone, and they outlive its restart and what it
 * does to the link.
 *
 *   app: NetworkManager (eth0), vpnd      eth0 ── LAN ── router ── server, exit1, exit2        eth1 ── cafe
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from './lib/exits.js';
import { installNetworkManager, nmcli, requireNetworkManager, startNetworkManager } from './lib/network-manager.js';
import { isTunnelDatagram, POLICY_ADDRESSES, policyLab } from './lib/policy-lab.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { vpnConfig } from './lib/vpn-app.js';
import { eventually, exitOf } from './lib/vpn-lab.js';

const { internet } = ADDRESSES;
const FAMILIES = ['ipv4', 'ipv6'] as const;
const PROTOCOLS = ['tcp', 'udp', 'icmp'] as const;

test('NetworkManager leaves vNICs alone; VPNs outlive its restart, a re-activation and a reapply', {
  timeout: 240_000,
}, async (t) => {
  if (!requireNetworkManager(t)) return;
  const lab = await policyLab(t, { networks: [1, 2] });
  if (!lab) return;
  const { app } = lab;
  await installNetworkManager(app);
  let manager = await startNetworkManager(app);
  await nmcli(app, 'connection', 'up', 'lab');
  const nameServers = async () => (await app.run('cat', ['/etc/resolv.conf'])).stdout.match(/^nameserver .*/gm);
  const routers = `nameserver ${POLICY_ADDRESSES.router.ipv4}`;
  await eventually('its resolv.conf', async () => (await nameServers())?.join() === routers || undefined);

  const [first, second] = [exitOf(lab, 1), exitOf(lab, 2)];
  const [root, user] = await Promise.all([lab.process(0), lab.process(2001)]);
  await connect(user, second, vpnConfig(second.vnic, { dnsAddresses: [second.ipv4, second.ipv6] }));
  const since = await lab.moment();
  await connect(root, first, vpnConfig(first.vnic, { dnsAddresses: [first.ipv4, first.ipv6] }));
  type Link = { ifname?: string; flags: string[]; mtu: number; addr_info: { local: string }[] };
  const vnics = async () => {
    const links = await app.json<Link[]>('ip', ['-j', 'address', 'show', 'group', '0x76706e']);
    return links
      .filter(({ ifname }) => ifname !== undefined)
      .map(({ ifname, flags, mtu, addr_info }) => ({ ifname, flags, mtu, own: addr_info.map(({ local }) => local) }));
  };
  const standing = await vnics();
  assert.equal(standing.length, 2);
  const works = async (what: string) => {
    for (const [uid, exit] of [
      [2001, second],
      [2002, first],
      [0, first],
    ] as const) {
      for (const family of FAMILIES) {
        for (const protocol of PROTOCOLS) {
          // The link may be coming up yet: an answer by another way is wrong at any time.
          await eventually(`${what}: ${uid} ${protocol} ${family}`, async () => {
            const answer = await lab.probe({ uid, protocol, target: internet[family], timeoutMs: 3000 });
            if ('error' in answer) return undefined;
            assert.deepEqual(answer, { side: exit.name, source: exit.client[family] }, what);
            return true;
          });
        }
        const asked = await lab.probe({
          uid,
          protocol: 'dns-udp',
          target: POLICY_ADDRESSES.router[family],
          timeoutMs: 20_000,
        });
        assert.deepEqual(asked, { side: exit.name }, what);
      }
    }
    assert.deepEqual(await vnics(), standing, what);
    const devices = await nmcli(app, '-t', '-f', 'DEVICE,STATE', 'device');
    assert.doesNotMatch(devices, /^vpn-tun\d:(connected|connecting.*|disconnected)$/m);
    assert.match(devices, /^eth0:connected$/m);
    await eventually(
      `${what}: the VPN's name servers`,
      async () => (await nameServers())?.includes(`nameserver ${first.ipv4}`) || undefined,
    );
  };
  await works('with both VPNs');

  await manager.kill();
  manager = await startNetworkManager(app);
  await works('restarted');
  await nmcli(app, 'connection', 'down', 'lab');
  await nmcli(app, 'connection', 'up', 'lab');
  await works('activated again');
  await nmcli(app, 'device', 'reapply', 'eth0');
  await works('reapplied');
  await nmcli(app, 'connection', 'modify', 'lab', '+ipv4.addresses', '192.168.50.22/24', 'ipv4.dns', '192.168.50.9');
  await nmcli(app, 'connection', 'up', 'lab');
  await works('changed');
  assert.deepEqual(await lab.leaks({ isProtected: isTunnelDatagram }, undefined, since), []);

  await user.call('destroy');
  await root.call('destroy');
  assert.deepEqual(await vnics(), []);
  assert.deepEqual(await nameServers(), [`nameserver ${POLICY_ADDRESSES.lanHost.ipv4}`], 'what it said last');
  const answer = await lab.probe({ uid: 2001, protocol: 'tcp', target: internet.ipv4 });
  assert.equal('side' in answer && answer.side, 'server');
});

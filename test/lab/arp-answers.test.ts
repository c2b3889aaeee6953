/**
 * Who asks for the host's hardware address hears it while a VPN is up, however strict the reverse path filter: it judges by the rules,
 * and what it asks about an ARP packet has no mark.
 *
 *   app  eth0 192.168.50.2 ── LAN with lanhost        eth1 192.168.60.2 ── cafe
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VICTIMS } from './lib/attackers/victim.js';
import { connect } from './lib/exits.js';
import { INBOUND_PORT, POLICY_ADDRESSES, policyLab } from './lib/policy-lab.js';
import { vpnConfig } from './lib/vpn-app.js';
import { exitOf } from './lib/vpn-lab.js';

const TIMEOUT = { timeout: 180_000 };
const callers = [0, 2001].map((uid) => ({ match: { uid }, system: true, permissions: ['ohos.permission.MANAGE_VPN'] }));

for (const { whose, owner, config } of VICTIMS) {
  for (const lan of ['private', 'off'] as const) {
    test(`${whose}, rp_filter 1, lan: ${lan}: neighbours find the host anew`, TIMEOUT, async (t) => {
      const lab = await policyLab(t, { vpnd: { policy: { callers, lan } } });
      if (!lab) return;
      const { app, lanHost, cafe } = lab;
      await app.sysctl(...['all', 'default', 'eth0', 'eth1'].map((link) => `net.ipv4.conf.${link}.rp_filter=1`));
      // eth1's network is in a table of its own only.
      await app.ip(
        'address del 192.168.60.2/24 dev eth1',
        'address add 192.168.60.2/24 dev eth1 noprefixroute',
        'route add 192.168.60.0/24 dev eth1 table 200',
        'rule add pref 32765 from 192.168.60.2 lookup 200',
      );
      const exit = exitOf(lab, 1);
      await connect(await lab.process(owner), exit, vpnConfig(exit.vnic, config));
      for (const [host, target] of [
        [lanHost, POLICY_ADDRESSES.app.ipv4],
        [cafe, POLICY_ADDRESSES.appOnCafe.ipv4],
      ] as const) {
        const stranger = await lab.stranger(host);
        for (let times = 0; times < 2; times++) {
          await host.ip('neigh flush dev eth0');
          const answer = await stranger.call('probe', { protocol: 'tcp', target, port: INBOUND_PORT, timeoutMs: 5000 });
          assert.equal('side' in answer ? answer.side : answer.error, 'app', `${host.name} asks for ${target}`);
        }
      }
    });
  }
}

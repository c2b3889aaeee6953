/**
 * Machines whose only default routes are in a table of its own, to which a rule leads everybody; main has none. What leaves outside a
 * VPN by right finds them: protected sockets, answers also in a family that the VPN refuses, excluded prefixes.
 *
 *   app  eth0 192.168.50.2, fd50::2 ── router ── server, exit1     table 200: default
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VICTIMS } from './lib/attackers/victim.js';
import { canonicalState } from './lib/canonical-state.js';
import { connect } from './lib/exits.js';
import {
  by,
  covers,
  ip,
  onlyDefaultInTable,
  protectedReach,
  protectedReaches,
  raise,
  TABLE,
} from './lib/machine-rules.js';
import { INBOUND_PORT, POLICY_ADDRESSES, policyLab } from './lib/policy-lab.js';
import type { Answer } from './lib/prober/operations.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { route, vpnConfig } from './lib/vpn-app.js';
import { exitOf, settledState } from './lib/vpn-lab.js';

const { internet } = ADDRESSES;
const FAMILIES = ['ipv4', 'ipv6'] as const;
const TIMEOUT = { timeout: 300_000 };
const first = POLICY_ADDRESSES.app;

for (const victim of VICTIMS) {
  test(`${victim.whose}: a protected socket finds the only default route in a table of its own`, TIMEOUT, async (t) => {
    const lab = await policyLab(t);
    if (!lab) return;
    await onlyDefaultInTable(lab);
    await lab.app.sysctl(...['all', 'eth0'].map((link) => `net.ipv4.conf.${link}.rp_filter=1`));
    const before = await canonicalState(lab.app);
    const app = await raise(lab, victim);
    await covers(lab, victim, 'only default route in a table');
    assert.deepEqual(await protectedReaches(app), by('server', first));
    const stranger = await lab.stranger(lab.server);
    const inbound = await stranger.call('probe', {
      protocol: 'tcp',
      target: first.ipv4,
      port: INBOUND_PORT,
      timeoutMs: 5000,
    });
    assert.equal('side' in inbound && inbound.side, 'app', JSON.stringify(inbound));
    // The same behind main, which has no default: as the machine's own traffic finds it.
    await ip(lab, `rule add pref 33000 lookup ${TABLE}`, 'rule del pref 32000');
    await protectedReach(app, by('server', first), 'behind main');
    await covers(lab, victim, 'behind main');
    await ip(lab, `rule add pref 32000 lookup ${TABLE}`, 'rule del pref 33000');
    await protectedReach(app, by('server', first), 'in front again');
    await app.call('destroy');
    await settledState(lab.app, before);
  });
}

for (const { owner, config, whose } of VICTIMS) {
  for (const refused of FAMILIES) {
    test(
      `${whose} without ${refused}: who comes in by it is answered where the only default route is in a table of its own`,
      TIMEOUT,
      async (t) => {
        const lab = await policyLab(t);
        if (!lab) return;
        await onlyDefaultInTable(lab);
        const port = 2222;
        const server = await lab.prober({ uid: owner });
        await server.call('serve', 'own', port);
        const stranger = await lab.stranger(lab.server);
        const heard = async (timeoutMs: number) => {
          const target = first[refused];
          const tcp = await stranger.call('probe', { protocol: 'tcp', target, port, timeoutMs });
          const ping = await stranger.call('probe', { protocol: 'icmp', target, timeoutMs });
          return [tcp, ping].map((answer) => ('side' in answer ? answer.side : answer.error));
        };
        assert.deepEqual(await heard(5000), ['own', 'kernel'], 'without a VPN');
        const exit = exitOf(lab, 1);
        const app = await lab.process(owner);
        const isIpv4 = refused === 'ipv4';
        const addresses = exit.vnic.filter((address) => address.includes(':') === isIpv4);
        await app.call(
          'setUp',
          vpnConfig(addresses, { ...config, ...(isIpv4 ? { isIPv4Accepted: false, isIPv6Accepted: true } : {}) }),
        );
        assert.deepEqual(await heard(5000), ['own', 'kernel'], 'with the VPN');
        const since = await lab.moment();
        const covered = await lab.probe({ uid: owner, protocol: 'tcp', target: internet[refused], timeoutMs: 2000 });
        assert.ok('error' in covered, 'what begins here is refused');
        const bound = await server.call('probe', {
          protocol: 'udp',
          target: internet[refused],
          source: first[refused],
        });
        assert.ok('error' in bound, 'by a bound socket, too');
        const strays = (await lab.departed()).slice([...since.values()].reduce((sum, each) => sum + each, 0));
        assert.deepEqual(
          strays.filter(({ destination }) => destination === internet[refused]),
          [],
        );
      },
    );
  }
}

for (const victim of VICTIMS) {
  test(
    `${victim.whose}: excluded prefixes leave by the only default route, in a table of its own`,
    TIMEOUT,
    async (t) => {
      const lab = await policyLab(t);
      if (!lab) return;
      await onlyDefaultInTable(lab);
      const exit = exitOf(lab, 1);
      const app = await lab.process(victim.owner);
      const routes = ['0.0.0.0/0', '::/0'].map((prefix) => route(prefix));
      const excluded = [`${internet.ipv4}/32`, `${internet.ipv6}/128`].map((prefix) =>
        route(prefix, { isExcludedRoute: true }),
      );
      await connect(app, exit, vpnConfig(exit.vnic, { ...victim.config, routes: [...routes, ...excluded] }));
      for (const family of FAMILIES) {
        for (const uid of victim.covered) {
          const ask = (target: string): Promise<Answer> => lab.probe({ uid, protocol: 'udp', target, timeoutMs: 5000 });
          assert.deepEqual(await ask(internet[family]), { side: 'server', source: first[family] }, `${uid} ${family}`);
          const inside = { side: 'exit1', source: exit.client[family] };
          assert.deepEqual(await ask(ADDRESSES.server[family]), inside, `${uid} ${family}`);
        }
      }
    },
  );
}

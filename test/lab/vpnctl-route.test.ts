/**
 * What stands between the tunnel's socket and its peer is said before "up": `vpnctl up` asks for the route of a packet with the socket's
 * mark, when the VPN's rules are there (vpnctl-lab.ts). What it says is compared with what ip(8) says.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EVERYWHERE, pathOf } from './lib/exits.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { eventually } from './lib/vpn-lab.js';
import { INSIDE, officeConf, userOf, vpnctlLab, WG_PORT } from './lib/vpnctl-lab.js';

const TIMEOUT = { timeout: 300_000 };
const TUNNELLED = pathOf('server', INSIDE.client);

const FAMILIES = {
  ipv4: { default: 'default via 192.0.2.1', whole: 32 },
  ipv6: { default: '::/0 via 2001:db8:1::1', whole: 128 },
} as const;

for (const uid of [2001, 0]) {
  for (const family of ['ipv4', 'ipv6'] as const) {
    test(
      `uid ${uid}, ${family}: what is in the way to the peer is named, and the tunnel works without it`,
      TIMEOUT,
      async (t) => {
        const lab = await vpnctlLab(t);
        if (!lab) return;
        const user = userOf(lab, uid);
        const peer = ADDRESSES.server[family];
        const endpoint = family === 'ipv6' ? `[${peer}]:${WG_PORT}` : `${peer}:${WG_PORT}`;
        const ip = (...words: string[]) =>
          lab.app.run('ip', [family === 'ipv6' ? '-6' : '-4', ...words], { check: false });
        const change = async (text: string) => {
          const { status, stderr } = await ip(...text.split(' '));
          assert.equal(status, 0, `ip ${text}: ${stderr}`);
        };
        await change('tuntap add dev other0 mode tun');
        await change('link set other0 up');
        if (family === 'ipv6') await lab.app.configure('other0', ['fd99::1/64']);
        const { default: way, whole } = FAMILIES[family];
        const cases: [what: string, add: string, remove: string, said: RegExp, waits: boolean][] = [
          [
            'a rule that prohibits',
            `rule add pref 900 to ${peer}/${whole} prohibit`,
            'rule del pref 900',
            /ip rule 900 says prohibit/,
            true,
          ],
          [
            'a rule that says unreachable',
            `rule add pref 900 to ${peer} unreachable`,
            'rule del pref 900',
            /ip rule 900 says unreachable/,
            true,
          ],
          [
            'a rule that drops',
            `rule add pref 900 fwmark 0x80000000/0x80000000 blackhole`,
            'rule del pref 900',
            /ip rule 900 says blackhole/,
            true,
          ],
          [
            'a route that says unreachable',
            `route add unreachable ${peer}`,
            `route del unreachable ${peer}`,
            /a route says unreachable/,
            true,
          ],
          [
            'a route that prohibits',
            `route add prohibit ${peer}`,
            `route del prohibit ${peer}`,
            /a route says prohibit/,
            true,
          ],
          ['no default route', `route del ${way}`, `route add ${way}`, /no route in the tables .*main.*default/, true],
          [
            'another tunnel',
            `route add ${peer} dev other0`,
            `route del ${peer} dev other0`,
            /leads through other0, another tunnel/,
            false,
          ],
        ];
        for (const [what, add, remove, said, waits] of cases) {
          await change(add);
          const { status, stdout, stderr } = await user.vpnctl(
            'up',
            user.write('office.conf', officeConf(lab, { endpoint })),
          );
          assert.equal(status, 0, `${what}: ${stderr}`);
          assert.match(stderr, /^vpnctl: [^\n]+office\.conf:8: warning: Endpoint [^\n]+\n$/, what);
          assert.match(stderr, said, what);
          assert.match(stderr, new RegExp(`Endpoint ${peer}`), what);
          const line = waits ? `up, waiting for a route to ${peer}, log in` : 'up, log in';
          assert.ok(stdout.includes(`: ${line}`), `${what}: ${stdout}`);
          // ip(8) says the same of a packet with that mark.
          const asked = await ip('route', 'get', peer, 'mark', '0x80000000');
          const isDead = asked.status !== 0 || /^(unreachable|prohibit|blackhole)/.test(asked.stdout);
          assert.equal(isDead, waits, `${what}: ${asked.stdout}${asked.stderr}`);
          await change(remove);
          if (what === 'no default route') {
            const app = await lab.process(uid);
            await eventually('all goes through the tunnel', async () => {
              const answers = await app.call('ask', ...EVERYWHERE);
              return JSON.stringify(answers) === JSON.stringify(TUNNELLED) || undefined;
            });
          }
          const down = await user.vpnctl('down');
          assert.equal(down.status, 0, `${what}: ${down.stdout}${down.stderr}`);
        }
      },
    );
  }
}

test('a rule that leads the tunnel into itself is named', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const root = userOf(lab, 0);
  const loop = `ip route add default dev %i table 77; ip rule add pref 900 to ${ADDRESSES.server.ipv4} lookup 77`;
  const path = root.write('office.conf', officeConf(lab, { interface: [`PostUp = ${loop}`] }));
  const { status, stderr } = await root.vpnctl('up', '--allow-hooks', path);
  assert.equal(status, 0, stderr);
  const said = `the way to it leads into vpn-tun0, this VPN itself (ip rule 900, table 77)`;
  assert.ok(stderr.includes(`office.conf:9: warning: Endpoint ${ADDRESSES.server.ipv4}: ${said}`), stderr);
  assert.equal((await root.vpnctl('down')).status, 0);
});

/**
 * A VPN of ours beside the machine's own full wg-quick, whose table leads everything into its tunnel: each tunnel finds its way, and
 * neither is led into the other both ways round.
 *
 *   app  wild0 10.66.0.2, fd66::2: wireguard-go, the machine's, with wg-quick's rules ══ UDP 51900 ══ server
 *        vpn-tun0 10.7.0.2, fd07::2: vpnctl up                                        ══ UDP 51820 ══ server
 *
 * Where the server sees a tunnel's datagrams come from tells what that tunnel goes through.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { canonicalState } from './lib/canonical-state.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { eventually, settledState } from './lib/vpn-lab.js';
import { INSIDE, officeConf, userOf, type VpnctlLab, vpnctlLab } from './lib/vpnctl-lab.js';
import { startWireGuardGo, type WireGuardGo, wireGuardKeys } from './lib/wireguard-go.js';

const TIMEOUT = { timeout: 300_000 };
const { app: own, internet } = ADDRESSES;
const FAMILIES = ['ipv4', 'ipv6'] as const;
const PORT = 51900;
const MARK = 51820;
const WILD = { client: { ipv4: '10.66.0.2', ipv6: 'fd66::2' }, server: { ipv4: '10.66.0.1', ipv6: 'fd66::1' } };

interface Wild {
  client: WireGuardGo;
  server: WireGuardGo;
  /** What wg-quick does after it has made the interface. */
  up(): Promise<void>;
  down(): Promise<void>;
}

async function startWild({ app, server }: VpnctlLab): Promise<Wild> {
  const keys = wireGuardKeys();
  const far = await startWireGuardGo(server, 'wild0', {
    listenPort: PORT,
    addresses: [`${WILD.server.ipv4}/24`, `${WILD.server.ipv6}/64`],
    peers: [{ publicKey: keys.publicKey, allowedIps: [`${WILD.client.ipv4}/32`, `${WILD.client.ipv6}/128`] }],
  });
  const near = await startWireGuardGo(app, 'wild0', {
    keys,
    addresses: [`${WILD.client.ipv4}/24`, `${WILD.client.ipv6}/64`],
    routes: false,
  });
  await near.set('fwmark', String(MARK));
  const sh = (script: string) => app.run('sh', ['-ec', script]);
  return {
    client: near,
    server: far,
    up: async () => {
      await sh(`for f in -6 -4; do
        ip $f route add default dev wild0 table ${MARK}
        ip $f rule add not fwmark ${MARK} table ${MARK}
        ip $f rule add table main suppress_prefixlength 0
      done`);
    },
    down: async () => {
      await sh(`for f in -4 -6; do
        ip $f rule del table ${MARK}; ip $f rule del table main suppress_prefixlength 0
        ip $f route flush table ${MARK}
      done`);
    },
  };
}

/** The machine's tunnel begins anew; where the server hears it from when it has shaken hands. */
async function wildComesFrom({ client, server }: Wild): Promise<string> {
  await client.set('peer', server.publicKey, 'remove');
  await client.addPeers({
    publicKey: server.publicKey,
    endpoint: `${ADDRESSES.server.ipv4}:${PORT}`,
    allowedIps: ['0.0.0.0/0', '::/0'],
    persistentKeepalive: 1,
  });
  return eventually('the machine’s tunnel is up', async () => {
    const [near] = (await client.show()).peers;
    if (!near || near.latestHandshake === 0 || near.receivedBytes === 0) return undefined;
    const [far] = (await server.show()).peers;
    return far?.endpoint?.replace(/:\d+$/, '');
  });
}

/** Ours has shaken hands; where the server hears it from. */
async function oursComesFrom({ wireguard }: VpnctlLab): Promise<string | undefined> {
  const [far] = (await wireguard.show()).peers;
  return far?.endpoint?.replace(/:\d+$/, '');
}

/** As whom the server sees a user of `app`. */
async function seenAs({ process }: VpnctlLab, uid: number): Promise<string[]> {
  const asker = await process(uid);
  const questions = FAMILIES.map((family) => ({
    transport: 'udp' as const,
    address: internet[family],
    timeoutMs: 3000,
  }));
  const seen = await asker.call('ask', ...questions);
  await asker.process.kill();
  return seen;
}

const by = ({ ipv4, ipv6 }: { ipv4: string; ipv6: string }) => [`server ${ipv4}`, `server ${ipv6}`];

async function isSeenAs(lab: VpnctlLab, uid: number, wanted: string[], what: string): Promise<void> {
  const isSo = async () => (await seenAs(lab, uid)).join() === wanted.join() || undefined;
  await eventually(what, isSo).catch(async () => assert.deepEqual(await seenAs(lab, uid), wanted, what));
}

async function tunnelsLab(t: TestContext): Promise<{ lab: VpnctlLab; wild: Wild } | undefined> {
  const lab = await vpnctlLab(t);
  if (!lab) return undefined;
  return { lab, wild: await startWild(lab) };
}

for (const [whose, uid] of [
  ["root's VPN", 0],
  ["a user's VPN", 2001],
] as const) {
  for (const order of ['wg-quick first', 'wg-quick last'] as const) {
    test(
      `${whose} and a full wg-quick of the machine's, ${order}: both tunnels are up, and there is no loop`,
      TIMEOUT,
      async (t) => {
        const made = await tunnelsLab(t);
        if (!made) return;
        const { lab, wild } = made;
        const user = userOf(lab, uid);
        const conf = user.write('office.conf', officeConf(lab));
        const without = await canonicalState(lab.app);
        const raise = async () => {
          const up = await user.vpnctl('up', conf);
          assert.equal(up.status, 0, up.stderr);
        };
        if (order === 'wg-quick first') {
          await wild.up();
          assert.equal(await wildComesFrom(wild), own.ipv4);
          await isSeenAs(lab, uid, by(WILD.client), 'by wg-quick alone');
          await raise();
        } else {
          await raise();
          await isSeenAs(lab, uid, by(INSIDE.client), 'by ours alone');
          await wild.up();
        }
        await isSeenAs(lab, uid, by(INSIDE.client), 'with both');
        // Ours leaves by the link, also when it begins anew; theirs is root's traffic like any other.
        assert.equal(await oursComesFrom(lab), own.ipv4);
        assert.equal(await wildComesFrom(wild), uid === 0 ? INSIDE.client.ipv4 : own.ipv4);
        await user.vpnctl('down');
        // wireguard-go goes on sending from an address that it had: it begins anew.
        assert.equal(await wildComesFrom(wild), own.ipv4);
        await isSeenAs(lab, uid, by(WILD.client), 'without ours');
        await raise();
        await isSeenAs(lab, uid, by(INSIDE.client), 'ours begins while theirs is up');
        assert.equal(await oursComesFrom(lab), own.ipv4);
        assert.equal(await wildComesFrom(wild), uid === 0 ? INSIDE.client.ipv4 : own.ipv4);
        await isSeenAs(lab, 2003, uid === 0 ? by(INSIDE.client) : by(WILD.client), 'everybody else');
        await user.vpnctl('down');
        await wild.down();
        await settledState(lab.app, without);
      },
    );
  }
}

for (const [name, endpoint] of [
  ['IPv4', `${ADDRESSES.server.ipv4}:51820`],
  ['IPv6', `[${ADDRESSES.server.ipv6}]:51820`],
] as const) {
  test(
    `a tunnel finds its far end by ${name} where the only default route is in a table of its own`,
    TIMEOUT,
    async (t) => {
      const lab = await vpnctlLab(t);
      if (!lab) return;
      const { app } = lab;
      await app.ip(
        'route del default',
        'route del ::/0',
        'route add default via 192.0.2.1 table 200',
        'route add ::/0 via 2001:db8:1::1 table 200',
      );
      for (const family of ['-4', '-6']) await app.run('ip', [family, 'rule', 'add', 'pref', '32000', 'lookup', '200']);
      const before = await canonicalState(app);
      for (const uid of [2001, 0]) {
        const user = userOf(lab, uid);
        const up = await user.vpnctl('up', user.write('office.conf', officeConf(lab, { endpoint })));
        assert.equal(up.status, 0, up.stderr);
        await isSeenAs(lab, uid, by(INSIDE.client), `uid ${uid} by ${name}`);
        await user.vpnctl('down');
        await settledState(app, before);
      }
    },
  );
}

/**
 * The standard wg(8) asks and changes a tunnel of `vpnctl up`, and the tunnel finds its peer again when the peer's name moves. The
 * lab is vpnctl-lab.ts; names are told by the router:
 *
 *   app ── eth0 192.0.2.1, 192.0.2.53 router ── server 198.51.100.2, for the world also 203.0.113.77
 */
import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { captureDepartures, kinds } from './lib/departures.js';
import { EVERYWHERE, pathOf } from './lib/exits.js';
import { startPeer } from './lib/peers.js';
import { ADDRESSES } from './lib/standard-lab.js';
import { PROGRAMS, peerEnvironment } from './lib/unpacked-peers.js';
import { eventually } from './lib/vpn-lab.js';
import { INSIDE, officeConf, userOf, vpnctlLab, WG_PORT } from './lib/vpnctl-lab.js';
import { showWireGuard, wg, wireGuardKeys } from './lib/wireguard-go.js';

const TIMEOUT = { timeout: 180_000 };
const TUNNELLED = pathOf('server', INSIDE.client);
const LINK = 'vpn-tun0';
/** Where the router leads the server's datagrams, too. */
const MOVED = '203.0.113.77';

test('wg show, set, setconf and showconf work on root’s tunnel', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  const root = userOf(lab, 0);
  const { status, stderr } = await root.vpnctl('up', root.write('office.conf', officeConf(lab)));
  assert.equal(status, 0, stderr);
  const user = await lab.process(2001);
  const ask = () => user.call('ask', ...EVERYWHERE);
  assert.deepEqual(await ask(), TUNNELLED);
  const wgFails = (...words: string[]) => lab.app.run(PROGRAMS.wg, words, { env: peerEnvironment(), check: false });

  await t.test('show tells the keys, the port, the peer and what it has moved', async () => {
    const { peers, ...own } = await showWireGuard(lab.app, LINK);
    const listenPort = (await root.status())?.listenPort;
    const { privateKey, publicKey } = lab.keys;
    assert.deepEqual(own, { privateKey, publicKey, listenPort, fwmark: 0x80000000 });
    const [peer] = peers;
    assert.equal(peers.length, 1);
    assert.equal(peer?.publicKey, lab.wireguard.publicKey);
    assert.equal(peer.presharedKey, lab.presharedKey);
    assert.equal(peer.endpoint, `${ADDRESSES.server.ipv4}:${WG_PORT}`);
    assert.deepEqual(peer.allowedIps, ['0.0.0.0/0', '::/0']);
    assert.ok(Math.abs(peer.latestHandshake - Date.now() / 1000) < 30);
    assert.ok(peer.sentBytes > 1000 && peer.receivedBytes > 1000);
    assert.equal(await wg(lab.app, ['show', 'interfaces']), `${LINK}\n`);
    const socket = `/proc/${lab.app.pid}/root/run/wireguard`;
    assert.equal(statSync(socket).mode & 0o777, 0o700);
    assert.equal(statSync(join(socket, `${LINK}.sock`)).mode & 0o777, 0o600);
  });

  await t.test('set adds a peer and takes it away, and changes one', async () => {
    const { publicKey } = wireGuardKeys();
    const words = ['peer', publicKey, 'endpoint', '[2001:db8:2::2]:7', 'allowed-ips', '10.99.0.0/16,fd99::/16'];
    await wg(lab.app, ['set', LINK, ...words, 'persistent-keepalive', '7']);
    const added = (await showWireGuard(lab.app, LINK)).peers.find((peer) => peer.publicKey === publicKey);
    assert.deepEqual(
      [added?.endpoint, added?.allowedIps, added?.persistentKeepalive],
      ['[2001:db8:2::2]:7', ['10.99.0.0/16', 'fd99::/16'], 7],
    );
    await wg(lab.app, ['set', LINK, 'peer', publicKey, 'remove']);
    await wg(lab.app, ['set', LINK, 'peer', lab.wireguard.publicKey, 'persistent-keepalive', 'off']);
    assert.equal((await showWireGuard(lab.app, LINK)).peers.length, 1);
    assert.deepEqual(await ask(), TUNNELLED);
  });

  await t.test(
    'another listening port is taken at once, protected like the first; one that is not free is refused',
    async () => {
      await wg(lab.app, ['set', LINK, 'listen-port', '4444']);
      const departures = await captureDepartures(lab.app);
      assert.deepEqual(await ask(), TUNNELLED);
      // A keepalive that the server has sent to the first port is refused by the kernel.
      const packets = (await departures.packets()).filter(({ icmpType }) => icmpType !== 3);
      assert.deepEqual([...new Set(packets.map(({ sourcePort }) => sourcePort))], [4444]);
      await departures.stop();
      assert.equal((await lab.wireguard.show()).peers[0]?.endpoint, `${ADDRESSES.app.ipv4}:4444`);
      const other = await lab.process(2002);
      await other.call('bind', await other.call('open', 1, 'udp'), '0.0.0.0', 4500);
      const refused = await wgFails('set', LINK, 'listen-port', '4500');
      assert.notEqual(refused.status, 0);
      assert.match(refused.stderr, /Address already in use/);
      assert.equal((await showWireGuard(lab.app, LINK)).listenPort, 4444);
      assert.deepEqual(await ask(), TUNNELLED);
    },
  );

  await t.test('a mark is refused: marks are the service’s', async () => {
    const { status, stderr } = await wgFails('set', LINK, 'fwmark', '51820');
    assert.notEqual(status, 0);
    assert.match(stderr, /Operation not supported/);
    await wg(lab.app, ['set', LINK, 'fwmark', 'off']);
  });

  await t.test('setconf of what showconf has printed changes nothing', async () => {
    const conf = await wg(lab.app, ['showconf', LINK]);
    assert.match(conf, new RegExp(`PrivateKey = ${lab.keys.privateKey.replace(/[+/]/g, '\\$&')}`));
    const script = 'cat | "$0" setconf "$1" /dev/stdin';
    await lab.app.run('sh', ['-c', script, PROGRAMS.wg, LINK], { env: peerEnvironment(), input: conf });
    assert.equal(await wg(lab.app, ['showconf', LINK]), conf);
    assert.deepEqual(await ask(), TUNNELLED);
  });

  await t.test('down takes the socket away', async () => {
    assert.equal((await root.vpnctl('down')).status, 0);
    assert.equal(await wg(lab.app, ['show', 'interfaces']), '');
  });
});

test('a peer whose name moves is found again, past the tunnel that does not work', TIMEOUT, async (t) => {
  const lab = await vpnctlLab(t);
  if (!lab) return;
  await lab.router.ip('address add 192.0.2.53/24 dev eth0');
  const named = (a: string) => startPeer(lab.router, { kind: 'dns', name: 'router', a, address: '192.0.2.53' });
  const first = await named(ADDRESSES.server.ipv4);
  const user = userOf(lab, 2001);
  const file = user.write('office.conf', officeConf(lab, { endpoint: `wg.example.org:${WG_PORT}` }));
  const { status, stderr } = await user.vpnctl('up', file);
  assert.equal(status, 0, stderr);
  const app = await lab.process(2001);
  assert.deepEqual(await app.call('ask', ...EVERYWHERE), TUNNELLED);
  assert.equal((await user.status())?.peers[0]?.host, `wg.example.org:${WG_PORT}`);

  await first.kill();
  await named(MOVED);
  await lab.router.run('nft', ['-f', '-'], {
    input: `table ip moved {
      chain cut { type filter hook prerouting priority -300; ip daddr ${ADDRESSES.server.ipv4} udp dport ${WG_PORT} drop; }
      chain lead { type nat hook prerouting priority -100; ip daddr ${MOVED} udp dport ${WG_PORT} dnat to ${ADDRESSES.server.ipv4}; }
    }`,
  });
  const departures = await captureDepartures(lab.app);
  const answer = await eventually(
    'the tunnel works again',
    async () => {
      const [said] = await app.call('ask', { transport: 'udp', address: ADDRESSES.internet.ipv4, timeoutMs: 1000 });
      return said === 'silence' ? undefined : said;
    },
    60_000,
  );
  assert.equal(answer, `server ${INSIDE.client.ipv4}`);
  assert.equal((await user.status())?.peers[0]?.endpoint, `${MOVED}:${WG_PORT}`);
  assert.deepEqual(
    kinds(await departures.stop()),
    [
      `udp ${ADDRESSES.app.ipv4} > 192.0.2.53:53`,
      `udp ${ADDRESSES.app.ipv4} > ${ADDRESSES.server.ipv4}:${WG_PORT}`,
      `udp ${ADDRESSES.app.ipv4} > ${MOVED}:${WG_PORT}`,
    ].sort(),
  );
  const [dns] = await app.call('ask', { transport: 'dns-udp', address: '192.0.2.53' });
  assert.equal(dns, 'inside', 'the user’s own questions go into the tunnel as before');
  assert.equal((await user.vpnctl('down')).status, 0);
});

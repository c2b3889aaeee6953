/**
 * A server of this tunnel with fifty real wireguard-go, which live in one host, each with an interface of its own:
 *
 *   server                                  clients
 *   eth0 192.0.2.1/24 ───────────────────── eth0 192.0.2.2/24
 *        2001:db8:1::1/64                        2001:db8:1::2/64
 *   wg0  10.9.0.1, fd09::1 ════════════════ w1   10.9.1.1,  fd09::1:1    and so on, the odd ones over IPv4,
 *                                           w50  10.9.1.50, fd09::1:32   the even ones over IPv6 and with a preshared key
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startOurTunnel } from './lib/our-tunnel.js';
import { twoHosts } from './lib/two-hosts.js';
import { requirePeers } from './lib/unpacked-peers.js';
import { eventually } from './lib/vpn-lab.js';
import { startWireGuardGo, type WireGuardGo, wireGuardKeys, wireGuardPresharedKey } from './lib/wireguard-go.js';

const COUNT = 50;
/** The server begins with these, the others begin themselves. */
const CALLED = 10;
const SERVER_PORT = 51001;
const AT_ONCE = 5;

test('fifty wireguard-go have a server of this tunnel, and each gets and may send what is its own', async (t) => {
  if (!requirePeers(t)) return;
  const { here: server, there: host } = await twoHosts(t);
  const serverKeys = wireGuardKeys();
  const numbers = Array.from({ length: COUNT }, (_, index) => index + 1);
  const plans = numbers.map((number) => ({
    number,
    keys: wireGuardKeys(),
    presharedKey: number % 2 === 0 ? { presharedKey: wireGuardPresharedKey() } : {},
    ipv4: `10.9.1.${number}`,
    ipv6: `fd09::1:${number.toString(16)}`,
  }));
  const ours = await startOurTunnel(server, 'wg0', {
    keys: serverKeys,
    listenPort: SERVER_PORT,
    addresses: ['10.9.0.1/16', 'fd09::1/64'],
    peers: plans.map(({ number, keys, presharedKey, ipv4, ipv6 }) => ({
      publicKey: keys.publicKey,
      allowedIps: [`${ipv4}/32`, `${ipv6}/128`],
      ...presharedKey,
      ...(number <= CALLED && { endpoint: `192.0.2.2:${51100 + number}` }),
    })),
  });
  const clients: WireGuardGo[] = [];
  for (let start = 0; start < COUNT; start += AT_ONCE) {
    const started = plans.slice(start, start + AT_ONCE).map(async ({ number, keys, presharedKey, ipv4, ipv6 }) => {
      const client = await startWireGuardGo(host, `w${number}`, {
        keys,
        listenPort: 51100 + number,
        addresses: [`${ipv4}/32`, `${ipv6}/128`],
        routes: false,
        peers: [
          {
            publicKey: serverKeys.publicKey,
            allowedIps: ['10.9.0.0/16', 'fd09::/64'],
            ...presharedKey,
            ...(number > CALLED && {
              endpoint: number % 2 === 0 ? `[2001:db8:1::1]:${SERVER_PORT}` : `192.0.2.1:${SERVER_PORT}`,
            }),
          },
        ],
      });
      return client;
    });
    clients.push(...(await Promise.all(started)));
  }

  // The same target through fifty interfaces: the source address says which.
  for (const [family, target, key] of [
    ['-4', '10.9.0.1', 'ipv4'],
    ['-6', 'fd09::1', 'ipv6'],
  ] as const) {
    const lines = plans.flatMap(({ number, [key]: address }) => [
      `route add ${target} dev w${number} table ${1000 + number}`,
      `rule add from ${address} table ${1000 + number}`,
    ]);
    await host.run('ip', [family, '-batch', '-'], { input: `${lines.join('\n')}\n` });
  }
  const echo = (from: typeof host, words: string) =>
    from.run('ping', ['-n', '-c2', '-i0.1', '-W20', ...words.split(' ')], { timeoutMs: 30_000 });
  await Promise.all(plans.slice(0, CALLED).map(({ ipv4 }) => echo(server, ipv4)));
  await Promise.all(plans.slice(CALLED).map(({ ipv4 }) => echo(host, `-I ${ipv4} 10.9.0.1`)));
  await Promise.all(plans.map(({ ipv6 }) => echo(host, `-I ${ipv6} fd09::1`)));
  await Promise.all(plans.map(({ ipv6 }) => echo(server, ipv6)));

  for (const [index, { number, keys, presharedKey }] of plans.entries()) {
    // Keepalives are on their way all the time.
    const { peer, their } = await eventually(`client ${number} has the same counters`, async () => {
      const { peers } = await ours.status();
      assert.equal(peers.length, COUNT);
      const peer = peers.find(({ publicKey }) => Buffer.from(publicKey).toString('base64') === keys.publicKey);
      const [their] = (await clients[index]?.show())?.peers ?? [];
      assert.ok(peer && their);
      const isSame = peer.receivedBytes === their.sentBytes && peer.sentBytes === their.receivedBytes;
      return isSame ? { peer, their } : undefined;
    });
    const isIpv6 = number > CALLED && number % 2 === 0;
    assert.deepEqual(peer.endpoint, { address: isIpv6 ? '2001:db8:1::2' : '192.0.2.2', port: 51100 + number });
    assert.ok(Math.abs(peer.lastHandshakeMs / 1000 - their.latestHandshake) <= 15);
    assert.equal(peer.hasPresharedKey, 'presharedKey' in presharedKey);
  }

  // A client that sends with another one's address is not heard.
  const inside = await server.capture('wg0', ['icmp']);
  await host.ip('route add 10.9.0.1 dev w1');
  const words = ['-n', '-c2', '-i0.1', '-W1', '-I', 'w1', '-I', '10.9.1.2', '10.9.0.1'];
  const { status } = await host.run('ping', words, { check: false });
  assert.equal(status, 1);
  await eventually('both are counted', async () => (await ours.status()).counters.notAllowed === 2 || undefined);
  assert.deepEqual(await inside.stop(), []);
});

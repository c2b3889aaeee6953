/**
 * The peers that the tunnel is measured against and has to get on with, as the lab starts them:
 *
 *   left                                    right
 *   eth0 192.0.2.1/24 ───────────────────── eth0 192.0.2.2/24
 *        2001:db8:1::1/64                        2001:db8:1::2/64
 *   wg0  10.7.0.1/24, fd07::1/64 ══════════ wg0  10.7.0.2/24, fd07::2/64     wireguard-go
 *   ovpn 10.8.0.1, fd08::1 ════════════════ ovpn 10.8.0.2, fd08::2           OpenVPN
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import type { LabHost } from './lib/host.js';
import { iperf, startIperf } from './lib/iperf3.js';
import { startOpenVpn } from './lib/openvpn.js';
import { twoHosts } from './lib/two-hosts.js';
import { requirePeers } from './lib/unpacked-peers.js';
import { startWireGuardGo, type WireGuardGo, wireGuardKeys, wireGuardPresharedKey } from './lib/wireguard-go.js';

/** `left` knows where `right` is; not the other way round. */
async function twoWireGuards(left: LabHost, right: LabHost): Promise<[WireGuardGo, WireGuardGo]> {
  const [leftKeys, rightKeys] = [wireGuardKeys(), wireGuardKeys()];
  const presharedKey = wireGuardPresharedKey();
  const onRight = await startWireGuardGo(right, 'wg0', {
    keys: rightKeys,
    addresses: ['10.7.0.2/24', 'fd07::2/64'],
    peers: [{ publicKey: leftKeys.publicKey, presharedKey, allowedIps: ['10.7.0.1/32', 'fd07::1/128'] }],
  });
  const onLeft = await startWireGuardGo(left, 'wg0', {
    keys: leftKeys,
    addresses: ['10.7.0.1/24', 'fd07::1/64'],
    listenPort: 51820,
    peers: [
      {
        publicKey: rightKeys.publicKey,
        presharedKey,
        endpoint: `192.0.2.2:${onRight.listenPort}`,
        allowedIps: ['10.7.0.2/32', 'fd07::2/128'],
      },
    ],
  });
  return [onLeft, onRight];
}

test('two wireguard-go speak with each other, and wg tells what they did', async (t) => {
  if (!requirePeers(t)) return;
  const { here: left, there: right } = await twoHosts(t);
  const [onLeft, onRight] = await twoWireGuards(left, right);
  const capture = await right.capture('eth0', ['udp']);
  await left.run('ping', ['-c2', '-i0.2', '-W15', '10.7.0.2']);
  await left.run('ping', ['-6', '-c2', '-i0.2', '-W15', 'fd07::2']);
  const packets = await capture.stop();

  const types = packets.map(({ payload }) => payload[0]);
  assert.deepEqual(types.slice(0, 2), [1, 2], 'an initiation and a response');
  assert.deepEqual(new Set(types.slice(2)), new Set([4]), 'then data');
  assert.deepEqual(
    new Set(packets.flatMap(({ sourcePort, destinationPort }) => [sourcePort, destinationPort])),
    new Set([51820, onRight.listenPort]),
  );
  const { peers, ...own } = await onRight.show();
  assert.deepEqual(own, {
    privateKey: onRight.privateKey,
    publicKey: onRight.publicKey,
    listenPort: onRight.listenPort,
    fwmark: 0,
  });
  assert.equal(peers.length, 1);
  const [peer] = peers;
  assert.equal(peer?.publicKey, onLeft.publicKey);
  assert.equal(peer.endpoint, '192.0.2.1:51820');
  assert.deepEqual(peer.allowedIps, ['10.7.0.1/32', 'fd07::1/128']);
  assert.ok(Math.abs(peer.latestHandshake - Date.now() / 1000) < 30, `a handshake at ${peer.latestHandshake}`);
  const bytesOf = (port: number) =>
    packets.filter(({ sourcePort }) => sourcePort === port).reduce((sum, { payload }) => sum + payload.length, 0);
  assert.equal(peer.receivedBytes, bytesOf(51820));
  assert.equal(peer.sentBytes, bytesOf(onRight.listenPort));
});

test('a wireguard-go that is stopped leaves neither interface nor socket nor process', async (t) => {
  if (!requirePeers(t)) return;
  const { here: left, there: right } = await twoHosts(t);
  const [onLeft] = await twoWireGuards(left, right);
  await onLeft.stop();
  const links = await left.json<{ ifname: string }[]>('ip', ['-j', 'link']);
  assert.deepEqual(links.map(({ ifname }) => ifname).sort(), ['eth0', 'lo']);
  assert.equal(existsSync(`/proc/${left.pid}/root/run/wireguard/wg0.sock`), false);
  assert.equal(existsSync(`/proc/${onLeft.process.pid}`), false);
});

test('peers can be added to a wireguard-go, and its settings changed', async (t) => {
  if (!requirePeers(t)) return;
  const { here: left } = await twoHosts(t);
  const one = await startWireGuardGo(left, 'wg0', { addresses: ['10.7.0.1/32'], mtu: 1280 });
  const { publicKey } = wireGuardKeys();
  await one.addPeers({ publicKey, allowedIps: ['10.7.0.9/32'], endpoint: '192.0.2.2:7', persistentKeepalive: 25 });
  await one.set('listen-port', '4444', 'fwmark', '5');
  const { peers, listenPort, fwmark } = await one.show();
  assert.deepEqual({ listenPort, fwmark }, { listenPort: 4444, fwmark: 5 });
  assert.deepEqual(peers.slice(0, 1), [
    {
      publicKey,
      presharedKey: undefined,
      endpoint: '192.0.2.2:7',
      allowedIps: ['10.7.0.9/32'],
      latestHandshake: 0,
      receivedBytes: 0,
      sentBytes: peers[0]?.sentBytes,
      persistentKeepalive: 25,
    },
  ]);
  const [route] = await left.json<{ dev: string }[]>('ip', ['-j', 'route', 'get', '10.7.0.9']);
  assert.equal(route?.dev, 'wg0');
  const [link] = await left.json<{ mtu: number }[]>('ip', ['-j', 'link', 'show', 'wg0']);
  assert.equal(link?.mtu, 1280);
});

test('iperf3 measures TCP and UDP through a tunnel', async (t) => {
  if (!requirePeers(t)) return;
  const { here: left, there: right } = await twoHosts(t);
  await twoWireGuards(left, right);
  await startIperf(right, '10.7.0.2');
  const capture = await right.capture('wg0', ['tcp[tcpflags] = tcp-syn']);
  const tcp = await iperf(left, '10.7.0.2', { seconds: 1, streams: 2 });
  // A busy machine makes TCP repeat one.
  const begun = new Set((await capture.stop()).map(({ sourcePort }) => sourcePort));
  assert.equal(begun.size, 3, 'through the tunnel: one for control, one for each stream');
  assert.ok(tcp.bytes > 1e5, `${tcp.bytes} bytes in a second`);
  assert.ok(Math.abs(tcp.bitsPerSecond - (tcp.bytes * 8) / tcp.seconds) < tcp.bitsPerSecond * 0.01);
  const udp = await iperf(left, '10.7.0.2', { seconds: 1, udpBytes: 1000 });
  assert.ok(udp.bytes > 1e5, `${udp.bytes} bytes in a second`);
  assert.ok(udp.lostPercent >= 0 && udp.lostPercent < 100, `${udp.lostPercent} % lost`);
});

test('OpenVPN connects two hosts in ChaCha20-Poly1305', async (t) => {
  if (!requirePeers(t)) return;
  const { here: left, there: right } = await twoHosts(t);
  const { client } = await startOpenVpn(
    { host: right, name: 'ovpn', ipv4: '10.8.0.2', ipv6: 'fd08::2', outside: '192.0.2.2', port: 1194 },
    { host: left, name: 'ovpn', ipv4: '10.8.0.1', ipv6: 'fd08::1' },
  );
  const capture = await right.capture('eth0', ['udp port 1194']);
  await left.run('ping', ['-c2', '-i0.2', '-W15', '10.8.0.2']);
  await left.run('ping', ['-6', '-c2', '-i0.2', '-W15', 'fd08::2']);
  assert.ok((await capture.stop()).length >= 8);
  assert.match(client.stdout, /Data Channel: cipher 'CHACHA20-POLY1305'/);
});

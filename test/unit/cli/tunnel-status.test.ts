import assert from 'node:assert/strict';
import test from 'node:test';
import { statusLines, type VpnWithTunnel } from '../../../src/cli/status.js';
import {
  ago,
  bytes,
  describeTunnel,
  type TunnelStatus,
  tunnelLines,
  waitingFor,
} from '../../../src/cli/tunnel-status.js';
import type { WireGuardStatus } from '../../../src/tunnel/wireguard-tunnel.js';
import { ALICE, BOB, CAROL, sample } from './wireguard/lib/samples.js';

const key = (base64: string) => new Uint8Array(Buffer.from(base64, 'base64'));
const HANDSHAKE_MS = Date.UTC(2026, 0, 1);

const WIREGUARD = {
  publicKey: key(ALICE),
  cipher: 'node',
  offload: { vnetHeader: true, tcp: true, udp: false, socket: true },
  counters: { handshakes: 1 },
  traffic: { packetsOut: 7 },
  peers: [
    {
      publicKey: key(BOB),
      hasPresharedKey: true,
      endpoint: { address: '2001:db8::1', port: 51820 },
      lastHandshakeMs: HANDSHAKE_MS,
      receivedBytes: 1_500_000,
      sentBytes: 12,
      persistentKeepaliveSeconds: 25,
      allowedIps: ['0.0.0.0/0', '::/0'],
    },
    {
      publicKey: key(CAROL),
      hasPresharedKey: false,
      lastHandshakeMs: 0,
      receivedBytes: 0,
      sentBytes: 0,
      persistentKeepaliveSeconds: 0,
      allowedIps: Array.from({ length: 10 }, (_, index) => `10.${index}.0.0/16`),
    },
  ],
} as unknown as WireGuardStatus;

const OWN = {
  name: 'office',
  file: '/home/user/office.conf',
  link: 'vpn-tun0',
  pid: 4711,
  since: '2026-01-01T00:00:00.000Z',
  listenPort: 40_000,
  socket: '/run/wireguard/vpn-tun0.sock',
};

function described(): TunnelStatus {
  const { peers } = sample({ peer: ['Endpoint = wg.example.org:51820', 'AllowedIPs = 0.0.0.0/0, ::/0'] });
  return describeTunnel(OWN, WIREGUARD, peers);
}

test('a tunnel is described in JSON, with names of the file beside addresses', () => {
  const { peers, ...rest } = described();
  const { counters, traffic, offload, cipher } = WIREGUARD;
  assert.deepEqual(rest, { ...OWN, publicKey: ALICE, counters, traffic, offload, cipher });
  assert.deepEqual(peers[0], {
    publicKey: BOB,
    hasPresharedKey: true,
    endpoint: '[2001:db8::1]:51820',
    host: 'wg.example.org:51820',
    lastHandshake: '2026-01-01T00:00:00.000Z',
    receivedBytes: 1_500_000,
    sentBytes: 12,
    persistentKeepaliveSeconds: 25,
    allowedIps: ['0.0.0.0/0', '::/0'],
  });
  assert.deepEqual(Object.keys(peers[1] ?? {}).sort(), [
    'allowedIps',
    'hasPresharedKey',
    'persistentKeepaliveSeconds',
    'publicKey',
    'receivedBytes',
    'sentBytes',
  ]);
});

test('tunnelLines() prints what a reader wants to know', () => {
  const prefixes = Array.from({ length: 8 }, (_, index) => `10.${index}.0.0/16`).join(' ');
  assert.deepEqual(tunnelLines(described(), HANDSHAKE_MS + 125_000), [
    `  wireguard "office" of "/home/user/office.conf"  port 40000  public key ${ALICE}  cipher node  offload vnetHeader tcp socket`,
    `  peer ${BOB}  endpoint [2001:db8::1]:51820  (wg.example.org:51820)  handshake 2 min 5 s ago  received 1.4 MiB  sent 12 B  allowed 0.0.0.0/0 ::/0  keepalive 25 s  preshared key`,
    `  peer ${CAROL}  no endpoint yet  no handshake yet  received 0 B  sent 0 B  allowed ${prefixes} and 2 more`,
    '  socket "/run/wireguard/vpn-tun0.sock"',
  ]);
  const elsewhere = tunnelLines({ ...described(), socket: '/run/user/1/vpn-manager/vpn-tun0.sock' }, HANDSHAKE_MS);
  assert.match(elsewhere.at(-1) ?? '', /which wg\(8\) does not look for$/);
});

test('what another process says cannot move a terminal, nor end vpnctl', () => {
  const evil = '\x1b[2J\n\u202e';
  const [peer] = described().peers;
  assert.ok(peer);
  const told: TunnelStatus = {
    ...described(),
    name: evil,
    file: evil,
    cipher: evil,
    socket: evil,
    publicKey: evil,
    offload: { [evil]: evil },
    peers: [{ ...peer, publicKey: evil, endpoint: evil, host: evil, lastHandshake: evil, allowedIps: [evil] }],
  };
  for (const line of tunnelLines(told, HANDSHAKE_MS)) assert.doesNotMatch(line, /[\p{C}\p{Zl}\p{Zp}]/u);
  const vpn = { link: 'vpn-tun0', addresses: [], dnsAddresses: [], tunnel: {} } as unknown as VpnWithTunnel;
  assert.match(statusLines({ vpns: [vpn] }, 0)[1] ?? '', /another version/);
});

test('ago() has the two largest units, bytes() one', () => {
  const times: [durationMs: number, text: string][] = [
    [-5, '0 s'],
    [0, '0 s'],
    [59_400, '59 s'],
    [60_000, '1 min'],
    [3_725_000, '1 h 2 min'],
    [7_200_000, '2 h'],
    [90_061_000, '1 d 1 h'],
  ];
  for (const [durationMs, text] of times) assert.equal(ago(durationMs), text);
  const counts: [count: number, text: string][] = [
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1.0 KiB'],
    [5 * 2 ** 40, '5.0 TiB'],
    [2 ** 53, '8192.0 TiB'],
  ];
  for (const [count, text] of counts) assert.equal(bytes(count), text);
});

test('waitingFor() names the peers that are searched for, and none that comes to us or is found', () => {
  const peer = { publicKey: BOB, allowedIps: [] } as unknown as TunnelStatus['peers'][number];
  const found = { ...peer, host: 'a.example:7', endpoint: '192.0.2.1:7' };
  assert.deepEqual(waitingFor({ peers: [peer, found, { ...peer, host: 'b.example:7' }] }), ['b.example:7']);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCipherSuite } from '../../../../src/tunnel/wireguard/cipher-suite.js';
import { Device } from '../../../../src/tunnel/wireguard/device.js';
import type { DeviceChange } from '../../../../src/tunnel/wireguard/device-config.js';
import { generatePrivateKey, publicKeyOf } from '../../../../src/tunnel/wireguard/x25519.js';
import { Pair } from './lib/pair.js';

const privateKey = generatePrivateKey();
const [alice, bob] = [publicKeyOf(generatePrivateKey()), publicKeyOf(generatePrivateKey())];
const presharedKey = new Uint8Array(32).fill(0x77);

function device(change: DeviceChange = {}): Device {
  const made = new Device({ ciphers: nodeCipherSuite(new Uint8Array(70_000)), scratch: 0 });
  made.configure(change, 0);
  return made;
}

const keys = (of: Device): Uint8Array[] => of.status().peers.map(({ publicKey }) => publicKey);
const allowed = (of: Device): string[][] => of.status().peers.map(({ allowedIps }) => allowedIps);

test('status tells everything that was configured, but no secret', () => {
  const made = device({
    privateKey,
    peers: [
      {
        publicKey: alice,
        presharedKey,
        endpoint: { address: '2001:DB8::1', port: 51820 },
        persistentKeepaliveSeconds: 25,
        allowedIps: ['10.1.2.3/8', '2001:db8::5', '10.0.0.0/8'],
      },
      { publicKey: bob, endpoint: { address: 'fe80::1', port: 1, scopeId: 3 } },
    ],
  });
  const status = made.status();
  assert.deepEqual(status.publicKey, publicKeyOf(privateKey));
  assert.equal(status.cipher, 'node:crypto');
  assert.deepEqual(status.peers, [
    {
      publicKey: alice,
      hasPresharedKey: true,
      endpoint: { address: '2001:db8::1', port: 51820 },
      lastHandshakeMs: 0,
      receivedBytes: 0,
      sentBytes: 0,
      persistentKeepaliveSeconds: 25,
      allowedIps: ['10.0.0.0/8', '2001:db8::5/128'],
    },
    {
      publicKey: bob,
      hasPresharedKey: false,
      endpoint: { address: 'fe80::1', port: 1, scopeId: 3 },
      lastHandshakeMs: 0,
      receivedBytes: 0,
      sentBytes: 0,
      persistentKeepaliveSeconds: 0,
      allowedIps: [],
    },
  ]);
  const text = JSON.stringify([status, made], (_, value) =>
    value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value,
  );
  for (const secret of [privateKey, presharedKey])
    assert.equal(text.includes(Buffer.from(secret).toString('hex')), false);
});

test('secrets() tells the keys, as copies', () => {
  const made = device({ privateKey, peers: [{ publicKey: alice, presharedKey }, { publicKey: bob }] });
  assert.deepEqual(made.secrets(), { privateKey, presharedKeys: [{ publicKey: alice, presharedKey }] });
  made.secrets().privateKey?.fill(0);
  made.secrets().presharedKeys[0]?.presharedKey.fill(0);
  assert.deepEqual(made.secrets(), { privateKey, presharedKeys: [{ publicKey: alice, presharedKey }] });
  assert.deepEqual(device().secrets(), { presharedKeys: [] });
});

test('the caller may zero the keys that it gave', () => {
  const mine = privateKey.slice();
  const psk = presharedKey.slice();
  const made = device({ privateKey: mine, peers: [{ publicKey: alice, presharedKey: psk }] });
  mine.fill(0);
  psk.fill(0);
  assert.deepEqual(made.secrets(), { privateKey, presharedKeys: [{ publicKey: alice, presharedKey }] });
});

test('what a change does not mention stays as it is', () => {
  const made = device({
    privateKey,
    peers: [
      { publicKey: alice, presharedKey, endpoint: { address: '192.0.2.1', port: 5 }, allowedIps: ['10.0.0.0/8'] },
    ],
  });
  const before = made.status();
  made.configure({ peers: [{ publicKey: alice }] }, 1);
  made.configure({}, 2);
  assert.deepEqual(made.status(), before);
});

test('a prefix moves from peer to peer, is taken away alone or with all of its peer', () => {
  const made = device({
    peers: [
      { publicKey: alice, allowedIps: ['10.0.0.0/8', '::/0'] },
      { publicKey: bob, allowedIps: ['10.0.0.0/8'] },
    ],
  });
  assert.deepEqual(allowed(made), [['::/0'], ['10.0.0.0/8']]);
  made.configure({ peers: [{ publicKey: alice, replaceAllowedIps: true, allowedIps: ['10.1.0.0/16'] }] }, 0);
  assert.deepEqual(allowed(made), [['10.1.0.0/16'], ['10.0.0.0/8']]);
  made.configure({ peers: [{ publicKey: alice, removeAllowedIps: ['10.0.0.0/8', '10.1.0.0/16'] }] }, 0);
  assert.deepEqual(allowed(made), [[], ['10.0.0.0/8']]);
  made.configure(
    {
      peers: [
        { publicKey: bob, remove: true },
        { publicKey: bob, allowedIps: ['10.2.0.0/16'] },
      ],
    },
    0,
  );
  assert.deepEqual(allowed(made), [[], ['10.2.0.0/16']]);
});

test('peers are added, replaced, only updated, removed', () => {
  const made = device({ peers: [{ publicKey: alice, updateOnly: true }, { publicKey: bob }] });
  assert.deepEqual(keys(made), [bob]);
  made.configure({ peers: [{ publicKey: alice, remove: true }, { publicKey: alice }] }, 0);
  assert.deepEqual(keys(made), [bob, alice]);
  made.configure({ replacePeers: true, peers: [{ publicKey: alice }] }, 0);
  assert.deepEqual(keys(made), [alice]);
  made.configure({ replacePeers: true }, 0);
  assert.deepEqual(keys(made), []);
});

test('a preshared key is changed, and taken away by zeros', () => {
  const made = device({ peers: [{ publicKey: alice, presharedKey }] });
  made.configure({ peers: [{ publicKey: alice, presharedKey: new Uint8Array(32).fill(1) }] }, 0);
  assert.deepEqual(made.secrets().presharedKeys[0]?.presharedKey, new Uint8Array(32).fill(1));
  made.configure({ peers: [{ publicKey: alice, presharedKey: new Uint8Array(32) }] }, 0);
  assert.equal(made.status().peers[0]?.hasPresharedKey, false);
});

test('a change with anything wrong in it changes nothing at all', () => {
  const pair = new Pair();
  pair.connect();
  const made = pair.alice.device;
  const bobOfPair = pair.bob.publicKey;
  const before = [made.status(), made.secrets(), made.nextDeadlineMs];
  const good: DeviceChange = {
    privateKey,
    replacePeers: true,
    peers: [{ publicKey: alice, presharedKey, allowedIps: ['10.0.0.2/32'], persistentKeepaliveSeconds: 1 }],
  };
  const wrong: [DeviceChange, RegExp][] = [
    [{ ...good, privateKey: new Uint8Array(3) }, /^Error: privateKey: has 3 bytes, not 32$/],
    [
      { ...good, peers: [...(good.peers ?? []), { publicKey: bob, allowedIps: ['x'] }] },
      /^Error: peers\[1\]\.allowedIps\[0\]: "x" is no IP prefix$/,
    ],
    [
      { ...good, peers: [{ publicKey: publicKeyOf(privateKey) }] },
      /^Error: peers\[0\]\.publicKey: is this device's own$/,
    ],
    [
      { ...good, peers: [{ publicKey: new Uint8Array(32) }] },
      /^Error: peers\[0\]\.publicKey: is of low order, and no key$/,
    ],
    [
      { peers: [{ publicKey: bobOfPair, remove: true }, { publicKey: pair.alice.publicKey }] },
      /peers\[1\]\.publicKey: is this device's own/,
    ],
    [{ privateKey: pair.bob.privateKey }, /^Error: privateKey: one of the peers has its public key$/],
  ];
  for (const [change, message] of wrong) {
    assert.throws(() => made.configure(change, pair.alice.nowMs), message);
    assert.deepEqual([made.status(), made.secrets(), made.nextDeadlineMs], before);
  }
  pair.send(pair.alice);
  pair.run(100);
  assert.equal(pair.take(pair.bob).length, 1, 'and the session is still there');
  made.configure(
    { privateKey: pair.bob.privateKey, peers: [{ publicKey: bobOfPair, remove: true }] },
    pair.alice.nowMs,
  );
});

test('keys of low order are refused without a private key as well', () => {
  const order8 = Buffer.from('e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800', 'hex');
  assert.throws(() => device({ peers: [{ publicKey: order8 }] }), /low order/);
});

test('close() zeroes every key and leaves nothing to do', () => {
  const pair = new Pair({ more: { presharedKey, persistentKeepaliveSeconds: 5 } });
  pair.connect();
  pair.send(pair.alice);
  const peer = pair.alice.device.lastPeer;
  pair.close();
  assert.deepEqual([pair.alice.record.live, pair.bob.record.live], [0, 0]);
  assert.deepEqual(peer?.presharedKey, new Uint8Array(32));
  assert.equal(peer?.staticSecret, undefined);
  assert.equal(pair.alice.device.nextDeadlineMs, Number.POSITIVE_INFINITY);
  assert.deepEqual(pair.alice.device.secrets(), { presharedKeys: [] });
  assert.equal(pair.alice.device.status().publicKey, undefined);
});

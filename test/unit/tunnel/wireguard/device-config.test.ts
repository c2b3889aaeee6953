import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { clearHostBits } from '../../../../src/model/address.js';
import { checkPeerChange, type PeerChange, parseAllowedIp } from '../../../../src/tunnel/wireguard/device-config.js';

const publicKey = new Uint8Array(32).fill(9);

test('a prefix is an address with or without a length, and loses its host bits', () => {
  assert.deepEqual(parseAllowedIp('10.1.2.3/8'), { address: '10.0.0.0', prefixLength: 8 });
  assert.deepEqual(parseAllowedIp('10.1.2.3'), { address: '10.1.2.3', prefixLength: 32 });
  assert.deepEqual(parseAllowedIp('2001:DB8::1/32'), { address: '2001:db8::', prefixLength: 32 });
  assert.deepEqual(parseAllowedIp('::1'), { address: '::1', prefixLength: 128 });
  assert.deepEqual(parseAllowedIp('0.0.0.0/0'), { address: '0.0.0.0', prefixLength: 0 });
});

test('what is no prefix is none', () => {
  const wrong = [
    '',
    '/',
    '/8',
    '10.0.0.0/',
    '10.0.0.0/33',
    '::/129',
    '10.0.0.0/-1',
    '10.0.0.0/+8',
    '10.0.0.0/8 ',
    ' ::/0',
  ];
  for (const text of [
    ...wrong,
    '10.0.0/8',
    '010.0.0.0/8',
    '10.0.0.0/0x8',
    '10.0.0.0/8/8',
    '::/1e1',
    'fe80::%1/64',
    'all',
  ]) {
    assert.equal(parseAllowedIp(text), undefined, JSON.stringify(text));
  }
});

test('every address with every length is the prefix it says', () => {
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), fc.nat({ max: 128 }), (address, length) => {
      const isTooLong = !address.includes(':') && length > 32;
      const expected = isTooLong ? undefined : { address: clearHostBits(address, length), prefixLength: length };
      assert.deepEqual(parseAllowedIp(`${address}/${length}`), expected);
    }),
  );
});

test('each field that is wrong is named, with its value unless that is a key', () => {
  const cases: [Partial<Record<keyof PeerChange, unknown>>, string][] = [
    [{ publicKey: new Uint8Array(31) }, 'peers[3].publicKey: has 31 bytes, not 32'],
    [{ publicKey: 'abc' }, 'peers[3].publicKey: is not a Uint8Array'],
    [{ presharedKey: new Uint8Array(33) }, 'peers[3].presharedKey: has 33 bytes, not 32'],
    [{ endpoint: { address: 'a.example', port: 1 } }, 'peers[3].endpoint: "a.example" is not an IP address'],
    [{ endpoint: { address: '::1', port: 0 } }, 'peers[3].endpoint: 0 is not a port'],
    [
      { persistentKeepaliveSeconds: 65_536 },
      'peers[3].persistentKeepaliveSeconds: 65536 is not a number of seconds from 0 to 65535',
    ],
    [
      { persistentKeepaliveSeconds: 0.5 },
      'peers[3].persistentKeepaliveSeconds: 0.5 is not a number of seconds from 0 to 65535',
    ],
    [{ allowedIps: ['::/0', '10.0.0.300/8'] }, 'peers[3].allowedIps[1]: "10.0.0.300/8" is no IP prefix'],
    [{ removeAllowedIps: ['x'] }, 'peers[3].removeAllowedIps[0]: "x" is no IP prefix'],
  ];
  for (const [change, message] of cases) {
    assert.throws(() => checkPeerChange({ publicKey, ...change } as PeerChange, 'peers[3]'), { message });
  }
});

test('a preshared key of zeros is none', () => {
  assert.equal(checkPeerChange({ publicKey, presharedKey: new Uint8Array(32) }, '').presharedKey, null);
  assert.equal(checkPeerChange({ publicKey }, '').presharedKey, undefined);
});

import assert from 'node:assert/strict';
import { createHook } from 'node:async_hooks';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  generateKeyPair,
  generatePrivateKey,
  importPrivateKey,
  publicKeyOf,
  sharedSecret,
} from '../../../../src/tunnel/wireguard/x25519.js';

const hex = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString('hex');
const bytes = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'hex'));

test('sharedSecret() gives the outputs of RFC 7748, section 5.2, the second with the unused top bit set', () => {
  const vectors = [
    [
      'a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4',
      'e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c',
      'c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552',
    ],
    [
      '4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d',
      'e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493',
      '95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957',
    ],
  ] as const;
  for (const [scalar, u, output] of vectors) assert.equal(hex(sharedSecret(bytes(scalar), bytes(u))), output);
});

test('sharedSecret() gives the outputs of RFC 7748, section 5.2, after 1 and after 1,000 iterations', () => {
  let [k, u] = [bytes(`09${'00'.repeat(31)}`), bytes(`09${'00'.repeat(31)}`)];
  for (let iteration = 1; iteration <= 1000; iteration++) {
    const output = sharedSecret(k, u);
    assert.ok(output);
    [k, u] = [output, k];
    if (iteration === 1) assert.equal(hex(k), '422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079');
  }
  assert.equal(hex(k), '684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51');
});

test('publicKeyOf() and sharedSecret() give the keys of RFC 7748, section 6.1', () => {
  const alice = bytes('77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a');
  const bob = bytes('5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb');
  assert.equal(hex(publicKeyOf(alice)), '8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a');
  assert.equal(hex(publicKeyOf(bob)), 'de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f');
  const secret = '4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742';
  assert.equal(hex(sharedSecret(alice, publicKeyOf(bob))), secret);
  assert.equal(hex(sharedSecret(importPrivateKey(bob), publicKeyOf(alice))), secret);
});

// Little-endian: 0, 1, the two points of order 8, and p-1, p, p+1. See https://cr.yp.to/ecdh.html#validate
const LOW_ORDER = [
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
  '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
];

for (const point of LOW_ORDER) {
  test(`sharedSecret() refuses the all-zero result of ${point}`, () => {
    assert.equal(sharedSecret(generatePrivateKey(), bytes(point)), undefined);
  });
}

test('generatePrivateKey() gives clamped keys, each another', () => {
  const keys = Array.from({ length: 50 }, generatePrivateKey);
  assert.equal(new Set(keys.map(hex)).size, keys.length);
  for (const key of keys) {
    assert.equal(key.length, 32);
    assert.equal((key[0] as number) & 7, 0);
    assert.equal((key[31] as number) >> 6, 1);
  }
});

test('generateKeyPair() gives a pair that agrees with a raw key', () => {
  const [pair, raw] = [generateKeyPair(), generatePrivateKey()];
  const secret = sharedSecret(pair.privateKey, publicKeyOf(raw));
  assert.equal(secret?.length, 32);
  assert.deepEqual(sharedSecret(raw, pair.publicKey), secret);
});

test('keys come from no job of node:crypto, which could stop the thread for ever when it is collected', () => {
  const jobsOf = (action: () => void): string[] => {
    const jobs: string[] = [];
    const hook = createHook({ init: (_id, type) => jobs.push(type) }).enable();
    action();
    hook.disable();
    return jobs;
  };
  assert.ok(jobsOf(() => generateKeyPairSync('x25519')).includes('KEYPAIRGENREQUEST'), 'such a job is seen here');
  const ours = jobsOf(() => {
    generateKeyPair();
    publicKeyOf(generatePrivateKey());
  });
  assert.equal(ours.includes('KEYPAIRGENREQUEST'), false);
});

test('a key of another length is a mistake of the caller', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 70 }), (key) => {
      fc.pre(key.length !== 32);
      assert.throws(() => publicKeyOf(key), RangeError);
      assert.throws(() => sharedSecret(generatePrivateKey(), key), RangeError);
    }),
  );
});

test('the error for a wrong key does not contain it', () => {
  const key = bytes('deadbeef');
  assert.throws(
    () => importPrivateKey(key),
    (error: Error) => !/deadbeef|222|173/.test(`${error.message}${error.stack}`),
  );
});

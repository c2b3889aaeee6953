import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { hash, hmac, kdf1, kdf2, kdf3 } from '../../../../src/tunnel/wireguard/hash.js';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

test('hash() gives BLAKE2s-256 of "abc" as in RFC 7693, appendix B', () => {
  assert.equal(hex(hash(utf8('abc'))), '508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982');
});

test('hash() takes its parts as one message', () => {
  assert.deepEqual(hash(utf8('a'), utf8(''), utf8('bc')), hash(utf8('abc')));
});

test('hmac() is RFC 2104 with a block of 64 bytes, not the keyed BLAKE2s', () => {
  // By the definition, spelt out: H((K ^ opad) || H((K ^ ipad) || text)).
  const key = utf8('0123456789abcdef0123456789abcdef');
  const padded = (pad: number) => Uint8Array.from({ length: 64 }, (_, index) => (key[index] ?? 0) ^ pad);
  const inner = createHash('blake2s256').update(padded(0x36)).update('text').digest();
  const outer = createHash('blake2s256').update(padded(0x5c)).update(inner).digest('hex');
  assert.equal(hex(hmac(key, utf8('te'), utf8('xt'))), outer);
});

// The project's own vectors: WireGuard/wireguard-go, device/kdf_test.go.
const VECTORS = [
  {
    key: 'test-key',
    input: 'test-input',
    output: [
      '6f0e5ad38daba1bea8a0d213688736f19763239305e0f58aba697f9ffc41c633',
      'df1194df20802a4fe594cde27e92991c8cae66c366e8106aaa937a55fa371e8a',
      'fac6e2745a325f5dc5d11a5b165aad08b0ada28e7b4e666b7c077934a4d76c24',
    ],
  },
  {
    key: 'wireguard',
    input: 'wireguard',
    output: [
      '491d43bbfdaa8750aaf535e334ecbfe5129967cd64635101c566d4caefda96e8',
      '1e71a379baefd8a79aa4662212fcafe19a23e2b609a3db7d6bcba8f560e3d25f',
      '31e1ae48bddfbe5de38f295e5452b1909a1b4e38e183926af3780b0c1e1f0160',
    ],
  },
  {
    key: '',
    input: '',
    output: [
      '8387b46bf43eccfcf349552a095d8315c4055beb90208fb1be23b894bc2ed5d0',
      '58a0e5f6faefccf4807bff1f05fa8a9217945762040bcec2f4b4a62bdfe0e86e',
      '0ce6ea98ec548f8e281e93e32db65621c45eb18dc6f0a7ad94178610a2f7338e',
    ],
  },
];

for (const { key, input, output } of VECTORS) {
  test(`kdf1(), kdf2() and kdf3() give wireguard-go's keys for "${key}"`, () => {
    assert.deepEqual([hex(kdf1(utf8(key), utf8(input)))], output.slice(0, 1));
    assert.deepEqual(kdf2(utf8(key), utf8(input)).map(hex), output.slice(0, 2));
    assert.deepEqual(kdf3(utf8(key), utf8(input)).map(hex), output);
  });
}

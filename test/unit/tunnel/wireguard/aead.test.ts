import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { open, openX, seal, sealX } from '../../../../src/tunnel/wireguard/aead.js';

const hex = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString('hex');
const bytes = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'hex'));

// Both specifications use these.
const plain = new TextEncoder().encode(
  "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.",
);
const associated = bytes('50515253c0c1c2c3c4c5c6c7');
const key = bytes('808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f');

test('seal() and open() are ChaCha20-Poly1305 of RFC 8439, section 2.8.2', () => {
  const nonce = bytes('070000004041424344454647');
  const sealed =
    'd31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6' +
    '3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36' +
    '92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc' +
    '3ff4def08e4b7a9de576d26586cec64b6116' +
    '1ae10b594f09e26a7e902ecbd0600691';
  assert.equal(hex(seal(key, plain, associated, nonce)), sealed);
  assert.equal(hex(open(key, bytes(sealed), associated, nonce)), hex(plain));
});

test('sealX() and openX() are XChaCha20-Poly1305 of draft-irtf-cfrg-xchacha-03, appendix A.3.1', () => {
  const nonce = bytes('404142434445464748494a4b4c4d4e4f5051525354555657');
  const sealed =
    'bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb' +
    '731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452' +
    '2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9' +
    '21f9664c97637da9768812f615c68b13b52e' +
    'c0875924c1c7987947deafd8780acf49';
  assert.equal(hex(sealX(key, nonce, plain, associated)), sealed);
  assert.equal(hex(openX(key, nonce, bytes(sealed), associated)), hex(plain));
});

const nonceX = new Uint8Array(24);
const sealers = [
  { name: 'open()', seal: (p: Uint8Array) => seal(key, p, associated), open },
  {
    name: 'openX()',
    seal: (p: Uint8Array) => sealX(key, nonceX, p, associated),
    open: (k: Uint8Array, s: Uint8Array, a: Uint8Array) => openX(k, nonceX, s, a),
  },
];

for (const aead of sealers) {
  test(`${aead.name} gives back what was sealed, also nothing`, () => {
    for (const length of [0, 1, 15, 16, 17, 32]) {
      assert.equal(hex(aead.open(key, aead.seal(plain.slice(0, length)), associated)), hex(plain.slice(0, length)));
    }
  });

  test(`${aead.name} gives undefined for every flipped bit, of bytes, tag, key and associated data`, () => {
    const sealed = aead.seal(plain.slice(0, 20));
    const flips = (whole: Uint8Array) =>
      Array.from({ length: whole.length * 8 }, (_, bit) => {
        const flipped = whole.slice();
        flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7));
        return flipped;
      });
    for (const flipped of flips(sealed)) assert.equal(aead.open(key, flipped, associated), undefined);
    for (const flipped of flips(key)) assert.equal(aead.open(flipped, sealed, associated), undefined);
    for (const flipped of flips(associated)) assert.equal(aead.open(key, sealed, flipped), undefined);
  });

  test(`${aead.name} gives undefined for garbage of any length`, () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (garbage) => {
        assert.equal(aead.open(key, garbage, associated), undefined);
      }),
    );
  });
}

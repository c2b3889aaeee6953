/** Compared with node:crypto, whose ChaCha20-Poly1305 aead.test.ts compares with the vectors of RFC 8439. */
import assert from 'node:assert/strict';
import { createCipheriv } from 'node:crypto';
import { test } from 'node:test';
import { nodeCipherSuite } from '../../../../src/tunnel/wireguard/cipher-suite.js';

const key = Uint8Array.from({ length: 32 }, (_, index) => 0x80 + index);

function sealed(counter: bigint, plain: Uint8Array): Buffer {
  const nonce = Buffer.alloc(12);
  nonce.writeBigUInt64LE(counter, 4);
  const cipher = createCipheriv('chacha20-poly1305', key, nonce, { authTagLength: 16 });
  return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

test('the nonce is four zero bytes and the counter, low half first', () => {
  const memory = new Uint8Array(200);
  const plain = Buffer.from('Ladies and Gentlemen of the class of ’99');
  for (const [low, high] of [
    [0, 0],
    [1, 0],
    [0xffff_ffff, 0],
    [0, 1],
    [7, 0xffff_ffff],
  ] as const) {
    memory.set(plain, 10);
    nodeCipherSuite(memory).forKey(key, 'seal').seal(low, high, 10, plain.length, 100);
    const expected = sealed((BigInt(high) << 32n) | BigInt(low), plain);
    assert.deepEqual(Buffer.from(memory.subarray(100, 100 + expected.length)), expected);
    assert.equal(memory[100 + expected.length], 0, 'nothing behind the tag');
  }
});

test('what was sealed is opened in place, and nothing is written when a bit of it is wrong', () => {
  const memory = new Uint8Array(100);
  const suite = nodeCipherSuite(memory);
  memory.fill(5, 16, 46);
  suite.forKey(key, 'seal').seal(3, 4, 16, 30, 16);
  const opener = suite.forKey(key, 'open');
  const right = memory.slice();
  for (let bit = 0; bit < 46 * 8; bit++) {
    memory[16 + (bit >> 3)] = (right[16 + (bit >> 3)] as number) ^ (1 << (bit & 7));
    const before = memory.slice();
    assert.equal(opener.open(3, 4, 16, 46, 16), false);
    assert.deepEqual(memory, before);
    memory.set(right);
  }
  assert.equal(opener.open(4, 4, 16, 46, 16), false, 'another counter');
  assert.equal(opener.open(3, 4, 16, 46, 16), true);
  assert.deepEqual(memory.subarray(16, 46), new Uint8Array(30).fill(5));
});

test('a message without content is a tag; what is shorter than a tag is nothing', () => {
  const memory = new Uint8Array(100);
  const suite = nodeCipherSuite(memory);
  suite.forKey(key, 'seal').seal(0, 0, 16, 0, 16);
  assert.equal(suite.forKey(key, 'open').open(0, 0, 16, 16, 50), true);
  for (let length = 0; length < 16; length++) {
    // Where it would be the end of a message that is right.
    assert.equal(suite.forKey(key, 'open').open(0, 0, 32 - length, length, 50), false);
  }
});

test('the key is copied, and a destroyed one encrypts nothing', () => {
  const memory = new Uint8Array(100);
  const mine = key.slice();
  const cipher = nodeCipherSuite(memory).forKey(mine, 'seal');
  mine.fill(0);
  cipher.seal(0, 0, 0, 0, 0);
  assert.deepEqual(Buffer.from(memory.subarray(0, 16)), sealed(0n, new Uint8Array(0)));
  cipher.destroy();
  assert.throws(() => cipher.seal(1, 0, 0, 0, 0), /destroyed/);
  assert.throws(() => cipher.open(1, 0, 0, 16, 0), /destroyed/);
});

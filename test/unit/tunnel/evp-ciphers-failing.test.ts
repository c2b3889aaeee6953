/** An OpenSSL that fails in the middle: nothing may leave under a nonce used before, or as plain text. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../../../src/kernel/arena.js';
import { type OpenSsl, openSsls } from '../../../src/kernel/ffi.js';
import { cipherSuite } from '../../../src/tunnel/evp-ciphers.js';

const LENGTH = 100;
const FAILURES = {
  'takes no nonce': { EVP_CipherInit_ex: 0 },
  'encrypts nothing': { EVP_Cipher: -1 },
  'does not end': { EVP_CipherFinal_ex: 0 },
  'has no tag': { EVP_CIPHER_CTX_get_params: 0 },
} satisfies Record<string, Partial<Record<keyof OpenSsl, number>>>;

for (const [what, failure] of Object.entries(FAILURES)) {
  test(`OpenSSL ${what}: sealing throws`, () => {
    const [real] = openSsls();
    assert.ok(real);
    let isBroken = false;
    const broken = { ...real };
    for (const [name, result] of Object.entries(failure) as [Exclude<keyof OpenSsl, 'name'>, number][]) {
      const right = real[name] as (...words: number[]) => number;
      broken[name] = ((...words: number[]) => (isBroken ? result : right(...words))) as never;
    }
    const arena = new Arena(1 << 16);
    const suite = cipherSuite(arena, [broken]);
    assert.equal(suite.name, real.name);
    const at = arena.reserve(LENGTH + 16);
    const sealer = suite.forKey(new Uint8Array(32).fill(7), 'seal');
    sealer.seal(0, 0, at, LENGTH, at);
    isBroken = true;
    assert.throws(() => sealer.seal(1, 0, at, LENGTH, at), /OpenSSL/);
  });
}

/**
 * OpenSSL's ChaCha20-Poly1305 through FFI, compared with RFC 8439, with @noble/ciphers and with node:crypto. A wrong call here does
 * not throw but writes somewhere: so memory around what is written is looked at as well.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chacha20poly1305 } from '@noble/ciphers/chacha.js';
import { Arena } from '../../../src/kernel/arena.js';
import { type OpenSsl, openSsls } from '../../../src/kernel/ffi.js';
import { cipherSuite } from '../../../src/tunnel/evp-ciphers.js';
import { type CipherSuite, nodeCipherSuite } from '../../../src/tunnel/wireguard/cipher-suite.js';
import { payloadOf } from './lib/packets.js';

const key = Uint8Array.from({ length: 32 }, (_, index) => index);
const arena = new Arena(1 << 18);
const candidates = openSsls();
const suites: CipherSuite[] = [...candidates.map((each) => cipherSuite(arena, [each])), nodeCipherSuite(arena.memory)];
const [PLAIN, SEALED, OPENED] = [arena.reserve(4096), arena.reserve(4096), arena.reserve(4096)];
const TAG_BYTES = 16;
const { memory } = arena;

/** What is sealed under the 64-bit counter, by @noble/ciphers. */
function expected(counter: bigint, plain: Uint8Array, by: Uint8Array = key): Buffer {
  const nonce = Buffer.alloc(12);
  nonce.writeBigUInt64LE(counter, 4);
  return Buffer.from(chacha20poly1305(by, nonce).encrypt(plain));
}

const bytesAt = (at: number, length: number) => Buffer.from(memory.slice(at, at + length));

test('there is an OpenSSL here, and each one that can be loaded is right', (t) => {
  assert.ok(candidates.length > 0);
  assert.deepEqual(
    suites.map(({ name }) => name),
    [...candidates.map(({ name }) => name), 'node:crypto'],
  );
  t.diagnostic(suites.map(({ name }) => name).join(', '));
  assert.equal(cipherSuite(arena).name, candidates[0]?.name, 'the first is the best');
});

for (const suite of suites) {
  test(`${suite.name}: RFC 8439, section 2.4.2, whose nonce is four zero bytes and a counter as WireGuard has it`, () => {
    const plain = Buffer.from(
      "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.",
    );
    const sealed =
      '6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b' +
      'f91b65c5524733ab8f593dabcd62b3571639d624e65152ab8f530c359f0861d8' +
      '07ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736' +
      '5af90bbf74a35be6b40b8eedf2785e42874d';
    memory.set(plain, PLAIN);
    suite.forKey(key, 'seal').seal(0x4a00_0000, 0, PLAIN, plain.length, SEALED);
    assert.equal(bytesAt(SEALED, plain.length).toString('hex'), sealed);
  });

  test(`${suite.name}: every length from 0 to 2000, from one place to another and in place`, () => {
    const [sealer, opener] = [suite.forKey(key, 'seal'), suite.forKey(key, 'open')];
    const content = payloadOf(2000);
    for (let length = 0; length <= 2000; length++) {
      const plain = content.subarray(0, length);
      const right = expected(BigInt(length), plain);
      for (const to of [SEALED, PLAIN]) {
        memory
          .fill(0x5a, PLAIN, PLAIN + 2100)
          .fill(0x5a, SEALED, SEALED + 2100)
          .fill(0x5a, OPENED, OPENED + 2100);
        memory.set(plain, PLAIN);
        sealer.seal(length, 0, PLAIN, length, to);
        assert.ok(bytesAt(to, length + TAG_BYTES).equals(right), `sealing ${length} bytes`);
        assert.equal(memory[to + length + TAG_BYTES], 0x5a, 'nothing behind the tag');
        if (to !== PLAIN) assert.ok(bytesAt(PLAIN, length).equals(plain), 'the packet is as it was');
        const from = to === PLAIN ? PLAIN : OPENED;
        assert.equal(opener.open(length, 0, to, length + TAG_BYTES, from), true, `opening ${length} bytes`);
        assert.ok(bytesAt(from, length).equals(plain), `opened ${length} bytes`);
        if (from === OPENED) {
          assert.equal(memory[OPENED + length], 0x5a, 'nothing behind the packet');
          assert.ok(bytesAt(to, length + TAG_BYTES).equals(right), 'the datagram is as it was');
        }
      }
    }
    for (const cipher of [sealer, opener]) cipher.destroy();
  });

  test(`${suite.name}: counters of 64 bits, in any order`, () => {
    const [sealer, opener] = [suite.forKey(key, 'seal'), suite.forKey(key, 'open')];
    const plain = payloadOf(100);
    const counters = [
      0n,
      1n,
      0xffff_ffffn,
      2n ** 32n,
      2n ** 32n + 1n,
      2n ** 53n + 1n,
      2n ** 63n,
      2n ** 64n - 1n,
      5n,
      5n,
    ];
    for (const counter of counters) {
      const [low, high] = [Number(counter & 0xffff_ffffn), Number(counter >> 32n)];
      memory.set(plain, PLAIN);
      sealer.seal(low, high, PLAIN, 100, SEALED);
      assert.ok(bytesAt(SEALED, 116).equals(expected(counter, plain)), `${counter}`);
      for (const [otherLow, otherHigh] of [[low ^ 1, high] as const, [low, high ^ 1] as const]) {
        assert.equal(opener.open(otherLow >>> 0, otherHigh >>> 0, SEALED, 116, OPENED), false);
      }
      assert.equal(opener.open(low, high, SEALED, 116, OPENED), true);
    }
  });

  test(`${suite.name}: a bit that is wrong anywhere, or a byte too few, is refused; what is right still opens afterwards`, () => {
    const [sealer, opener] = [suite.forKey(key, 'seal'), suite.forKey(key, 'open')];
    for (const length of [0, 1, 63, 64, 200]) {
      memory.set(payloadOf(length), PLAIN);
      sealer.seal(9, 9, PLAIN, length, SEALED);
      const whole = length + TAG_BYTES;
      for (let bit = 0; bit < whole * 8; bit++) {
        const at = SEALED + (bit >> 3);
        memory[at] = (memory[at] as number) ^ (1 << (bit & 7));
        assert.equal(opener.open(9, 9, SEALED, whole, OPENED), false, `bit ${bit} of ${length} bytes`);
        memory[at] = (memory[at] as number) ^ (1 << (bit & 7));
      }
      if (length > 0) assert.equal(opener.open(9, 9, SEALED, whole - 1, OPENED), false);
      assert.equal(opener.open(9, 9, SEALED, whole, OPENED), true);
      assert.ok(bytesAt(OPENED, length).equals(Buffer.from(payloadOf(length))));
    }
  });

  test(`${suite.name}: what is shorter than a tag is nothing, and nothing is written`, () => {
    const opener = suite.forKey(key, 'open');
    memory.fill(0x5a, SEALED, SEALED + 100).fill(0x5a, OPENED, OPENED + 100);
    const before = memory.slice(PLAIN);
    for (let length = 0; length < TAG_BYTES; length++) {
      assert.equal(opener.open(0, 0, SEALED, length, OPENED), false);
      assert.ok(Buffer.from(memory.subarray(PLAIN)).equals(before), `${length} bytes`);
    }
  });

  test(`${suite.name}: keys are copied, are each their own, and leave nothing of themselves in memory`, () => {
    const keys = [11, 12, 13].map((seed) => payloadOf(32, seed));
    const given = keys.map((each) => each.slice());
    const ciphers = given.map((each) => [suite.forKey(each, 'seal'), suite.forKey(each, 'open')] as const);
    for (const each of given) each.fill(0);
    memory.set(payloadOf(50), PLAIN);
    for (let round = 0; round < 3; round++) {
      for (const [index, [sealer, opener]] of ciphers.entries()) {
        sealer.seal(round, 0, PLAIN, 50, SEALED);
        assert.ok(bytesAt(SEALED, 66).equals(expected(BigInt(round), payloadOf(50), keys[index] ?? key)));
        for (const [other, [, wrong]] of ciphers.entries()) {
          if (other !== index) assert.equal(wrong.open(round, 0, SEALED, 66, OPENED), false);
        }
        assert.equal(opener.open(round, 0, SEALED, 66, OPENED), true);
      }
    }
    for (const each of keys) assert.equal(Buffer.from(memory.buffer).includes(Buffer.from(each)), false);
  });

  test(`${suite.name}: a destroyed key seals and opens nothing, and the others go on`, () => {
    const [sealer, opener, other] = [suite.forKey(key, 'seal'), suite.forKey(key, 'open'), suite.forKey(key, 'open')];
    memory.set(payloadOf(50), PLAIN);
    sealer.seal(1, 0, PLAIN, 50, SEALED);
    for (const cipher of [sealer, opener, opener]) cipher.destroy();
    const before = memory.slice(PLAIN);
    assert.throws(() => sealer.seal(2, 0, PLAIN, 50, OPENED), /destroyed/);
    assert.throws(() => opener.open(1, 0, SEALED, 66, OPENED), /destroyed/);
    assert.ok(Buffer.from(memory.subarray(PLAIN)).equals(before));
    assert.equal(other.open(1, 0, SEALED, 66, OPENED), true);
  });
}

test('a library that does anything wrong is passed over for the next', (t) => {
  const [good] = candidates;
  assert.ok(good);
  const wrong: Record<string, Partial<OpenSsl>> = {
    'has no such cipher': { EVP_chacha20_poly1305: () => 0 },
    'refuses the key': { EVP_CipherInit_ex: () => 0 },
    'does not encrypt': { EVP_Cipher: () => 0 },
    'makes no tag': { EVP_CIPHER_CTX_get_params: () => 1 },
    'opens everything': { EVP_CipherFinal_ex: () => 1 },
    'opens nothing': { EVP_CipherFinal_ex: () => 0 },
    'looks at no tag': { EVP_CIPHER_CTX_set_params: () => 1 },
    'forgets the nonce': {
      EVP_CipherInit_ex: (context, cipher, engine, at, nonce, encrypt) =>
        good.EVP_CipherInit_ex(context, cipher, engine, at, nonce === 0 ? 0 : arena.address + OPENED, encrypt),
    },
    'has a function less': {
      EVP_CIPHER_CTX_new: () => {
        throw new Error('not there');
      },
    },
  };
  for (const [what, part] of Object.entries(wrong)) {
    const broken: OpenSsl = { ...good, ...part, name: `one that ${what}` };
    const own = new Arena(8192);
    assert.equal(cipherSuite(own, [broken, good]).name, good.name, what);
    assert.equal(cipherSuite(own, [broken]).name, 'node:crypto', what);
    t.diagnostic(what);
  }
  assert.equal(cipherSuite(new Arena(1024), []).name, 'node:crypto');
});

test('contexts are freed: 80,000 keys leave no megabytes behind', () => {
  const [first] = suites;
  assert.ok(first);
  const round = () => {
    for (let count = 0; count < 20_000; count++) first.forKey(key, 'seal').destroy();
  };
  round();
  const before = process.memoryUsage.rss();
  for (let rounds = 0; rounds < 4; rounds++) round();
  const grown = (process.memoryUsage.rss() - before) / 2 ** 20;
  // A context has some 500 bytes and more: 80,000 of them would be 40 MiB.
  assert.ok(grown < 25, `${grown} MiB`);
});

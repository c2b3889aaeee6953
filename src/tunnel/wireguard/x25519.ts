/**
 * X25519 (RFC 7748) by node:crypto, for raw keys of 32 bytes.
 *
 * A private key is imported as PKCS #8 and not as JWK, which would be faster (22 instead of 310 µs): a JWK is a string, and
 * strings cannot be zeroed. Who uses a key often imports it once, with importPrivateKey(). OpenSSL zeroes the memory behind
 * a KeyObject when it is collected as garbage.
 *
 * Keys never come from node:crypto's generateKeyPair() or generateKeyPairSync(), though those are faster. In Node 20 the job
 * that made a key locks the key's mutex when it is collected as garbage; export() holds that mutex while it allocates, and an
 * allocation may collect the job: the thread then waits for itself, for ever. Rare, once in some ten thousand keys, but then
 * the VPN is gone.
 */
import { createPrivateKey, createPublicKey, diffieHellman, type KeyObject, randomFillSync } from 'node:crypto';
import { KEY_BYTES } from './constants.js';

/** RFC 8410: OneAsymmetricKey, version 0, id-X25519, an OCTET STRING in an OCTET STRING; the 32 bytes follow. */
const PKCS8_HEADER = Uint8Array.of(0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 4, 0x22, 4, 0x20);

/** A pair as handshakes want it. */
export interface KeyPair {
  readonly privateKey: KeyObject;
  readonly publicKey: Uint8Array;
}

/** 32 random bytes, clamped as `wg genkey` prints them. */
export function generatePrivateKey(): Uint8Array {
  const key = randomFillSync(new Uint8Array(KEY_BYTES));
  key[0] = (key[0] as number) & 0xf8;
  key[31] = ((key[31] as number) & 0x7f) | 0x40;
  return key;
}

export function publicKeyOf(privateKey: Uint8Array): Uint8Array {
  return keyPairOf(privateKey).publicKey;
}

/** @param rawPrivateKey 32 bytes, the caller's to zero. */
export function keyPairOf(rawPrivateKey: Uint8Array): KeyPair {
  const privateKey = importPrivateKey(rawPrivateKey);
  const { x = '' } = createPublicKey(privateKey).export({ format: 'jwk' });
  return { privateKey, publicKey: Uint8Array.from(Buffer.from(x, 'base64url')) };
}

/** A pair that lives for one handshake: only OpenSSL still has the private key. */
export function generateKeyPair(): KeyPair {
  const raw = generatePrivateKey();
  try {
    return keyPairOf(raw);
  } finally {
    raw.fill(0);
  }
}

/** Any 32 bytes are a private key: RFC 7748 clamps them before use. */
export function importPrivateKey(raw: Uint8Array): KeyObject {
  requireKey(raw);
  // alloc() never takes memory from Buffer's pool, which everybody shares.
  const der = Buffer.alloc(PKCS8_HEADER.length + KEY_BYTES);
  der.set(PKCS8_HEADER);
  der.set(raw, PKCS8_HEADER.length);
  try {
    return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  } finally {
    der.fill(0);
  }
}

/**
 * The 32 bytes both sides have; undefined when they are all zero, which is what a public key of low order gives (RFC 7748,
 * section 6.1): anybody could compute such a "secret". The caller zeroes them.
 */
export function sharedSecret(privateKey: Uint8Array | KeyObject, publicKey: Uint8Array): Uint8Array | undefined {
  requireKey(publicKey);
  const own = privateKey instanceof Uint8Array ? importPrivateKey(privateKey) : privateKey;
  const x = Buffer.from(publicKey.buffer, publicKey.byteOffset, KEY_BYTES).toString('base64url');
  const other = createPublicKey({ key: { kty: 'OKP', crv: 'X25519', x }, format: 'jwk' });
  try {
    return plain(diffieHellman({ privateKey: own, publicKey: other }));
  } catch {
    // OpenSSL's only failure here: it checks for the all-zero result itself, in constant time.
    return undefined;
  }
}

function requireKey(key: Uint8Array): void {
  if (key.length !== KEY_BYTES) throw new RangeError(`an X25519 key has ${KEY_BYTES} bytes, not ${key.length}`);
}

/** A view as a plain Uint8Array of what a Buffer alone owns. */
function plain(buffer: Buffer): Uint8Array {
  return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.length);
}

/**
 * HASH, HMAC and KDF of the WireGuard paper (section 5.4): BLAKE2s-256 (RFC 7693), HMAC (RFC 2104) over it, and HKDF (RFC 5869)
 * with the chaining key as salt and no info. By node:crypto. MAC, the keyed BLAKE2s, is in keyed-blake2s.ts.
 */
import { createHash, createHmac } from 'node:crypto';

const ONE = Uint8Array.of(1);
const TWO = Uint8Array.of(2);
const THREE = Uint8Array.of(3);

/** BLAKE2s-256 of the parts, one after the other. */
export function hash(...parts: Uint8Array[]): Uint8Array {
  const context = createHash('blake2s256');
  for (const part of parts) context.update(part);
  return plain(context.digest());
}

export function hmac(key: Uint8Array, ...parts: Uint8Array[]): Uint8Array {
  const context = createHmac('blake2s256', key);
  for (const part of parts) context.update(part);
  return plain(context.digest());
}

export function kdf1(key: Uint8Array, input: Uint8Array): Uint8Array {
  const secret = hmac(key, input);
  const first = hmac(secret, ONE);
  secret.fill(0);
  return first;
}

export function kdf2(key: Uint8Array, input: Uint8Array): [Uint8Array, Uint8Array] {
  const secret = hmac(key, input);
  const first = hmac(secret, ONE);
  const second = hmac(secret, first, TWO);
  secret.fill(0);
  return [first, second];
}

export function kdf3(key: Uint8Array, input: Uint8Array): [Uint8Array, Uint8Array, Uint8Array] {
  const secret = hmac(key, input);
  const first = hmac(secret, ONE);
  const second = hmac(secret, first, TWO);
  const third = hmac(secret, second, THREE);
  secret.fill(0);
  return [first, second, third];
}

/** node:crypto's digests own their memory, so this copies nothing. */
function plain(digest: Buffer): Uint8Array {
  return new Uint8Array(digest.buffer, digest.byteOffset, digest.length);
}

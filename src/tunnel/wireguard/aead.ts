/**
 * AEADs of the messages 1 to 3 (WireGuard paper, section 5.4): ChaCha20-Poly1305 (RFC 8439) by node:crypto for handshakes, where a
 * key seals one message and the nonce is zero, and XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) by @noble/ciphers, which
 * node:crypto has not, for cookies, where the nonce is random. Packets have ciphers of their own (cipher-suite.ts).
 *
 * What is sealed is followed by its tag of 16 bytes. Opening gives undefined when key, nonce, bytes or `associated` are not those
 * it was sealed with.
 */
import { createCipheriv, createDecipheriv } from 'node:crypto';
import { xchacha20poly1305 } from '@noble/ciphers/chacha.js';
import { TAG_BYTES } from './constants.js';

const ALGORITHM = 'chacha20-poly1305';
const OPTIONS = { authTagLength: TAG_BYTES } as const;
const NONCE_0 = new Uint8Array(12);

export function seal(
  key: Uint8Array,
  plain: Uint8Array,
  associated: Uint8Array,
  nonce: Uint8Array = NONCE_0,
): Uint8Array {
  const cipher = createCipheriv(ALGORITHM, key, nonce, OPTIONS);
  cipher.setAAD(associated, { plaintextLength: plain.length });
  const sealed = new Uint8Array(plain.length + TAG_BYTES);
  sealed.set(cipher.update(plain));
  cipher.final();
  sealed.set(cipher.getAuthTag(), plain.length);
  return sealed;
}

export function open(
  key: Uint8Array,
  sealed: Uint8Array,
  associated: Uint8Array,
  nonce: Uint8Array = NONCE_0,
): Uint8Array | undefined {
  const length = sealed.length - TAG_BYTES;
  if (length < 0) return undefined;
  const cipher = createDecipheriv(ALGORITHM, key, nonce, OPTIONS);
  cipher.setAAD(associated, { plaintextLength: length });
  cipher.setAuthTag(sealed.subarray(length));
  const plain = cipher.update(sealed.subarray(0, length));
  try {
    cipher.final();
  } catch {
    plain.fill(0);
    return undefined;
  }
  return new Uint8Array(plain.buffer, plain.byteOffset, plain.length);
}

/** @param nonce 24 bytes. */
export function sealX(key: Uint8Array, nonce: Uint8Array, plain: Uint8Array, associated: Uint8Array): Uint8Array {
  return xchacha20poly1305(key, nonce, associated).encrypt(plain);
}

/** @param nonce 24 bytes. */
export function openX(
  key: Uint8Array,
  nonce: Uint8Array,
  sealed: Uint8Array,
  associated: Uint8Array,
): Uint8Array | undefined {
  const cipher = xchacha20poly1305(key, nonce, associated);
  try {
    return cipher.decrypt(sealed);
  } catch {
    return undefined;
  }
}

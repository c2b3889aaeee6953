/**
 * The SymmetricState of the Noise protocol framework (revision 34, section 5.2) for WireGuard's handshake: the paper's C (chaining
 * key), H (hash of all that was said) and κ (the key of the next sealed field). mixKey() and mixChainingKey() zero the secret that
 * they are given, and every value of C and κ is zeroed when the next takes its place.
 */
import { open, seal } from './aead.js';
import { KEY_BYTES } from './constants.js';
import { hash, kdf1, kdf2, kdf3 } from './hash.js';

const utf8 = new TextEncoder();
const NOTHING = new Uint8Array(0);
const CONSTRUCTION_HASH = hash(utf8.encode('Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s'));
const IDENTIFIER_HASH = hash(CONSTRUCTION_HASH, utf8.encode('WireGuard v1 zx2c4 Jason@zx2c4.com'));

export class SymmetricState {
  chainingKey: Uint8Array;
  hash: Uint8Array;
  #key: Uint8Array = NOTHING;

  private constructor(chainingKey: Uint8Array, hash: Uint8Array) {
    this.chainingKey = chainingKey;
    this.hash = hash;
  }

  /** At the beginning of a handshake with a responder. */
  static start(responderPublicKey: Uint8Array): SymmetricState {
    return new SymmetricState(CONSTRUCTION_HASH.slice(), hash(IDENTIFIER_HASH, responderPublicKey));
  }

  /** Where another one was: copies what it needs. */
  static resume(at: { readonly chainingKey: Uint8Array; readonly hash: Uint8Array }): SymmetricState {
    return new SymmetricState(at.chainingKey.slice(), at.hash);
  }

  mixHash(data: Uint8Array): void {
    this.hash = hash(this.hash, data);
  }

  /** With a preshared key, ephemeral keys go into the chaining key as well (Noise, section 9.2). */
  mixEphemeral(publicKey: Uint8Array): void {
    this.mixHash(publicKey);
    this.#chain(kdf1(this.chainingKey, publicKey));
  }

  mixChainingKey(secret: Uint8Array): void {
    this.#chain(kdf1(this.chainingKey, secret));
    secret.fill(0);
  }

  mixKey(secret: Uint8Array): void {
    const [chainingKey, key] = kdf2(this.chainingKey, secret);
    this.#chain(chainingKey);
    this.#key = key;
    secret.fill(0);
  }

  /** Does not zero it: it is the peer's, for handshakes to come. */
  mixPresharedKey(presharedKey: Uint8Array): void {
    if (presharedKey.length !== KEY_BYTES) throw new RangeError(`a preshared key of ${presharedKey.length} bytes`);
    const [chainingKey, temporary, key] = kdf3(this.chainingKey, presharedKey);
    this.#chain(chainingKey);
    this.mixHash(temporary);
    temporary.fill(0);
    this.#key = key;
  }

  seal(plain: Uint8Array): Uint8Array {
    const sealed = seal(this.#key, plain, this.hash);
    this.#key.fill(0);
    this.mixHash(sealed);
    return sealed;
  }

  open(sealed: Uint8Array): Uint8Array | undefined {
    const plain = open(this.#key, sealed, this.hash);
    this.#key.fill(0);
    if (plain) this.mixHash(sealed);
    return plain;
  }

  /** The initiator's sending key and the responder's. Ends the state. */
  split(): [Uint8Array, Uint8Array] {
    const keys = kdf2(this.chainingKey, NOTHING);
    this.wipe();
    return keys;
  }

  wipe(): undefined {
    this.#chain(NOTHING);
    this.#key.fill(0);
  }

  #chain(next: Uint8Array): void {
    this.chainingKey.fill(0);
    this.chainingKey = next;
  }
}

/**
 * ChaCha20-Poly1305 (RFC 8439) by OpenSSL's EVP interface through FFI, with one context a key: four calls and about 1 µs a
 * packet of 1,400 bytes, a sixth of what node:crypto takes with its object a packet. Without OpenSSL node:crypto does it.
 *
 * EVP_Cipher instead of EVP_EncryptUpdate: for this cipher the same operation without the bookkeeping of blocks.
 */
import type { Arena } from '../kernel/arena.js';
import { type OpenSsl, openSsls } from '../kernel/ffi.js';
import { type CipherSuite, type DataCipher, nodeCipherSuite } from './wireguard/cipher-suite.js';

const OSSL_PARAM_OCTET_STRING = 5;
const TAG_BYTES = 16;
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TWO_TO_32 = 0x1_0000_0000;
/** OSSL_CIPHER_PARAM_AEAD_TAG. */
const TAG_NAME = Buffer.from('tag\0');

/** The fastest there is, tried on a vector before it is trusted. Contexts and nonces live in `arena`, as do all packets. */
export function cipherSuite(arena: Arena, candidates: readonly OpenSsl[] = openSsls()): CipherSuite {
  for (const openSsl of candidates) {
    const suite = new EvpCipherSuite(arena, openSsl);
    if (isRight(suite, arena)) return suite;
  }
  return nodeCipherSuite(arena.memory);
}

class EvpCipherSuite implements CipherSuite {
  readonly name: string;
  readonly memory: Uint8Array;
  readonly #arena: Arena;
  readonly #openSsl: OpenSsl;
  /** Where a key is while OpenSSL copies it. */
  readonly #key: number;
  readonly #tag: TagParameter;
  /** The nonce of the packet in work; behind it, where OpenSSL writes lengths that are known. */
  readonly #nonce: number;

  constructor(arena: Arena, openSsl: OpenSsl) {
    this.name = openSsl.name;
    this.memory = arena.memory;
    this.#arena = arena;
    this.#openSsl = openSsl;
    this.#key = arena.reserve(KEY_BYTES);
    this.#nonce = arena.reserve(NONCE_BYTES + 4);
    this.#tag = new TagParameter(arena);
  }

  forKey(key: Uint8Array, direction: 'seal' | 'open'): DataCipher {
    const evp = this.#openSsl;
    const context = evp.EVP_CIPHER_CTX_new();
    this.memory.set(key, this.#key);
    const at = this.#arena.address + this.#key;
    const done = evp.EVP_CipherInit_ex(context, evp.EVP_chacha20_poly1305(), 0, at, 0, direction === 'seal' ? 1 : 0);
    this.memory.fill(0, this.#key, this.#key + KEY_BYTES);
    if (done !== 1) {
      evp.EVP_CIPHER_CTX_free(context);
      throw new Error(`${this.name}: no ChaCha20-Poly1305`);
    }
    return new EvpDataCipher(evp, context, this.#arena, this.#nonce, this.#tag);
  }
}

class EvpDataCipher implements DataCipher {
  readonly #evp: OpenSsl;
  readonly #base: number;
  readonly #view: DataView;
  readonly #nonce: number;
  readonly #tag: TagParameter;
  #context: number;

  constructor(evp: OpenSsl, context: number, arena: Arena, nonce: number, tag: TagParameter) {
    this.#tag = tag;
    this.#evp = evp;
    this.#context = context;
    this.#base = arena.address;
    this.#view = arena.view;
    this.#nonce = nonce;
  }

  seal(counterLow: number, counterHigh: number, from: number, length: number, to: number): void {
    const evp = this.#evp;
    const context = this.#live();
    const out = this.#base + to;
    this.#start(counterLow, counterHigh);
    // Whatever fails, what is at `to` must not be sent: it may be the plain text.
    const done =
      evp.EVP_Cipher(context, out, this.#base + from, length) === length &&
      evp.EVP_CipherFinal_ex(context, out + length, this.#base + this.#nonce + NONCE_BYTES) === 1 &&
      evp.EVP_CIPHER_CTX_get_params(context, this.#tag.at(out + length)) === 1;
    if (!done) throw new Error('OpenSSL cannot seal');
  }

  open(counterLow: number, counterHigh: number, from: number, length: number, to: number): boolean {
    const evp = this.#evp;
    const context = this.#live();
    const sealed = this.#base + from;
    const bytes = length - TAG_BYTES;
    if (bytes < 0) return false;
    // Before anything is overwritten: `to` may be `from`.
    evp.EVP_CIPHER_CTX_set_params(context, this.#tag.at(sealed + bytes));
    this.#start(counterLow, counterHigh);
    evp.EVP_Cipher(context, this.#base + to, sealed, bytes);
    const end = this.#base + to + bytes;
    return evp.EVP_CipherFinal_ex(context, end, this.#base + this.#nonce + NONCE_BYTES) === 1;
  }

  /** OpenSSL zeroes what it frees (EVP_CIPHER_CTX_free(3)). */
  destroy(): void {
    if (this.#context !== 0) this.#evp.EVP_CIPHER_CTX_free(this.#context);
    this.#context = 0;
  }

  /** Native code would read a null context. */
  #live(): number {
    if (this.#context === 0) throw new Error('this key has been destroyed');
    return this.#context;
  }

  #start(counterLow: number, counterHigh: number): void {
    this.#view.setUint32(this.#nonce + 4, counterLow, true);
    this.#view.setUint32(this.#nonce + 8, counterHigh, true);
    // The context would go on with the nonce that it has.
    if (this.#evp.EVP_CipherInit_ex(this.#context, 0, 0, 0, this.#base + this.#nonce, -1) !== 1) {
      throw new Error('OpenSSL takes no nonce');
    }
  }
}

/**
 * OSSL_PARAM[2] (OSSL_PARAM(3), LP64): the AEAD tag, wherever it is in memory, and the end of the list. EVP_CIPHER_CTX_ctrl would
 * make the same of its arguments, in half as much time again.
 *
 *   0 key  8 data type (4)  16 data  24 data size  32 return size  40
 */
class TagParameter {
  readonly #view: DataView;
  readonly #parameter: number;
  readonly #address: number;

  constructor(arena: Arena) {
    const name = arena.reserve(TAG_NAME.length);
    arena.memory.set(TAG_NAME, name);
    this.#view = arena.view;
    this.#parameter = arena.reserve(80);
    this.#address = arena.address + this.#parameter;
    this.#pointer(this.#parameter, arena.address + name);
    this.#view.setUint32(this.#parameter + 8, OSSL_PARAM_OCTET_STRING, true);
    this.#view.setUint32(this.#parameter + 24, TAG_BYTES, true);
  }

  /** The address of the list, with the tag at the address `tag`. */
  at(tag: number): number {
    this.#pointer(this.#parameter + 16, tag);
    return this.#address;
  }

  #pointer(offset: number, address: number): void {
    this.#view.setUint32(offset, address % TWO_TO_32, true);
    this.#view.setUint32(offset + 4, address / TWO_TO_32, true);
  }
}

/** Seals like node:crypto, opens that, and opens nothing else. */
function isRight(suite: CipherSuite, arena: Arena): boolean {
  const length = 100;
  const at = arena.reserve(512);
  const reference = nodeCipherSuite(arena.memory);
  const key = Uint8Array.from({ length: KEY_BYTES }, (_, index) => index + 0x80);
  const [plain, sealed, expected, opened] = [at, at + 128, at + 256, at + 384];
  arena.memory.fill(0xa5, plain, plain + length);
  try {
    const sealer = suite.forKey(key, 'seal');
    const opener = suite.forKey(key, 'open');
    const right = reference.forKey(key, 'seal');
    right.seal(0xfffffffe, 7, plain, length, expected);
    sealer.seal(0xfffffffe, 7, plain, length, sealed);
    const isEqual = Buffer.compare(arena.bytes(sealed, length + 16), arena.bytes(expected, length + 16)) === 0;
    const isOpened = opener.open(0xfffffffe, 7, sealed, length + 16, opened);
    const isPlain = Buffer.compare(arena.bytes(opened, length), arena.bytes(plain, length)) === 0;
    arena.memory[sealed] = (arena.memory[sealed] ?? 0) ^ 1;
    const isFooled = opener.open(0xfffffffe, 7, sealed, length + 16, opened);
    for (const cipher of [sealer, opener, right]) cipher.destroy();
    return isEqual && isOpened && isPlain && !isFooled;
  } catch {
    return false;
  }
}

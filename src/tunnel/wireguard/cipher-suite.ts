/**
 * ChaCha20-Poly1305 (RFC 8439) of the data path, as the WireGuard paper uses it (section 5.4.6): a nonce of four zero bytes
 * and the 64-bit counter in little-endian, no additional data. Packets stay where they are: a suite belongs to one memory,
 * and everything is said in offsets into it, so that nothing is allocated for a packet.
 *
 * Here: the interface, and the form that every Node has. node:crypto makes an object for each packet, which costs more than
 * the cipher itself; it is for tests and the last resort.
 */
import { createCipheriv, createDecipheriv } from 'node:crypto';

export const TAG_BYTES = 16;
const KEY_BYTES = 32;
const ALGORITHM = 'chacha20-poly1305';
const TAG_LENGTH = { authTagLength: TAG_BYTES };

/** One key, one direction. Offsets are into `CipherSuite.memory`; the counter comes in two unsigned 32-bit halves. */
export interface DataCipher {
  /** Encrypts `length` bytes at `from` to `to` and appends the tag: length + 16 bytes. No overlap unless `from` equals `to`. */
  seal(counterLow: number, counterHigh: number, from: number, length: number, to: number): void;
  /** `length` includes the tag; writes length − 16 bytes. False: not authentic, and what is at `to` then is worthless. */
  open(counterLow: number, counterHigh: number, from: number, length: number, to: number): boolean;
  /** Zeroes the key. Whoever uses the cipher afterwards gets an error, never an encryption under a zero key. */
  destroy(): void;
}

export interface CipherSuite {
  /** Shown in status: 'node' (EVP of the node binary), 'libcrypto.so.3', 'node:crypto'. */
  readonly name: string;
  /** Where packets and datagrams are. */
  readonly memory: Uint8Array;
  /** Copies the key. */
  forKey(key: Uint8Array, direction: 'seal' | 'open'): DataCipher;
}

export function nodeCipherSuite(memory: Uint8Array): CipherSuite {
  return { name: 'node:crypto', memory, forKey: (key) => new NodeCipher(memory, key) };
}

class NodeCipher implements DataCipher {
  readonly #memory: Uint8Array;
  readonly #key = new Uint8Array(KEY_BYTES);
  readonly #nonce = Buffer.alloc(12);
  #destroyed = false;

  constructor(memory: Uint8Array, key: Uint8Array) {
    this.#memory = memory;
    this.#key.set(key);
  }

  seal(counterLow: number, counterHigh: number, from: number, length: number, to: number): void {
    const cipher = createCipheriv(ALGORITHM, this.#key, this.#nonceOf(counterLow, counterHigh), TAG_LENGTH);
    this.#memory.set(cipher.update(this.#memory.subarray(from, from + length)), to);
    cipher.final();
    this.#memory.set(cipher.getAuthTag(), to + length);
  }

  open(counterLow: number, counterHigh: number, from: number, length: number, to: number): boolean {
    const nonce = this.#nonceOf(counterLow, counterHigh);
    const end = from + length - TAG_BYTES;
    if (end < from) return false;
    const decipher = createDecipheriv(ALGORITHM, this.#key, nonce, TAG_LENGTH);
    decipher.setAuthTag(this.#memory.subarray(end, end + TAG_BYTES));
    const plain = decipher.update(this.#memory.subarray(from, end));
    try {
      decipher.final();
    } catch {
      return false;
    }
    this.#memory.set(plain, to);
    return true;
  }

  destroy(): void {
    this.#key.fill(0);
    this.#destroyed = true;
  }

  #nonceOf(counterLow: number, counterHigh: number): Buffer {
    if (this.#destroyed) throw new Error('this key has been destroyed');
    this.#nonce.writeUInt32LE(counterLow, 4);
    this.#nonce.writeUInt32LE(counterHigh, 8);
    return this.#nonce;
  }
}

/**
 * A cipher suite that remembers: it throws when a counter is used twice under one sealing key, and knows which ciphers have
 * not been destroyed. Encrypts as nodeCipherSuite() does.
 */
import assert from 'node:assert/strict';
import {
  type CipherSuite,
  type DataCipher,
  nodeCipherSuite,
  TAG_BYTES,
} from '../../../../../src/tunnel/wireguard/cipher-suite.js';

export class CipherRecord {
  /** Ciphers that were made and not destroyed. */
  live = 0;
  mostLive = 0;
  /** Sealing keys seen. */
  keys = 0;
  readonly #used = new Map<string, Set<bigint>>();

  /** A counter is used under a key; both have not met before. */
  use(key: string, low: number, high: number): void {
    const counters = this.#used.get(key);
    const counter = (BigInt(high) << 32n) | BigInt(low);
    assert.ok(counters, 'a key that was announced');
    assert.equal(counters.has(counter), false, `counter ${counter} twice under one key`);
    counters.add(counter);
  }

  begin(key: string, direction: 'seal' | 'open'): void {
    this.live++;
    this.mostLive = Math.max(this.mostLive, this.live);
    if (direction === 'open') return;
    assert.equal(this.#used.has(key), false, 'a sealing key is made once');
    this.#used.set(key, new Set());
    this.keys++;
  }

  end(key: string): void {
    this.live--;
    // What is destroyed cannot be used again, so that what was used need not be kept.
    this.#used.get(key)?.clear();
  }
}

export function recordingSuite(memory: Uint8Array, record: CipherRecord): CipherSuite {
  const suite = nodeCipherSuite(memory);
  return {
    name: suite.name,
    memory,
    forKey(key, direction) {
      return new RecordingCipher(suite.forKey(key, direction), Buffer.from(key).toString('hex'), direction, record);
    },
  };
}

class RecordingCipher implements DataCipher {
  readonly #cipher: DataCipher;
  readonly #key: string;
  readonly #record: CipherRecord;
  readonly #direction: 'seal' | 'open';
  #isLive = true;

  constructor(cipher: DataCipher, key: string, direction: 'seal' | 'open', record: CipherRecord) {
    this.#cipher = cipher;
    this.#key = key;
    this.#direction = direction;
    this.#record = record;
    record.begin(key, direction);
  }

  seal(low: number, high: number, from: number, length: number, to: number): void {
    assert.equal(this.#direction, 'seal');
    this.#record.use(this.#key, low, high);
    this.#cipher.seal(low, high, from, length, to);
  }

  open(low: number, high: number, from: number, length: number, to: number): boolean {
    assert.equal(this.#direction, 'open');
    assert.ok(length >= TAG_BYTES, 'native code would believe it');
    return this.#cipher.open(low, high, from, length, to);
  }

  destroy(): void {
    assert.ok(this.#isLive, 'a cipher is destroyed once');
    this.#isLive = false;
    this.#record.end(this.#direction === 'seal' ? this.#key : '');
    this.#cipher.destroy();
  }
}

/**
 * Memory that native code is given by address. It is never moved and never freed: an address taken once stays right, also in
 * a call that outlives the object that made it.
 */
import { addressOf } from './ffi.js';

/** Keeps what was handed out from the garbage collector. */
const arenas: Arena[] = [];

export class Arena {
  readonly memory: Uint8Array;
  readonly view: DataView;
  /** Of memory[0]; below 2^53, as every address of a process in user mode is. */
  readonly address: number;
  #used = 0;

  /** `buffer`: never resized or detached, such as that of a WebAssembly.Memory that cannot grow. */
  constructor(buffer: number | ArrayBuffer) {
    this.memory = new Uint8Array(typeof buffer === 'number' ? new ArrayBuffer(buffer) : buffer);
    this.view = new DataView(this.memory.buffer);
    this.address = Number(addressOf(this.memory));
    arenas.push(this);
  }

  /** The offset of a piece of its own, aligned to 64 bytes. */
  reserve(bytes: number): number {
    const offset = this.#used;
    const used = (offset + bytes + 63) & ~63;
    if (used > this.memory.length) throw new RangeError(`arena: ${used} of ${this.memory.length} bytes`);
    this.#used = used;
    return offset;
  }

  /** The bytes of a structure or buffer that is kept here, for calls that want a buffer. */
  bytes(offset: number, length: number): Uint8Array {
    return this.memory.subarray(offset, offset + length);
  }
}

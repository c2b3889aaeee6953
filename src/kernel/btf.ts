/**
 * Where members lie in the running kernel's structs, from its own description of its types (/sys/kernel/btf/vmlinux,
 * Documentation/bpf/btf.rst). Reads struct members of whole bytes and nothing else.
 */
const MAGIC = 0xeb9f;
const HEADER_BYTES = 24;
const TYPE_BYTES = 12;
const MEMBER_BYTES = 12;
const KIND_STRUCT = 4;
const KIND_UNION = 5;
/** Bytes behind struct btf_type, by kind: so many, or so many for each of `vlen`. */
const EXTRA: readonly { fixed?: number; each?: number }[] = [
  {}, // void
  { fixed: 4 }, // INT
  {}, // PTR
  { fixed: 12 }, // ARRAY
  { each: MEMBER_BYTES }, // STRUCT
  { each: MEMBER_BYTES }, // UNION
  { each: 8 }, // ENUM
  {}, // FWD
  {}, // TYPEDEF
  {}, // VOLATILE
  {}, // CONST
  {}, // RESTRICT
  {}, // FUNC
  { each: 8 }, // FUNC_PROTO
  { fixed: 4 }, // VAR
  { each: 12 }, // DATASEC
  {}, // FLOAT
  { fixed: 4 }, // DECL_TAG
  {}, // TYPE_TAG
  { each: 12 }, // ENUM64
];
/** Structs in structs without a name, one in another. */
const MAX_NESTING = 8;

export class Btf {
  readonly #bytes: Buffer;
  readonly #strings: number;
  /** Where each type is, by its id. */
  readonly #types: number[] = [0];

  /** Throws RangeError when the bytes are no BTF, or have a kind of type that is not known here. */
  constructor(bytes: Buffer) {
    if (bytes.length < HEADER_BYTES || bytes.readUInt16LE(0) !== MAGIC) throw new RangeError('no BTF');
    this.#bytes = bytes;
    const headerBytes = bytes.readUInt32LE(4);
    const first = headerBytes + bytes.readUInt32LE(8);
    const end = first + bytes.readUInt32LE(12);
    this.#strings = headerBytes + bytes.readUInt32LE(16);
    if (end > bytes.length || this.#strings + bytes.readUInt32LE(20) > bytes.length)
      throw new RangeError('BTF cut off');
    for (let at = first; at < end; ) {
      this.#types.push(at);
      const extra = EXTRA[this.#kind(at)];
      if (extra === undefined) throw new RangeError(`BTF kind ${this.#kind(at)}`);
      at += TYPE_BYTES + (extra.fixed ?? 0) + (extra.each ?? 0) * this.#count(at);
    }
  }

  /** offsetof(struct, member) in bytes, also through unnamed structs and unions inside; undefined when there is none. */
  offsetOf(struct: string, member: string): number | undefined {
    const bits = this.bitOf(struct, member);
    return bits === undefined || bits % 8 !== 0 ? undefined : bits / 8;
  }

  /** The same in bits, of a bit field too. */
  bitOf(struct: string, member: string): number | undefined {
    const [structName, memberName] = [Buffer.from(`${struct}\0`), Buffer.from(`${member}\0`)];
    for (let id = 1; id < this.#types.length; id++) {
      const at = this.#types[id] as number;
      if (this.#kind(at) !== KIND_STRUCT || !this.#hasText(this.#bytes.readUInt32LE(at), structName)) continue;
      const bits = this.#find(id, memberName, 0);
      if (bits !== undefined) return bits;
    }
    return undefined;
  }

  #find(id: number, member: Buffer, nesting: number): number | undefined {
    const at = this.#types[id];
    if (at === undefined || at === 0 || nesting > MAX_NESTING) return undefined;
    const kind = this.#kind(at);
    if (kind !== KIND_STRUCT && kind !== KIND_UNION) return undefined;
    // With the flag the upper byte is a bit field's width.
    const mask = this.#bytes.readUInt32LE(at + 4) >>> 31 === 1 ? 0xffffff : 0xffffffff;
    for (let index = 0; index < this.#count(at); index++) {
      const entry = at + TYPE_BYTES + index * MEMBER_BYTES;
      const name = this.#bytes.readUInt32LE(entry);
      const offset = (this.#bytes.readUInt32LE(entry + 8) & mask) >>> 0;
      if (name === 0) {
        const inner = this.#find(this.#bytes.readUInt32LE(entry + 4), member, nesting + 1);
        if (inner !== undefined) return offset + inner;
      } else if (this.#hasText(name, member)) return offset;
    }
    return undefined;
  }

  #kind(at: number): number {
    return (this.#bytes.readUInt32LE(at + 4) >>> 24) & 0x1f;
  }

  #count(at: number): number {
    return this.#bytes.readUInt32LE(at + 4) & 0xffff;
  }

  #hasText(offset: number, text: Buffer): boolean {
    const at = this.#strings + offset;
    return (
      at + text.length <= this.#bytes.length && this.#bytes.compare(text, 0, text.length, at, at + text.length) === 0
    );
  }
}

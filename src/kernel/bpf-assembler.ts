/**
 * Assembles BPF programs, one method an instruction, in the notation of the kernel's own listings: `r0` to `r10` are 64 bits
 * wide, `w0` to `w10` their lower halves, a number is an immediate. Documentation/bpf/standardization/instruction-set.rst.
 * It does not check programs: the kernel's verifier does.
 *
 *   new Assembler().move('r0', 1).exit().program()
 */

type Wide = `r${0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10}`;
type Half = `w${0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10}`;
export type Register = Wide | Half;
type Operand = Register | number;

/** Sizes of loads and stores, by their code. */
const SIZE = { u8: 0x10, u16: 0x08, u32: 0x00, u64: 0x18 } as const;
type Size = keyof typeof SIZE;

const ALU = { add: 0x00, sub: 0x10, or: 0x40, and: 0x50, lsh: 0x60, rsh: 0x70, xor: 0xa0, move: 0xb0, arsh: 0xc0 };
const JUMP = { '==': 0x10, '>': 0x20, '>=': 0x30, '!=': 0x50, '<': 0xa0, '<=': 0xb0 } as const;

/** Helper functions, by the numbers of linux/bpf.h. */
const HELPER = {
  map_lookup_elem: 1,
  get_current_uid_gid: 15,
  skb_load_bytes: 26,
  get_current_task: 35,
  get_socket_uid: 47,
  sk_fullsock: 95,
  probe_read_kernel: 113,
  probe_read_kernel_str: 115,
  get_netns_cookie: 122,
  skc_to_tcp_sock: 137,
  skc_to_mptcp_sock: 196,
} as const;

const BPF_PSEUDO_MAP_FD = 1;
const BPF_PSEUDO_CALL = 'r1';

/** A function in a program: what it is called, how many numbers it takes, its first instruction. */
export interface BpfFunction {
  name: string;
  parameters: number;
  at: number;
}

export class Assembler {
  readonly #code: Buffer[] = [];
  readonly #labels = new Map<string, number>();
  readonly #jumps: { at: number; label: string }[] = [];
  readonly #calls: { at: number; label: string }[] = [];
  readonly #functions: BpfFunction[] = [];

  move = this.#alu(ALU.move);
  add = this.#alu(ALU.add);
  sub = this.#alu(ALU.sub);
  and = this.#alu(ALU.and);
  or = this.#alu(ALU.or);
  xor = this.#alu(ALU.xor);
  shiftLeft = this.#alu(ALU.lsh);
  shiftRight = this.#alu(ALU.rsh);
  /** Keeps the sign. */
  shiftRightSigned = this.#alu(ALU.arsh);

  /** A 64-bit constant. */
  constant(dst: Wide, value: bigint): this {
    return this.#wide(dst, 0, value);
  }

  /** The map behind a descriptor, which has to stay open until the program is loaded. */
  map(dst: Wide, fd: number): this {
    return this.#wide(dst, BPF_PSEUDO_MAP_FD, BigInt(fd));
  }

  /** dst = the memory at base + offset, upper bits zero. */
  load(size: Size, dst: Wide, base: Wide, offset: number): this {
    return this.#emit(0x61 | SIZE[size], dst, base, offset, 0);
  }

  /** The memory at base + offset = value; an immediate is sign-extended to 64 bits. */
  store(size: Size, base: Wide, offset: number, value: Wide | number): this {
    if (typeof value === 'number') return this.#emit(0x62 | SIZE[size], base, undefined, offset, value);
    return this.#emit(0x63 | SIZE[size], base, value, offset, 0);
  }

  /** Jumps to the label when the comparison (unsigned) holds; a `w` on the left compares 32 bits. */
  jumpIf(left: Register, comparison: keyof typeof JUMP, right: Operand, label: string): this {
    const group = left.startsWith('w') ? 0x06 : 0x05;
    this.#jumps.push({ at: this.#code.length, label });
    return this.#operate(group | JUMP[comparison], left, right);
  }

  jump(label: string): this {
    this.#jumps.push({ at: this.#code.length, label });
    return this.#emit(0x05, undefined, undefined, 0, 0);
  }

  label(name: string): this {
    if (this.#labels.has(name)) throw new RangeError(`BPF label ${name} twice`);
    this.#labels.set(name, this.#code.length);
    return this;
  }

  /** Arguments in r1 to r5, which are lost; the result in r0. */
  call(helper: keyof typeof HELPER): this {
    return this.#emit(0x85, undefined, undefined, 0, HELPER[helper]);
  }

  /** Calls a function of this program: arguments and result as with call(), `r6` to `r9` are kept. */
  callFunction(name: string): this {
    this.#calls.push({ at: this.#code.length, label: name });
    return this.#emit(0x85, undefined, BPF_PSEUDO_CALL, 0, 0);
  }

  /** What follows, up to its exit, is a function: the first is the program itself. */
  function(name: string, parameters: number): this {
    this.#functions.push({ name, parameters, at: this.#code.length });
    return this.label(name);
  }

  exit(): this {
    return this.#emit(0x95, undefined, undefined, 0, 0);
  }

  /** struct bpf_insn[], with every jump resolved. */
  program(): Buffer {
    for (const { at, label } of this.#jumps) this.#code[at]?.writeInt16LE(this.#target(label) - at - 1, 2);
    for (const { at, label } of this.#calls) this.#code[at]?.writeInt32LE(this.#target(label) - at - 1, 4);
    return Buffer.concat(this.#code);
  }

  get functions(): readonly BpfFunction[] {
    return this.#functions;
  }

  #target(label: string): number {
    const target = this.#labels.get(label);
    if (target === undefined) throw new RangeError(`no BPF label ${label}`);
    return target;
  }

  #alu(operation: number): (dst: Register, value: Operand) => this {
    return (dst, value) => this.#operate((dst.startsWith('w') ? 0x04 : 0x07) | operation, dst, value);
  }

  #operate(op: number, dst: Register, value: Operand): this {
    if (typeof value === 'number') return this.#emit(op, dst, undefined, 0, value);
    return this.#emit(op | 0x08, dst, value, 0, 0);
  }

  #wide(dst: Wide, source: number, value: bigint): this {
    const low = Number(BigInt.asIntN(32, value));
    const high = Number(BigInt.asIntN(32, value >> 32n));
    this.#emit(0x18, dst, `r${source}` as Wide, 0, low);
    return this.#emit(0, undefined, undefined, 0, high);
  }

  /** op:8 dst:4 src:4 off:16 imm:32. */
  #emit(op: number, dst: Register | undefined, src: Register | undefined, offset: number, immediate: number): this {
    const instruction = Buffer.alloc(8);
    instruction[0] = op;
    instruction[1] = number(dst) | (number(src) << 4);
    instruction.writeInt16LE(offset, 2);
    instruction.writeInt32LE(immediate | 0, 4);
    this.#code.push(instruction);
    return this;
  }
}

function number(register: Register | undefined): number {
  return register === undefined ? 0 : Number(register.slice(1));
}

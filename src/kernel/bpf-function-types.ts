/**
 * The types of a program's functions, in the form the verifier wants to hear them (BTF, Documentation/bpf/btf.rst): every
 * function is global, takes 64-bit numbers and returns one. Only for programs that have functions of their own.
 */
import type { BpfFunction } from './bpf-assembler.js';

const KIND_INT = 1;
const KIND_FUNC = 12;
const KIND_FUNC_PROTO = 13;
/** BTF_FUNC_GLOBAL: verified on its own, for any argument. */
const GLOBAL = 1;
/** Behind the number, a type of arguments and a function come in pairs. */
const FIRST_FUNCTION = 3;

/** The type id of the function with this index. */
export function typeOfFunction(index: number): number {
  return FIRST_FUNCTION + index * 2;
}

export function functionTypes(functions: readonly BpfFunction[]): Buffer {
  let strings = '\0';
  const string = (text: string): number => {
    strings += `${text}\0`;
    return strings.length - text.length - 1;
  };
  // 1: a number of 8 bytes, 64 bits
  const number = [string('u64'), KIND_INT << 24, 8, 64];
  const parameter = [string('x'), 1];
  const types = words(
    ...number,
    ...functions.flatMap(({ name, parameters }, index) => [
      ...[0, (KIND_FUNC_PROTO << 24) | parameters, 1, ...Array(parameters).fill(parameter).flat()],
      ...[string(name), (KIND_FUNC << 24) | GLOBAL, typeOfFunction(index) - 1],
    ]),
  );
  const magicVersionFlags = 0x0001eb9f;
  const headerBytes = 24;
  const header = words(magicVersionFlags, headerBytes, 0, types.length, types.length, strings.length);
  return Buffer.concat([header, types, Buffer.from(strings)]);
}

function words(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  values.forEach((value, index) => {
    bytes.writeUInt32LE(value >>> 0, index * 4);
  });
  return bytes;
}

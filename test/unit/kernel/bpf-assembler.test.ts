import assert from 'node:assert/strict';
import test from 'node:test';
import { socketMarkProgram } from '../../../src/kernel/bpf.js';
import { Assembler } from '../../../src/kernel/bpf-assembler.js';
import { functionTypes, typeOfFunction } from '../../../src/kernel/bpf-function-types.js';

const hex = (code: Assembler): string[] => {
  const bytes = code.program();
  return Array.from({ length: bytes.length / 8 }, (_, index) => bytes.toString('hex', index * 8, index * 8 + 8));
};

test('instructions are encoded as the instruction set says', () => {
  // op, src:4 dst:4, offset (16 bits), immediate (32 bits), little-endian
  assert.deepEqual(hex(new Assembler().move('r1', 'r2').move('w3', 5).add('r10', -8)), [
    'bf21000000000000',
    'b403000005000000',
    '070a0000f8ffffff',
  ]);
  assert.deepEqual(hex(new Assembler().load('u8', 'r1', 'r10', -1).load('u64', 'r2', 'r1', 16)), [
    '71a1ffff00000000',
    '7912100000000000',
  ]);
  assert.deepEqual(hex(new Assembler().store('u32', 'r10', -4, 'r7').store('u16', 'r1', 2, -1)), [
    '637afcff00000000',
    '6a010200ffffffff',
  ]);
  assert.deepEqual(
    hex(new Assembler().shiftRightSigned('r2', 63).shiftLeft('r2', 8).shiftRight('w2', 8).xor('r0', 'r1')),
    ['c70200003f000000', '6702000008000000', '7402000008000000', 'af10000000000000'],
  );
  assert.deepEqual(
    hex(new Assembler().constant('r1', 0x1122334455667788n).map('r2', 9).call('get_current_task').exit()),
    [
      '1801000088776655',
      '0000000044332211',
      '1812000009000000',
      '0000000000000000',
      '8500000023000000',
      '9500000000000000',
    ],
  );
});

test('jumps and calls reach their labels, forwards and backwards', () => {
  const code = new Assembler();
  code.label('start').jumpIf('r1', '==', 'r2', 'end').jumpIf('w1', '!=', 7, 'start').jump('end').callFunction('f');
  code.label('end').exit().function('f', 2).exit();
  assert.deepEqual(hex(code), [
    '1d21030000000000',
    '5601feff07000000',
    '0500010000000000',
    '8510000001000000',
    '9500000000000000',
    '9500000000000000',
  ]);
  assert.deepEqual(code.functions, [{ name: 'f', parameters: 2, at: 5 }]);
});

test('a label that is missing or there twice is refused', () => {
  assert.throws(() => new Assembler().jump('nowhere').program(), /no BPF label nowhere/);
  assert.throws(() => new Assembler().callFunction('nowhere').program(), /no BPF label nowhere/);
  assert.throws(() => new Assembler().label('here').label('here'), /BPF label here twice/);
});

test('socketMarkProgram() compares namespace, uid and field before it marks', () => {
  const program = socketMarkProgram({
    mark: 0x41000000,
    mask: 0x7f000000,
    uid: 2001,
    overwrite: false,
    netnsCookie: 0x8000000000000005n,
  });
  // As `bpftool prog dump xlated` lists it.
  assert.deepEqual(program.toString('hex').match(/.{16}/g), [
    'bf16000000000000', // r6 = r1
    '850000007a000000', // call bpf_get_netns_cookie
    '1801000005000000', // r1 = 0x8000000000000005
    '0000000000000080',
    '5d100b0000000000', // if r0 != r1 goto +11
    '850000000f000000', // call bpf_get_current_uid_gid
    '56000900d1070000', // if w0 != 2001 goto +9
    '6162100000000000', // r2 = *(u32 *)(r6 +16)
    'bc23000000000000', // w3 = w2
    '540300000000007f', // w3 &= 0x7f000000
    '5603050000000000', // if w3 != 0 goto +5
    '61610c0000000000', // r1 = *(u32 *)(r6 +12)
    '1601050006010000', // if w1 == 262 goto +5
    '54020000ffffff80', // w2 &= 0x80ffffff
    '4402000000000041', // w2 |= 0x41000000
    '6326100000000000', // *(u32 *)(r6 +16) = r2
    'b700000001000000', // r0 = 1
    '9500000000000000', // exit
    'b700000000000000', // r0 = 0
    '9500000000000000', // exit
  ]);
  const misfit = { mark: 0x80000000, mask: 0x7f000000, overwrite: true, netnsCookie: 1n };
  assert.throws(() => socketMarkProgram(misfit), /mark 0x80000000 outside mask/);
});

test('functionTypes() describes each function with its parameters', () => {
  const functions = [
    { name: 'main', parameters: 1, at: 0 },
    { name: 'find', parameters: 2, at: 9 },
  ];
  const bytes = functionTypes(functions);
  const words = Array.from({ length: 6 }, (_, index) => bytes.readUInt32LE(index * 4));
  const [, header = 0, , typesLength = 0, stringsAt = 0, stringsLength] = words;
  assert.equal(words[0], 0x0001eb9f);
  assert.equal(bytes.length, header + stringsAt + (stringsLength ?? 0));
  assert.equal(typesLength, 16 + 2 * (12 + 12) + 3 * 8);
  assert.equal(bytes.toString('latin1', header + stringsAt), '\0u64\0x\0main\0find\0');
  assert.deepEqual(
    functions.map((_, index) => typeOfFunction(index)),
    [3, 5],
  );
});

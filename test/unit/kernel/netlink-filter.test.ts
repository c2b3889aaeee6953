/** The filters, run by an interpreter of the few instructions they have (Documentation/networking/filter.rst). */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { changesOfOthers, routesOfTable } from '../../../src/kernel/netlink-filter.js';

const NEWLINK = 16;
const ROUTES = [24, 25];
const RULES = [32, 33];
const COMPAT = 252;

function takes(program: Buffer, message: Buffer): boolean {
  let accumulator = 0;
  for (let at = 0; at + 8 <= program.length; at += 8) {
    const [code, jt, jf, k] = [
      program.readUInt16LE(at),
      program[at + 2],
      program[at + 3],
      program.readUInt32LE(at + 4),
    ];
    if (code === 0x20) accumulator = message.readUInt32BE(k);
    else if (code === 0x28) accumulator = message.readUInt16BE(k);
    else if (code === 0x30) accumulator = message.readUInt8(k);
    else if (code === 0x15) at += 8 * ((accumulator === k ? jt : jf) ?? 0);
    else if (code === 0x06) return k !== 0;
    else assert.fail(`code ${code}`);
  }
  return assert.fail('the program has no end');
}

function message(type: number, portId: number, table = 0): Buffer {
  const bytes = Buffer.alloc(28);
  bytes.writeUInt16LE(type, 4);
  bytes.writeUInt32LE(portId, 12);
  bytes[20] = table;
  return bytes;
}

test('of routes only those of one table are taken', () => {
  for (const type of ROUTES) {
    assert.equal(takes(routesOfTable(254), message(type, 1, 254)), true);
    for (const table of [0, 252, 253, 255]) assert.equal(takes(routesOfTable(254), message(type, 1, table)), false);
  }
});

test('changes that one of our sockets made are dropped, all others taken', () => {
  const port = fc.integer({ min: 1, max: 0xffffffff });
  fc.assert(
    fc.property(fc.uniqueArray(port, { maxLength: 64 }), port, (ports, stranger) => {
      const filter = changesOfOthers(ports, COMPAT);
      for (const portId of [0, stranger, ...ports]) {
        const isOwn = ports.includes(portId);
        for (const type of ROUTES) {
          assert.equal(takes(filter, message(type, portId, COMPAT)), !isOwn);
          assert.equal(takes(filter, message(type, portId, 254)), false);
        }
        for (const type of RULES) assert.equal(takes(filter, message(type, portId)), !isOwn);
        assert.equal(takes(filter, message(NEWLINK, portId)), true);
      }
    }),
  );
  assert.throws(() => changesOfOthers(Array(65).fill(1), COMPAT), RangeError);
});

/** The filters, run by an interpreter of the few instructions they have (Documentation/networking/filter.rst). */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { changesOfOthers, routesOfTable, routesOfTables } from '../../../src/kernel/netlink-filter.js';

const NEWLINK = 16;
const ROUTES = [24, 25];
const RULES = [32, 33];
const COMPAT = 252;

/** bpf_skb_get_nlattr(): from an offset on, by its type; 0 for none. */
function attributeAt(message: Buffer, from: number, type: number): number {
  for (let at = from; at + 4 <= message.length; at += (message.readUInt16LE(at) + 3) & ~3) {
    if (message.readUInt16LE(at + 2) === type) return at;
  }
  return 0;
}

function takes(program: Buffer, message: Buffer): boolean {
  let accumulator = 0;
  let index = 0;
  for (let at = 0; at + 8 <= program.length; at += 8) {
    const [code, jt, jf, k] = [
      program.readUInt16LE(at),
      program[at + 2],
      program[at + 3],
      program.readUInt32LE(at + 4),
    ];
    if (code === 0x20 && k === 0xfffff00c) accumulator = attributeAt(message, accumulator, index);
    else if (code === 0x00) accumulator = k;
    else if (code === 0x01) index = k;
    else if (code === 0x07) index = accumulator;
    else if (code === 0x40) accumulator = message.readUInt32BE(index + k);
    else if (code === 0x20) accumulator = message.readUInt32BE(k);
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

/** A route's notification with these attributes behind the header. */
function routeMessage(attributes: readonly [type: number, value: number][]): Buffer {
  const tail = attributes.map(([type, value]) => {
    const bytes = Buffer.alloc(8);
    bytes.writeUInt16LE(8, 0);
    bytes.writeUInt16LE(type, 2);
    bytes.writeUInt32LE(value, 4);
    return bytes;
  });
  return Buffer.concat([message(24, 1, COMPAT), ...tail]);
}

const RTA_OIF = 4;
const RTA_TABLE = 15;
const RTA_MULTIPATH = 9;

test('of watched tables all routes are taken, of quiet ones only those by links that are not known', () => {
  const number = fc.integer({ min: 1, max: 0xffffffff });
  const numbers = fc.uniqueArray(number, { maxLength: 32 });
  const inputs = fc.property(numbers, numbers, numbers, number, number, (loud, some, links, table, link) => {
    const quiet = some.filter((each) => !loud.includes(each));
    const filter = routesOfTables(new Set(loud), new Set(quiet), new Set(links));
    for (const each of [table, ...loud, ...quiet]) {
      for (const oif of [link, ...links]) {
        const isNews = loud.includes(each) || (quiet.includes(each) && !links.includes(oif));
        const route = routeMessage([
          [RTA_TABLE, each],
          [1, table],
          [RTA_OIF, oif],
        ]);
        assert.equal(takes(filter, route), isNews, `table ${each} by ${oif}`);
      }
      // Of several links, or of none.
      const isWatched = loud.includes(each) || quiet.includes(each);
      const several = routeMessage([
        [RTA_MULTIPATH, link],
        [RTA_TABLE, each],
      ]);
      assert.equal(takes(filter, several), isWatched);
    }
    assert.equal(takes(filter, message(24, 1, COMPAT)), false, 'without a table');
  });
  fc.assert(inputs);
});

test('more links than a filter has room for are news, more tables an error', () => {
  const many = new Set(Array.from({ length: 100 }, (_, index) => index + 1));
  const filter = routesOfTables(new Set(), new Set([7]), many);
  const by = (link: number) =>
    routeMessage([
      [RTA_TABLE, 7],
      [RTA_OIF, link],
    ]);
  assert.equal(takes(filter, by(64)), false);
  assert.equal(takes(filter, by(65)), true);
  assert.throws(() => routesOfTables(many, new Set(), new Set()), RangeError);
});

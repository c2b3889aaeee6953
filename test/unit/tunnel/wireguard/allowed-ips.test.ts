import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { addressBytes, clearHostBits, type Prefix, prefixContains } from '../../../../src/model/address.js';
import { AllowedIps } from '../../../../src/tunnel/wireguard/allowed-ips.js';
import { parseAllowedIp } from '../../../../src/tunnel/wireguard/device-config.js';
import { heapBytes } from './lib/heap.js';

type Owner = string;

/** The same by the definition: a list of prefixes, of which the longest that contains the address counts. */
class NaiveTable {
  readonly prefixes = new Map<string, { prefix: Prefix; owner: Owner }>();

  insert(prefix: Prefix, owner: Owner): void {
    const key = textOf(prefix);
    if (this.prefixes.get(key)?.owner === owner) return;
    this.prefixes.delete(key);
    this.prefixes.set(key, { prefix, owner });
  }

  remove(prefix: Prefix, owner: Owner): boolean {
    return this.prefixes.get(textOf(prefix))?.owner === owner && this.prefixes.delete(textOf(prefix));
  }

  removeAll(owner: Owner): void {
    for (const [key, each] of this.prefixes) if (each.owner === owner) this.prefixes.delete(key);
  }

  listOf(owner: Owner): string[] {
    return [...this.prefixes].filter(([, each]) => each.owner === owner).map(([key]) => key);
  }

  lookup(address: string): Owner | undefined {
    const holding = [...this.prefixes.values()].filter(({ prefix }) => prefixContains(prefix, address));
    return holding.sort((a, b) => b.prefix.prefixLength - a.prefix.prefixLength)[0]?.owner;
  }
}

const textOf = ({ address, prefixLength }: Prefix): string => `${address}/${prefixLength}`;

function parse(text: string): Prefix {
  const prefix = parseAllowedIp(text);
  assert.ok(prefix, text);
  return prefix;
}

function lookup(table: AllowedIps<Owner>, address: string): Owner | undefined {
  const bytes = addressBytes(address);
  if (bytes.length === 4) {
    const word = new DataView(bytes.buffer).getUint32(0);
    const owner = table.lookup4(word);
    assert.equal(table.lookup4(word | 0), owner, 'signed or not');
    return owner;
  }
  const memory = new Uint8Array(40);
  memory.set(bytes, 13);
  return table.lookup6(memory, 13);
}

/** Addresses that share many of their first bits, so that prefixes nest. */
const address4 = fc
  .integer({ min: 0, max: 255 })
  .chain((last) =>
    fc.constantFrom(`10.0.0.${last}`, `10.0.${last}.1`, `10.${last}.0.0`, `${last}.0.0.0`, `138.0.0.${last}`),
  );
const address6 = fc.integer({ min: 0, max: 0xffff }).chain((group) => {
  const hex = group.toString(16);
  return fc.constantFrom(`2001:db8::${hex}`, `2001:db8:0:${hex}::`, `${hex}::1`, `2001:db8::${hex}:0:0`, `::${hex}`);
});
const prefix = fc
  .oneof(fc.tuple(address4, fc.integer({ min: 0, max: 32 })), fc.tuple(address6, fc.integer({ min: 0, max: 128 })))
  .map(([address, length]): Prefix => ({ address: clearHostBits(address, length), prefixLength: length }));
const owner = fc.constantFrom('alice', 'bob', 'carol');
const operation = fc.oneof(
  { weight: 6, arbitrary: fc.tuple(fc.constant('insert' as const), prefix, owner) },
  { weight: 2, arbitrary: fc.tuple(fc.constant('remove' as const), prefix, owner) },
  { weight: 1, arbitrary: fc.tuple(fc.constant('removeAll' as const), prefix, owner) },
  { weight: 3, arbitrary: fc.tuple(fc.constant('removeKnown' as const), prefix, owner) },
);

test('the trie agrees with a list of prefixes after any sequence of changes', () => {
  fc.assert(
    fc.property(
      fc.array(operation, { maxLength: 60, size: 'max' }),
      fc.array(fc.oneof(address4, address6, fc.ipV4(), fc.ipV6()), { maxLength: 30, size: 'max' }),
      (operations, addresses) => {
        const [table, naive] = [new AllowedIps<Owner>(), new NaiveTable()];
        for (const [kind, prefixOfOperation, of] of operations) {
          if (kind === 'insert') {
            table.insert(prefixOfOperation, of);
            naive.insert(prefixOfOperation, of);
          } else if (kind === 'removeAll') {
            table.removeAll(of);
            naive.removeAll(of);
          } else {
            const known = kind === 'removeKnown' ? [...naive.prefixes.values()][0] : undefined;
            const [target, whose] = known ? [known.prefix, known.owner] : [prefixOfOperation, of];
            assert.equal(table.remove(target, whose), naive.remove(target, whose));
          }
        }
        for (const each of ['alice', 'bob', 'carol']) assert.deepEqual(table.listOf(each), naive.listOf(each));
        const ends = [...naive.prefixes.values()].map((each) => each.prefix.address);
        for (const address of [...addresses, ...ends])
          assert.equal(lookup(table, address), naive.lookup(address), address);
      },
    ),
    { numRuns: 300 },
  );
});

test('the longest prefix wins, and its loss gives the address back to the next longer one', () => {
  const table = new AllowedIps<Owner>();
  for (const [text, whose] of [
    ['0.0.0.0/0', 'alice'],
    ['10.0.0.0/8', 'bob'],
    ['10.1.2.3/32', 'carol'],
  ] as const) {
    table.insert(parse(text), whose);
  }
  assert.deepEqual(
    ['10.1.2.3', '10.1.2.4', '11.0.0.0'].map((each) => lookup(table, each)),
    ['carol', 'bob', 'alice'],
  );
  table.removeAll('bob');
  assert.equal(lookup(table, '10.1.2.4'), 'alice');
  table.removeAll('carol');
  assert.equal(lookup(table, '10.1.2.3'), 'alice');
  table.removeAll('alice');
  assert.equal(lookup(table, '10.1.2.3'), undefined);
});

test('a prefix that is given to another moves there', () => {
  const table = new AllowedIps<Owner>();
  table.insert(parse('10.0.0.0/8'), 'alice');
  table.insert(parse('10.0.0.0/8'), 'bob');
  assert.deepEqual(table.listOf('alice'), []);
  assert.deepEqual(table.listOf('bob'), ['10.0.0.0/8']);
  assert.equal(table.remove(parse('10.0.0.0/8'), 'alice'), false);
  assert.equal(lookup(table, '10.1.1.1'), 'bob');
});

test('the families do not mix, not even for mapped addresses', () => {
  const table = new AllowedIps<Owner>();
  table.insert(parse('0.0.0.0/0'), 'alice');
  assert.equal(lookup(table, '::ffff:10.0.0.1'), undefined);
  table.insert(parse('::/0'), 'bob');
  assert.equal(lookup(table, '::ffff:10.0.0.1'), 'bob');
  assert.equal(lookup(table, '10.0.0.1'), 'alice');
});

/** Prefixes of 32 bits all over the address space. */
const scattered = (count: number): Prefix[] =>
  Array.from({ length: count }, (_, index) => {
    const word = Math.imul(index, 0x9e3779b1) >>> 0;
    return parse(`${word >>> 24}.${(word >>> 16) & 255}.${(word >>> 8) & 255}.${word & 255}/32`);
  });

test('a hundred thousand prefixes come and go', () => {
  const table = new AllowedIps<Owner>();
  const prefixes = scattered(100_000);
  for (const each of prefixes) table.insert(each, 'alice');
  for (const each of prefixes) assert.equal(lookup(table, each.address), 'alice');
  for (const each of prefixes) assert.equal(table.remove(each, 'alice'), true);
  assert.equal(lookup(table, '0.0.0.0'), undefined);
  assert.deepEqual(table.listOf('alice'), []);
});

test('prefixes that are gone leave no nodes behind, taken one by one or all at once', () => {
  const table = new AllowedIps<Owner>();
  const prefixes = scattered(20_000);
  const before = heapBytes();
  for (const owner of ['alice', 'bob']) {
    for (const each of prefixes) table.insert(each, owner);
    if (owner === 'alice') for (const each of prefixes) table.remove(each, owner);
    else table.removeAll(owner);
    const left = heapBytes() - before;
    assert.ok(left < 1_000_000, `${left} bytes`);
  }
});

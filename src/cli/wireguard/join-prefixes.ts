/**
 * The fewest prefixes that cover the same addresses: nested ones are left out, and two neighbours that make up a larger prefix are
 * that one, again and again (CIDR aggregation, RFC 4632, section 5). Lists of a country's networks shrink to a part. Pure.
 */
import { addressBits, addressBytes, addressText, familyOf, type Prefix } from '../../model/address.js';

interface Block {
  /** The first address, as a number. */
  readonly start: bigint;
  readonly length: number;
}

/**
 * Of one family, with clear host bits. In the order in which what is covered is mentioned first.
 *
 * @example joinPrefixes([{ address: '10.0.0.0', prefixLength: 9 }, { address: '10.128.0.0', prefixLength: 9 }]) // 10.0.0.0/8
 */
export function joinPrefixes(prefixes: readonly Prefix[]): Prefix[] {
  const [first] = prefixes;
  if (first === undefined) return [];
  const bits = addressBits(familyOf(first.address));
  const given = prefixes.map(({ address, prefixLength }) => ({ start: numberOf(address), length: prefixLength }));
  const blocks = joined(given, bits);
  const inOrder = new Set(given.map((each) => lastNotAfter(blocks, each.start)));
  return [...inOrder].map(({ start, length }) => ({ address: literalOf(start, bits), prefixLength: length }));
}

/** Those that lie inside another one of them. */
export function nestedPrefixes(prefixes: readonly Prefix[]): Prefix[] {
  const [first] = prefixes;
  if (first === undefined) return [];
  const bits = addressBits(familyOf(first.address));
  const sorted = prefixes
    .map((prefix) => ({ prefix, start: numberOf(prefix.address), length: prefix.prefixLength }))
    .sort(byStart);
  let end = -1n;
  return sorted.flatMap(({ prefix, start, length }) => {
    if (start < end) return prefix;
    end = start + sizeOf(length, bits);
    return [];
  });
}

function joined(given: readonly Block[], bits: number): Block[] {
  const blocks: Block[] = [];
  let end = 0n;
  for (const block of [...given].sort(byStart)) {
    if (blocks.length > 0 && block.start < end) continue;
    end = block.start + sizeOf(block.length, bits);
    let last = block;
    for (let before = blocks.at(-1); before !== undefined && areHalves(before, last, bits); before = blocks.at(-1)) {
      blocks.pop();
      last = { start: before.start, length: before.length - 1 };
    }
    blocks.push(last);
  }
  return blocks;
}

function areHalves(left: Block, right: Block, bits: number): boolean {
  const size = sizeOf(left.length, bits);
  return left.length === right.length && left.start + size === right.start && left.start % (2n * size) === 0n;
}

/** The larger one first. */
function byStart(a: Block, b: Block): number {
  return a.start === b.start ? a.length - b.length : a.start < b.start ? -1 : 1;
}

/** The block that covers `start`: there is one. */
function lastNotAfter(blocks: readonly Block[], start: bigint): Block {
  let low = 0;
  let high = blocks.length;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if ((blocks[middle] as Block).start <= start) low = middle;
    else high = middle;
  }
  return blocks[low] as Block;
}

function sizeOf(length: number, bits: number): bigint {
  return 1n << BigInt(bits - length);
}

function numberOf(address: string): bigint {
  return BigInt(`0x${Buffer.from(addressBytes(address)).toString('hex')}`);
}

function literalOf(start: bigint, bits: number): string {
  return addressText(Buffer.from(start.toString(16).padStart(bits / 4, '0'), 'hex'));
}

/**
 * From routes that go in and routes that stay out, nested as they come, to ranges in which the longest prefix is of one kind: what an nft
 * set can hold, since its intervals must not overlap. Pure.
 */
import { addressBits, addressBytes, familyOf } from '../model/address.js';
import type { Prefix } from './plan-routes.js';

export interface PrefixRanges {
  /** 'first-last', or one address. Addresses as nft reads them. */
  included: string[];
  excluded: string[];
}

interface Span {
  first: bigint;
  last: bigint;
  isIncluded: boolean;
}

/** All prefixes are of one family and no two are equal. */
export function prefixRanges(included: readonly Prefix[], excluded: readonly Prefix[]): PrefixRanges {
  const spans = [...included.map((prefix) => spanOf(prefix, true)), ...excluded.map((prefix) => spanOf(prefix, false))];
  // An outer prefix comes before those inside it.
  spans.sort((a, b) => compare(a.first, b.first) || compare(b.last, a.last));
  const flat: Span[] = [];
  const open: Span[] = [];
  let next = 0n;
  const emit = (last: bigint, isIncluded: boolean): void => {
    if (last < next) return;
    const previous = flat.at(-1);
    if (previous && previous.isIncluded === isIncluded && previous.last + 1n === next) previous.last = last;
    else flat.push({ first: next, last, isIncluded });
    next = last + 1n;
  };
  const close = (): void => {
    const inner = open.pop();
    if (inner) emit(inner.last, inner.isIncluded);
  };
  for (const span of spans) {
    for (let inner = open.at(-1); inner && inner.last < span.first; inner = open.at(-1)) close();
    const outer = open.at(-1);
    if (outer) emit(span.first - 1n, outer.isIncluded);
    next = span.first;
    open.push(span);
  }
  while (open.length > 0) close();
  const bits = addressBits(familyOf((included[0] ?? excluded[0])?.destination ?? ''));
  const texts = (wanted: boolean) =>
    flat
      .filter(({ isIncluded }) => isIncluded === wanted)
      .map(({ first, last }) =>
        first === last ? format(first, bits) : `${format(first, bits)}-${format(last, bits)}`,
      );
  return { included: texts(true), excluded: texts(false) };
}

function spanOf({ destination, prefixLength }: Prefix, isIncluded: boolean): Span {
  const bytes = addressBytes(destination);
  const hostBits = BigInt(bytes.length * 8 - prefixLength);
  const first = (BigInt(`0x${Buffer.from(bytes).toString('hex')}`) >> hostBits) << hostBits;
  return { first, last: first | ((1n << hostBits) - 1n), isIncluded };
}

function format(value: bigint, bits: number): string {
  if (bits === 32) {
    const word = Number(value);
    return [24, 16, 8, 0].map((shift) => (word >>> shift) & 255).join('.');
  }
  const hex = value.toString(16).padStart(32, '0');
  return (hex.match(/.{4}/g) ?? []).map((group) => Number.parseInt(group, 16).toString(16)).join(':');
}

function compare(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/**
 * "Is this address inside one of these prefixes?", asked many times: sorted once, then one binary search a question.
 */
import { addressBytes, clearHostBits, familyOf, type Prefix, prefixContains } from './address.js';
import type { Family } from './vpn-types.js';

interface SortedPrefix extends Prefix {
  /** The first address as hexadecimal text, which sorts like the number within a family. */
  readonly start: string;
}

/** A test for membership in the union of the prefixes. */
export function coverage(prefixes: readonly Prefix[]): (literal: string) => boolean {
  const outermost = outermostByFamily(prefixes);
  return (literal) => {
    const candidate = lastNotAfter(outermost[familyOf(literal)], hexText(literal));
    return candidate !== undefined && prefixContains(candidate, literal);
  };
}

/** Prefixes nest or are disjoint; without the nested ones, only the last that starts before an address can contain it. */
function outermostByFamily(prefixes: readonly Prefix[]): Record<Family, SortedPrefix[]> {
  const sorted = prefixes
    .map(({ address, prefixLength }) => {
      return { address, prefixLength, start: hexText(clearHostBits(address, prefixLength)) };
    })
    .sort((a, b) => (a.start === b.start ? a.prefixLength - b.prefixLength : a.start < b.start ? -1 : 1));
  const outermost: Record<Family, SortedPrefix[]> = { 1: [], 2: [] };
  for (const prefix of sorted) {
    const list = outermost[familyOf(prefix.address)];
    const last = list.at(-1);
    if (last === undefined || !prefixContains(last, prefix.address)) list.push(prefix);
  }
  return outermost;
}

function lastNotAfter(sorted: readonly SortedPrefix[], start: string): SortedPrefix | undefined {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle]?.start ?? '') <= start) low = middle + 1;
    else high = middle;
  }
  return sorted[low - 1];
}

function hexText(literal: string): string {
  return Buffer.from(addressBytes(literal)).toString('hex');
}

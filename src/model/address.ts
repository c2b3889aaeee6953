/**
 * IP literals: the strict gate, one canonical text for each address, and the arithmetic of prefixes. RFC 4291 for the
 * notation, RFC 5952 for the canonical form (hexadecimal throughout, so `::ffff:1.2.3.4` and `::ffff:102:304` are the same
 * text; both are IPv6). No zones, no host names.
 *
 * `literalFamily` and `canonicalAddress` are the guards; every other function trusts its argument to be a literal.
 */
import { isIP } from 'node:net';
import { MAX_ADDRESS_LENGTH } from './limits.js';
import { type Family, IPV4, IPV6 } from './vpn-types.js';

export interface Prefix {
  readonly address: string;
  readonly prefixLength: number;
}

/** The family of a strict literal; undefined for everything else: zones, leading zeros, short forms, blanks. */
export function literalFamily(text: string): Family | undefined {
  if (text.length > MAX_ADDRESS_LENGTH || text.includes('%')) return undefined;
  const version = isIP(text);
  if (version === 4) return IPV4;
  return version === 6 ? IPV6 : undefined;
}

/** The one text of this address: dotted, or compressed lower case. Undefined when it is no strict literal. */
export function canonicalAddress(text: string): string | undefined {
  const family = literalFamily(text);
  if (family === undefined) return undefined;
  return family === IPV4 ? text : clearHostBits(text, 128);
}

export function familyOf(literal: string): Family {
  return literal.includes(':') ? IPV6 : IPV4;
}

/** Length of an address of this family in bits. */
export function addressBits(family: Family): number {
  return family === IPV4 ? 32 : 128;
}

/** The text of 4 or 16 bytes in network byte order; the other way round is `addressBytes`. */
export function addressText(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  const groups = Array.from({ length: 8 }, (_, index) =>
    (((bytes[2 * index] ?? 0) << 8) | (bytes[2 * index + 1] ?? 0)).toString(16),
  );
  return canonicalAddress(groups.join(':')) ?? '::';
}

/** Network byte order: 4 bytes for IPv4, 16 for IPv6. */
export function addressBytes(literal: string): Uint8Array {
  const bytes = new Uint8Array(addressBits(familyOf(literal)) / 8);
  writeAddress(literal, bytes, 0);
  return bytes;
}

/** The same, written to a place in `target`; the number of bytes is returned. */
export function writeAddress(literal: string, target: Uint8Array, offset: number): number {
  if (familyOf(literal) === IPV4) {
    const word = wordOf(literal);
    for (let index = 0; index < 4; index++) target[offset + index] = word >>> (24 - 8 * index);
    return 4;
  }
  const groups = groupsOf(literal);
  for (let index = 0; index < 8; index++) {
    const group = groups[index] ?? 0;
    target[offset + 2 * index] = group >>> 8;
    target[offset + 2 * index + 1] = group;
  }
  return 16;
}

/** The first address of the prefix, canonical. @example clearHostBits('10.1.2.3', 8) // '10.0.0.0' */
export function clearHostBits(literal: string, prefixLength: number): string {
  if (familyOf(literal) === IPV4) return formatWord((wordOf(literal) & netmask(prefixLength)) >>> 0);
  const groups = groupsOf(literal);
  for (let index = prefixLength >>> 4; index < 8; index++) {
    groups[index] = (groups[index] ?? 0) & groupMask(prefixLength - 16 * index);
  }
  return formatGroups(groups);
}

/** False across families: no IPv4 prefix contains an IPv6 literal, mapped or not. */
export function prefixContains(prefix: Prefix, literal: string): boolean {
  if (familyOf(prefix.address) !== familyOf(literal)) return false;
  return clearHostBits(prefix.address, prefix.prefixLength) === clearHostBits(literal, prefix.prefixLength);
}

/**
 * The network and the broadcast address of an IPv4 prefix, which no host can have. Empty for IPv6, for /31 (RFC 3021) and
 * for /32.
 */
export function reservedHosts({ address, prefixLength }: Prefix): readonly string[] {
  if (familyOf(address) === IPV6 || prefixLength > 30) return [];
  const mask = netmask(prefixLength);
  const word = wordOf(address);
  return [formatWord((word & mask) >>> 0), formatWord((word | ~mask) >>> 0)];
}

/** "0.0.0.0" or "::". */
export function isUnspecified(canonical: string): boolean {
  return canonical === '0.0.0.0' || canonical === '::';
}

/**
 * Can one host on a link have this address? Not: unspecified, loopback, multicast, limited broadcast, and IPv4-mapped
 * IPv6, which must not appear on a wire (RFC 6890) and would name an IPv4 host by an IPv6 literal.
 */
export function isHostAddress(canonical: string): boolean {
  if (isUnspecified(canonical) || canonical === '255.255.255.255' || canonical === '::1') return false;
  if (familyOf(canonical) === IPV6) return !canonical.startsWith('ff') && !prefixContains(IPV4_MAPPED, canonical);
  const first = wordOf(canonical) >>> 24;
  return first !== 127 && (first < 224 || first > 239);
}

const IPV4_MAPPED: Prefix = { address: '::ffff:0:0', prefixLength: 96 };

function netmask(prefixLength: number): number {
  // A shift by 32 is a shift by 0 in this language.
  return prefixLength === 0 ? 0 : (-1 << (32 - prefixLength)) >>> 0;
}

/** Mask of one 16-bit group of which `bits` bits (below 0 and above 16 too) belong to the prefix. */
function groupMask(bits: number): number {
  if (bits >= 16) return 0xffff;
  return bits <= 0 ? 0 : (0xffff << (16 - bits)) & 0xffff;
}

function wordOf(dotted: string): number {
  let word = 0;
  let octet = 0;
  for (let index = 0; index < dotted.length; index++) {
    const code = dotted.charCodeAt(index);
    if (code === DOT) {
      word = (word << 8) | octet;
      octet = 0;
    } else {
      octet = octet * 10 + code - ZERO;
    }
  }
  return ((word << 8) | octet) >>> 0;
}

const DOT = 46;
const ZERO = 48;

function formatWord(word: number): string {
  return `${word >>> 24}.${(word >>> 16) & 255}.${(word >>> 8) & 255}.${word & 255}`;
}

/** The eight 16-bit groups of an IPv6 literal, with or without "::" and a dotted end. */
function groupsOf(literal: string): number[] {
  const text = withoutDots(literal);
  const groups = [0, 0, 0, 0, 0, 0, 0, 0];
  let count = 0;
  let group = 0;
  /** How many groups stand before "::". */
  let head = -1;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code !== COLON) {
      group = (group << 4) | hexDigit(code);
      continue;
    }
    if (index > 0 && text.charCodeAt(index - 1) !== COLON) groups[count++] = group;
    else if (index > 0) head = count;
    group = 0;
  }
  if (!text.endsWith(':')) groups[count++] = group;
  if (head !== -1) groups.copyWithin(8 - (count - head), head, count).fill(0, head, 8 - (count - head));
  return groups;
}

const COLON = 58;

/** Of a valid digit: 0..9 are 0x30.., A..F and a..f are 0x41.. and 0x61... */
function hexDigit(code: number): number {
  return (code & 15) + (code >> 6) * 9;
}

function withoutDots(literal: string): string {
  if (!literal.includes('.')) return literal;
  const end = literal.lastIndexOf(':') + 1;
  const word = wordOf(literal.slice(end));
  return `${literal.slice(0, end)}${(word >>> 16).toString(16)}:${(word & 0xffff).toString(16)}`;
}

/** RFC 5952 section 4: no leading zeros, "::" for the longest run of at least two zero groups, the first of equals. */
function formatGroups(groups: readonly number[]): string {
  let start = 8;
  let length = 1;
  let run = 0;
  for (let index = 0; index < 8; index++) {
    run = groups[index] === 0 ? run + 1 : 0;
    if (run > length) {
      length = run;
      start = index + 1 - run;
    }
  }
  let text = '';
  for (let index = 0; index < 8; index++) {
    if (index === start) {
      text += '::';
      index += length - 1;
      continue;
    }
    if (text !== '' && index !== start + length) text += ':';
    text += (groups[index] ?? 0).toString(16);
  }
  return text;
}

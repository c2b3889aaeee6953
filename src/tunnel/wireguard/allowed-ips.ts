/**
 * Cryptokey routing (WireGuard paper, section 2): which peer has an address, by the longest of the prefixes that contain it.
 * Asked with the destination of what goes out and with the source of what comes in. A prefix has one owner; who is given it
 * takes it from whoever had it.
 *
 * One path-compressed binary trie for each family: a node for every prefix and every place where two of them part, so at most
 * twice as many nodes as prefixes. An address is four 32-bit words; IPv4 has it in the first. IPv4-mapped IPv6 is IPv6.
 */
import { addressBytes, familyOf, type Prefix } from '../../model/address.js';
import { IPV4 } from '../../model/vpn-types.js';

class Node<T> {
  /** The prefix, host bits clear. */
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly d: number;
  /** Ones for its bits. */
  readonly maskA: number;
  readonly maskB: number;
  readonly maskC: number;
  readonly maskD: number;
  readonly length: number;
  owner: T | undefined = undefined;
  /** The prefix as text; empty while nobody owns it. */
  text = '';
  /** Below: addresses whose next bit is 0, and 1. */
  zero: Node<T> | undefined = undefined;
  one: Node<T> | undefined = undefined;

  constructor(words: Int32Array, length: number) {
    this.maskA = maskOf(length);
    this.maskB = maskOf(length - 32);
    this.maskC = maskOf(length - 64);
    this.maskD = maskOf(length - 96);
    this.a = word(words, 0) & this.maskA;
    this.b = word(words, 1) & this.maskB;
    this.c = word(words, 2) & this.maskC;
    this.d = word(words, 3) & this.maskD;
    this.length = length;
  }

  contains(a: number, b: number, c: number, d: number): boolean {
    const low = ((a ^ this.a) & this.maskA) | ((b ^ this.b) & this.maskB);
    return (low | ((c ^ this.c) & this.maskC) | ((d ^ this.d) & this.maskD)) === 0;
  }

  get words(): Int32Array {
    return Int32Array.of(this.a, this.b, this.c, this.d);
  }
}

/** `T`: the owner, compared by identity. */
export class AllowedIps<T> {
  #root4: Node<T> | undefined;
  #root6: Node<T> | undefined;
  readonly #owned = new Map<T, Set<Node<T>>>();

  /** Who has this IPv4 address, a number of 32 bits, signed or not. */
  lookup4(address: number): T | undefined {
    let owner: T | undefined;
    let node = this.#root4;
    while (node !== undefined && ((address ^ node.a) & node.maskA) === 0) {
      if (node.owner !== undefined) owner = node.owner;
      if (node.length === 32) break;
      node = (address >>> (31 - node.length)) & 1 ? node.one : node.zero;
    }
    return owner;
  }

  /** Who has the IPv6 address in the 16 bytes at `offset`. */
  lookup6(memory: Uint8Array, offset: number): T | undefined {
    const a = wordAt(memory, offset);
    const b = wordAt(memory, offset + 4);
    const c = wordAt(memory, offset + 8);
    const d = wordAt(memory, offset + 12);
    let owner: T | undefined;
    let node = this.#root6;
    while (node?.contains(a, b, c, d)) {
      if (node.owner !== undefined) owner = node.owner;
      const at = node.length;
      if (at === 128) break;
      const next = at < 64 ? (at < 32 ? a : b) : at < 96 ? c : d;
      node = (next >>> (31 - (at & 31))) & 1 ? node.one : node.zero;
    }
    return owner;
  }

  /** Gives the prefix to `owner`. Its host bits are clear (clearHostBits). */
  insert(prefix: Prefix, owner: T): void {
    const words = wordsOf(prefix);
    const length = prefix.prefixLength;
    const isIpv4 = familyOf(prefix.address) === IPV4;
    if (isIpv4) this.#root4 = this.#inserted(this.#root4, words, length, prefix, owner);
    else this.#root6 = this.#inserted(this.#root6, words, length, prefix, owner);
  }

  /** Takes the prefix from `owner`. False when that is not whose it is. */
  remove(prefix: Prefix, owner: T): boolean {
    const isIpv4 = familyOf(prefix.address) === IPV4;
    const words = wordsOf(prefix);
    let node = isIpv4 ? this.#root4 : this.#root6;
    while (node && node.length < prefix.prefixLength && holds(node, words)) node = next(node, words);
    if (node?.length !== prefix.prefixLength || !holds(node, words) || node.owner !== owner) return false;
    this.#disown(node);
    this.#prune(node, isIpv4);
    return true;
  }

  removeAll(owner: T): void {
    for (const node of [...(this.#owned.get(owner) ?? [])]) {
      const isIpv4 = !node.text.includes(':');
      this.#disown(node);
      this.#prune(node, isIpv4);
    }
  }

  /** The owner's prefixes as text, in the order in which they came. */
  listOf(owner: T): string[] {
    return [...(this.#owned.get(owner) ?? [])].map((node) => node.text);
  }

  #inserted(node: Node<T> | undefined, words: Int32Array, length: number, prefix: Prefix, owner: T): Node<T> {
    if (!node) return this.#own(new Node<T>(words, length), prefix, owner);
    const common = commonBits(node, words, Math.min(node.length, length));
    if (common === node.length) {
      if (common === length) return this.#own(node, prefix, owner);
      if (bitOf(words, common)) node.one = this.#inserted(node.one, words, length, prefix, owner);
      else node.zero = this.#inserted(node.zero, words, length, prefix, owner);
      return node;
    }
    const above = new Node<T>(words, common);
    if (bitOf(node.words, common)) above.one = node;
    else above.zero = node;
    if (common === length) return this.#own(above, prefix, owner);
    const leaf = this.#own(new Node<T>(words, length), prefix, owner);
    if (bitOf(words, common)) above.one = leaf;
    else above.zero = leaf;
    return above;
  }

  #own(node: Node<T>, prefix: Prefix, owner: T): Node<T> {
    if (node.owner !== owner) {
      this.#disown(node);
      node.owner = owner;
      node.text = `${prefix.address}/${prefix.prefixLength}`;
      const owned = this.#owned.get(owner) ?? new Set();
      this.#owned.set(owner, owned.add(node));
    }
    return node;
  }

  #disown(node: Node<T>): void {
    if (node.owner === undefined) return;
    const owned = this.#owned.get(node.owner);
    owned?.delete(node);
    if (owned?.size === 0) this.#owned.delete(node.owner);
    node.owner = undefined;
    node.text = '';
  }

  /** Takes out `node`, which has lost its owner, and the fork above it, where they no longer tell anything apart. */
  #prune(node: Node<T>, isIpv4: boolean): void {
    const words = node.words;
    const path: Node<T>[] = [];
    let at = isIpv4 ? this.#root4 : this.#root6;
    while (at && at !== node) {
      path.push(at);
      at = next(at, words);
    }
    for (let each: Node<T> | undefined = node; each && isNeedless(each); each = path.pop()) {
      const above = path.at(-1);
      const rest: Node<T> | undefined = each.zero ?? each.one;
      if (above?.one === each) above.one = rest;
      else if (above) above.zero = rest;
      else if (isIpv4) this.#root4 = rest;
      else this.#root6 = rest;
    }
  }
}

function isNeedless<T>(node: Node<T>): boolean {
  return node.owner === undefined && !(node.zero && node.one);
}

function holds<T>(node: Node<T>, words: Int32Array): boolean {
  return node.contains(word(words, 0), word(words, 1), word(words, 2), word(words, 3));
}

function next<T>(node: Node<T>, words: Int32Array): Node<T> | undefined {
  return bitOf(words, node.length) ? node.one : node.zero;
}

/** How many of the first `limit` bits are the same. */
function commonBits<T>(node: Node<T>, words: Int32Array, limit: number): number {
  const own = node.words;
  for (let index = 0; index < 4; index++) {
    const difference = word(own, index) ^ word(words, index);
    if (difference !== 0) return Math.min(limit, 32 * index + Math.clz32(difference));
  }
  return limit;
}

function bitOf(words: Int32Array, index: number): boolean {
  return ((word(words, index >>> 5) >>> (31 - (index & 31))) & 1) === 1;
}

/** Mask of one word of which `bits` bits (below 0 and above 32 too) belong to the prefix. */
function maskOf(bits: number): number {
  if (bits <= 0) return 0;
  return bits >= 32 ? -1 : -1 << (32 - bits);
}

function wordsOf(prefix: Prefix): Int32Array {
  const bytes = addressBytes(prefix.address);
  const words = new Int32Array(4);
  for (let at = 0; at < bytes.length; at += 4) words[at >>> 2] = wordAt(bytes, at);
  return words;
}

function word(words: Int32Array, index: number): number {
  return words[index] as number;
}

function wordAt(memory: Uint8Array, offset: number): number {
  const high = ((memory[offset] as number) << 24) | ((memory[offset + 1] as number) << 16);
  return high | ((memory[offset + 2] as number) << 8) | (memory[offset + 3] as number);
}

/**
 * Where a peer's datagrams come from and go to: an IP address and a UDP port, kept as the sockaddr_in6 that a dual-stack
 * socket reports and takes (ipv6(7)), so that sending needs no conversion. IPv4 is ::ffff:a.b.c.d (RFC 4291, 2.5.5.2).
 *
 *   family 0 | port 2 (network order) | flow info 4 (always 0 here) | address 8..24 | scope id 24..28
 *
 * Literals only: host names are for whoever reads the configuration.
 */
import { clearHostBits, literalFamily, writeAddress } from '../../model/address.js';
import { IPV4 } from '../../model/vpn-types.js';

export const SOCKADDR_BYTES = 28;
/** struct in6_pktinfo (ipv6(7)): which of our addresses a datagram came to; at this distance behind the sockaddr_in6. */
export const LOCAL_OFFSET = 32;
export const LOCAL_BYTES = 20;
const LOCAL_ADDRESS_BYTES = 16;
const AF_INET6 = 10;
const PORT = 2;
const ADDRESS = 8;
const SCOPE_ID = 24;
const MAPPED_PREFIX_BYTES = 12;

/** Immutable. */
export class Endpoint {
  /** 28 bytes; nobody writes to them. */
  readonly sockaddr: Uint8Array;
  /** The same in words, for comparing. */
  readonly #words: DataView;
  /**
   * struct in6_pktinfo of our address that the peer writes to, which answers must come from where we have several; undefined:
   * the kernel chooses. Without the link: by which one they leave is the routing's business.
   */
  readonly local: Uint8Array | undefined;

  private constructor(sockaddr: Uint8Array, local?: Uint8Array) {
    this.sockaddr = sockaddr;
    this.local = local;
    this.#words = new DataView(sockaddr.buffer, sockaddr.byteOffset, SOCKADDR_BYTES);
  }

  /** Throws an Error for what is no strict literal, no port of 1 to 65535, or no scope id of 32 bits. */
  static of(address: string, port: number, scopeId = 0): Endpoint {
    const family = literalFamily(address);
    if (family === undefined) throw new Error(`${JSON.stringify(address)} is not an IP address`);
    if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new Error(`${port} is not a port`);
    if (!Number.isInteger(scopeId) || scopeId < 0 || scopeId > 0xffff_ffff)
      throw new Error(`${scopeId} is no scope id`);
    const sockaddr = new Uint8Array(SOCKADDR_BYTES);
    const view = new DataView(sockaddr.buffer);
    view.setUint16(0, AF_INET6, true);
    view.setUint16(PORT, port);
    writeAddress(family === IPV4 ? `::ffff:${address}` : address, sockaddr, ADDRESS);
    view.setUint32(SCOPE_ID, scopeId, true);
    return new Endpoint(sockaddr);
  }

  /** A copy of the sockaddr_in6 at `offset`, without its flow info. */
  static at(memory: Uint8Array, offset: number): Endpoint {
    const sockaddr = memory.slice(offset, offset + SOCKADDR_BYTES);
    return new Endpoint(sockaddr.fill(0, 4, ADDRESS));
  }

  /** The same with our address of the in6_pktinfo at LOCAL_OFFSET, if there is one. */
  static withLocalAt(memory: Uint8Array, offset: number): Endpoint {
    const { sockaddr } = Endpoint.at(memory, offset);
    const local = new Uint8Array(LOCAL_BYTES);
    local.set(memory.subarray(offset + LOCAL_OFFSET, offset + LOCAL_OFFSET + LOCAL_ADDRESS_BYTES));
    return new Endpoint(sockaddr, local.some((byte) => byte !== 0) ? local : undefined);
  }

  /** Canonical; dotted for IPv4. @example Endpoint.of('::ffff:a00:1', 1).address // '10.0.0.1' */
  get address(): string {
    const bytes = this.sockaddr.subarray(ADDRESS, SCOPE_ID);
    if (this.isIpv4) return bytes.subarray(MAPPED_PREFIX_BYTES).join('.');
    let text = '';
    for (let at = 0; at < 16; at += 2) {
      text += `${at === 0 ? '' : ':'}${(((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0)).toString(16)}`;
    }
    return clearHostBits(text, 128);
  }

  get port(): number {
    return ((this.sockaddr[PORT] ?? 0) << 8) | (this.sockaddr[PORT + 1] ?? 0);
  }

  /** The index of the link, for link-local addresses; otherwise 0. */
  get scopeId(): number {
    return this.#words.getUint32(SCOPE_ID, true);
  }

  get isIpv4(): boolean {
    for (let at = ADDRESS; at < ADDRESS + 10; at++) if (this.sockaddr[at] !== 0) return false;
    return this.sockaddr[ADDRESS + 10] === 0xff && this.sockaddr[ADDRESS + 11] === 0xff;
  }

  /** "192.0.2.1:51820", "[2001:db8::1]:51820", "[fe80::1%2]:51820". */
  toString(): string {
    const scope = this.scopeId === 0 ? '' : `%${this.scopeId}`;
    return this.isIpv4 ? `${this.address}:${this.port}` : `[${this.address}${scope}]:${this.port}`;
  }

  /** Is the sockaddr_in6 at `offset` this one? The flow info is not compared. Asked for every datagram that arrives. */
  isAt(memory: DataView, offset: number): boolean {
    const own = this.#words;
    // The low bytes of the address first: they differ where anything does.
    for (let at = SCOPE_ID; at >= ADDRESS; at -= 4) if (own.getInt32(at) !== memory.getInt32(offset + at)) return false;
    return own.getInt16(PORT) === memory.getInt16(offset + PORT);
  }

  /** The same place, and `other` wants no other address of ours. */
  equals(other: Endpoint): boolean {
    if (this === other) return true;
    if (!this.isAt(other.#words, 0)) return false;
    const { local } = other;
    return local === undefined || (this.local?.every((byte, at) => byte === local[at]) ?? false);
  }
}

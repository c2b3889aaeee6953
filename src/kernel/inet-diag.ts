/**
 * The messages by which inet_diag lists and ends IP sockets (sock_diag(7), linux/inet_diag.h). Pure: bytes in, bytes out.
 *
 *   inet_diag_req_v2   family 0 | protocol 1 | extensions 2 | raw protocol 3 | states 4..8 | sockid 8..56
 *   inet_diag_msg      family 0 | state 1 | timer 2 | retransmits 3 | sockid 4..52 | expiry, queues 52..64 | uid 64 | inode 68..72
 *   inet_diag_sockid   source port 0 | destination port 2 | source 4..20 | destination 20..36 | ifindex 36 | cookie 40..48
 *
 * Ports and addresses are in network byte order, all else in the host's.
 */
import { addressBytes, addressText, familyOf } from '../model/address.js';
import { type Family, IPV4, IPV6 } from '../model/vpn-types.js';
import type { Endpoint } from './inet-socket.js';
import { AF_INET, AF_INET6 } from './socket-options.js';

/** sdiag_protocol by name. MPTCP is seen as the TCP sockets it is made of; UDP-Lite only where the kernel still has it. */
const PROTOCOLS = { tcp: 6, udp: 17, udplite: 136, raw: 255 } as const;
export type SocketProtocol = keyof typeof PROTOCOLS;

/** sk_state; UDP and raw sockets are ESTABLISHED when connected, else CLOSE. */
export const TCP_ESTABLISHED = 1;
export const TCP_SYN_SENT = 2;
export const TCP_SYN_RECV = 3;
export const TCP_TIME_WAIT = 6;
export const TCP_CLOSE = 7;
export const TCP_LISTEN = 10;
const TCP_CLOSING = 11;

/** Every state of a TCP socket that is somebody's, or was: TIME_WAIT has neither data nor owner. */
export const TCP_STATES = stateMask(
  [...Array(TCP_CLOSING + 1).keys()].filter((state) => ![0, TCP_TIME_WAIT, TCP_CLOSE].includes(state)),
);

export function stateMask(states: readonly number[]): number {
  return states.reduce((mask, state) => mask | (1 << state), 0);
}

/** Who gave a socket its port: the kernel, at connect or for an accepted connection, or the program, by bind(2). */
export type PortOrigin = 'kernel' | 'bind';

export interface SocketEntry {
  readonly protocol: SocketProtocol;
  /** Of its packets. */
  readonly family: Family;
  /** An AF_INET6 socket; with family IPv4 its addresses are mapped ones, given here as IPv4. */
  readonly isInet6: boolean;
  readonly state: number;
  readonly local: Endpoint;
  readonly remote: Endpoint;
  /** SO_BINDTODEVICE; 0: none. */
  readonly ifindex: number;
  /** Undefined when the kernel does not say, see `orphansHaveUid`. */
  readonly uid: number | undefined;
  /** 0: orphaned, no process holds it any more; or not accepted yet. */
  readonly inode: number;
  readonly mark: number;
  /** The inode number of the cgroup v2 directory its process was in when it was made. */
  readonly cgroup: bigint | undefined;
  /** Undefined when it was not asked for. */
  readonly portOrigin: PortOrigin | undefined;
  /** Of an AF_INET6 listener: takes no IPv4. */
  readonly isV6Only: boolean;
  /** Of a raw socket. */
  readonly rawProtocol: number;
  /** inet_diag_sockid as the kernel gave it: with the cookie, the identity of this one socket. */
  readonly sockid: Buffer;
}

/** What is asked for. The filters work in the kernel, so that what nobody wants is never sent. */
export interface SocketQuery {
  readonly protocol: SocketProtocol;
  /** See `stateMask`. The kernel does not filter raw sockets by it. */
  readonly states: number;
  readonly filter?: { readonly portOrigin: PortOrigin } | { readonly localAddresses: readonly string[] };
}

const REQUEST = 56;
const MESSAGE = 72;
const SOCKID = 48;
const IN_MESSAGE = 4;
const IN_REQUEST = 8;

const INET_DIAG_REQ_BYTECODE = 1;
const INET_DIAG_SHUTDOWN = 8;
const INET_DIAG_PROTOCOL = 10;
const INET_DIAG_SKV6ONLY = 11;
const INET_DIAG_MARK = 15;
const INET_DIAG_CGROUP_ID = 21;

/** A request to list the sockets of one address family, with its attributes. */
export function encodeQuery(query: SocketQuery, family: Family): Buffer {
  const request = Buffer.alloc(REQUEST);
  request[0] = family === IPV6 ? AF_INET6 : AF_INET;
  request[1] = PROTOCOLS[query.protocol];
  request.writeUInt32LE(query.states, 4);
  if (query.filter === undefined) return request;
  const code =
    'portOrigin' in query.filter ? portCode(query.filter.portOrigin) : addressCode(query.filter.localAddresses);
  const attribute = Buffer.alloc(4);
  attribute.writeUInt16LE(4 + code.length, 0);
  attribute.writeUInt16LE(INET_DIAG_REQ_BYTECODE, 2);
  return Buffer.concat([request, attribute, code]);
}

/** A request that names one socket. */
export function encodeSocket({ protocol, isInet6, rawProtocol, sockid }: SocketIdentity): Buffer {
  const request = Buffer.alloc(REQUEST);
  request[0] = isInet6 ? AF_INET6 : AF_INET;
  request[1] = PROTOCOLS[protocol];
  request[3] = rawProtocol;
  sockid.copy(request, IN_REQUEST);
  return request;
}

export type SocketIdentity = Pick<SocketEntry, 'protocol' | 'isInet6' | 'rawProtocol' | 'sockid'>;

/**
 * One answer of a listing. Undefined for what has no socket behind it any more: the remainder of a closed connection, which
 * sends no data, only the kernel's answers.
 */
export function decodeEntry(payload: Buffer, query: SocketQuery, haveUid: boolean): SocketEntry | undefined {
  if (payload.length < MESSAGE) return undefined;
  const state = payload[1] ?? 0;
  const { isWhole, mark, cgroup, isV6Only, rawProtocol } = readExtensions(payload);
  // Half-open connections (request sockets) are no whole sockets either, and are waited for.
  if (!isWhole && state !== TCP_SYN_RECV) return undefined;
  const inode = payload.readUInt32LE(68);
  const isOwned = isWhole && (inode !== 0 || haveUid);
  return {
    protocol: query.protocol,
    ...readAddresses(payload),
    isInet6: payload[0] === AF_INET6,
    state,
    ifindex: payload.readUInt32LE(IN_MESSAGE + 36),
    uid: isOwned ? payload.readUInt32LE(64) : undefined,
    inode,
    mark,
    cgroup,
    portOrigin: query.filter && 'portOrigin' in query.filter ? query.filter.portOrigin : undefined,
    isV6Only,
    rawProtocol,
    sockid: payload.subarray(IN_MESSAGE, IN_MESSAGE + SOCKID),
  };
}

/** In one pass and without a table: there may be tens of thousands of sockets. */
function readExtensions(payload: Buffer): {
  /** Every socket has it, unlike the remainder of one (TIME_WAIT, whatever the state it is listed with). */
  isWhole: boolean;
  mark: number;
  cgroup: bigint | undefined;
  isV6Only: boolean;
  rawProtocol: number;
} {
  const found = { isWhole: false, mark: 0, cgroup: undefined as bigint | undefined, isV6Only: false, rawProtocol: 0 };
  for (let offset = MESSAGE; offset + 4 <= payload.length; ) {
    const size = payload.readUInt16LE(offset);
    if (size < 4 || offset + size > payload.length) break;
    const type = payload.readUInt16LE(offset + 2);
    const value = offset + 4;
    if (type === INET_DIAG_SHUTDOWN) found.isWhole = true;
    else if (type === INET_DIAG_MARK && size === 8) found.mark = payload.readUInt32LE(value);
    else if (type === INET_DIAG_CGROUP_ID && size === 12) found.cgroup = payload.readBigUInt64LE(value);
    else if (type === INET_DIAG_SKV6ONLY && size === 5) found.isV6Only = payload[value] === 1;
    else if (type === INET_DIAG_PROTOCOL && size === 5) found.rawProtocol = payload[value] ?? 0;
    offset += (size + 3) & ~3;
  }
  return found;
}

/**
 * Whether a kernel (uname -r) gives the uid of a socket that no process holds any more. From 6.17 on it is the socket's own
 * (sk_uid); before, it was read from the inode, and every orphan was said to be root's.
 */
export function orphansHaveUid(release: string): boolean {
  const [major = 0, minor = 0] = release.split('.').map((part) => Number.parseInt(part, 10));
  return major > 6 || (major === 6 && minor >= 17);
}

function readAddresses(payload: Buffer): Pick<SocketEntry, 'family' | 'local' | 'remote'> {
  const isInet6 = payload[0] === AF_INET6;
  const local = IN_MESSAGE + 4;
  const remote = IN_MESSAGE + 20;
  // A mapped socket that is not connected has "::" for a remote address.
  const family = !isInet6 || isMapped(payload, local) || isMapped(payload, remote) ? IPV4 : IPV6;
  const address = (offset: number): string => {
    if (family === IPV6) return ipv6At(payload, offset);
    return ipv4At(payload, isInet6 ? offset + 12 : offset);
  };
  return {
    family,
    local: { address: address(local), port: payload.readUInt16BE(IN_MESSAGE) },
    remote: { address: address(remote), port: payload.readUInt16BE(IN_MESSAGE + 2) },
  };
}

function isMapped(bytes: Buffer, offset: number): boolean {
  return (
    bytes.readUInt32BE(offset) === 0 &&
    bytes.readUInt32BE(offset + 4) === 0 &&
    bytes.readUInt32BE(offset + 8) === 0xffff
  );
}

function ipv4At(bytes: Buffer, offset: number): string {
  return addressText(bytes.subarray(offset, offset + 4));
}

function ipv6At(bytes: Buffer, offset: number): string {
  return addressText(bytes.subarray(offset, offset + 16));
}

/**
 * Filters: instructions of four bytes (code, offset when true, offset when false) and their operands. To end exactly behind
 * the last one is to accept; to jump four bytes further is to refuse.
 */
const INET_DIAG_BC_JMP = 1;
const INET_DIAG_BC_AUTO = 6;
const INET_DIAG_BC_S_COND = 7;

function instruction(code: number, whenTrue: number, whenFalse: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes[0] = code;
  bytes[1] = whenTrue;
  bytes.writeUInt16LE(whenFalse, 2);
  return bytes;
}

function portCode(origin: PortOrigin): Buffer {
  if (origin === 'kernel') return instruction(INET_DIAG_BC_AUTO, 4, 8);
  return Buffer.concat([instruction(INET_DIAG_BC_AUTO, 4, 8), instruction(INET_DIAG_BC_JMP, 4, 8)]);
}

/** One of these, compared whole; an IPv4 address is also that of a socket with mapped addresses. */
function addressCode(addresses: readonly string[]): Buffer {
  const conditions = addresses.map(hostCondition);
  let code = Buffer.alloc(0);
  // Last one first: each jumps over all behind it when it holds.
  for (const [index, condition] of [...conditions].reverse().entries()) {
    const size = 4 + condition.length;
    const test = Buffer.concat([instruction(INET_DIAG_BC_S_COND, size, size + 4), condition]);
    const done = index === 0 ? Buffer.alloc(0) : instruction(INET_DIAG_BC_JMP, 4, 4 + code.length);
    code = Buffer.concat([test, done, code]);
  }
  return code;
}

/** inet_diag_hostcond: family 0 | prefix length 1 | port 4..8, -1 for any | address. */
function hostCondition(address: string): Buffer {
  const bytes = addressBytes(address);
  const condition = Buffer.alloc(8 + bytes.length);
  condition[0] = familyOf(address) === IPV6 ? AF_INET6 : AF_INET;
  condition[1] = 8 * bytes.length;
  condition.writeInt32LE(-1, 4);
  condition.set(bytes, 8);
  return condition;
}

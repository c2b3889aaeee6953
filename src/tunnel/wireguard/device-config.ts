/**
 * What a WireGuard device is told and what it tells: the changes of `configure()`, checked as a whole before any of them is
 * made, and the status. The shape follows the cross-platform interface (https://www.wireguard.com/xplatform/). A status
 * never has a private or preshared key in it; those are only in `DeviceSecrets`, for the owner who asks for them.
 */
import { clearHostBits, familyOf, literalFamily, type Prefix } from '../../model/address.js';
import { IPV4 } from '../../model/vpn-types.js';
import { Endpoint } from './endpoint.js';

export const KEY_BYTES = 32;
/** As many as the Linux implementation takes. */
export const MAX_PEERS = 1 << 20;

/** What is absent stays as it is. Done in this order: private key, `replacePeers`, then the peers one after the other. */
export interface DeviceChange {
  /** 32 bytes; all zero: no key, and so no handshakes. A new key ends every session. */
  privateKey?: Uint8Array;
  /** Removes every peer first, sessions and all. */
  replacePeers?: boolean;
  peers?: PeerChange[];
}

export interface PeerChange {
  publicKey: Uint8Array;
  /** Removes the peer; the other fields are then ignored. No error when there is none. */
  remove?: boolean;
  /** Does nothing when there is no such peer, instead of making one. */
  updateOnly?: boolean;
  /** 32 bytes; all zero: none. Counts from the next handshake on. */
  presharedKey?: Uint8Array;
  endpoint?: EndpointText;
  /** 0 to 65535; 0: off. */
  persistentKeepaliveSeconds?: number;
  /** Takes all prefixes from the peer first. */
  replaceAllowedIps?: boolean;
  /** "10.0.0.0/8", "2001:db8::/32" or an address alone. Host bits are ignored; a prefix moves here from another peer. */
  allowedIps?: string[];
  /** Prefixes to take from the peer, before those of `allowedIps` are given to it. Others' are left alone. */
  removeAllowedIps?: string[];
}

/** A literal; the scope id is for link-local addresses. */
export interface EndpointText {
  address: string;
  port: number;
  scopeId?: number;
}

export interface DeviceStatus {
  publicKey?: Uint8Array;
  /** Name of the cipher suite. */
  cipher: string;
  peers: PeerStatus[];
  /** What happened to datagrams and packets; see counters.ts. */
  counters: Record<string, number>;
}

export interface PeerStatus {
  publicKey: Uint8Array;
  hasPresharedKey: boolean;
  endpoint?: EndpointText;
  /** Wall clock, ms; 0: never. */
  lastHandshakeMs: number;
  /** UDP payload, handshakes and keepalives included. */
  receivedBytes: number;
  sentBytes: number;
  persistentKeepaliveSeconds: number;
  /** In the order in which they came. */
  allowedIps: string[];
}

/** Copies; for the device's owner only (`wg show ... private-key`, `wg showconf`). */
export interface DeviceSecrets {
  privateKey?: Uint8Array;
  presharedKeys: { publicKey: Uint8Array; presharedKey: Uint8Array }[];
}

/** A PeerChange that has passed every check: addresses read, zero keys recognised. The key bytes are still the caller's. */
export interface CheckedPeerChange {
  readonly publicKey: Uint8Array;
  readonly remove: boolean;
  readonly updateOnly: boolean;
  /** null: take it away. */
  readonly presharedKey: Uint8Array | null | undefined;
  readonly endpoint: Endpoint | undefined;
  readonly persistentKeepaliveSeconds: number | undefined;
  readonly replaceAllowedIps: boolean;
  readonly removeAllowedIps: readonly Prefix[];
  readonly allowedIps: readonly Prefix[];
}

/** Throws an Error whose message begins with the field: `peers[2].allowedIps[0]: "10.0.0.300/8" is no IP prefix`. */
export function checkPeerChange(change: PeerChange, field: string): CheckedPeerChange {
  checkKey(change.publicKey, `${field}.publicKey`);
  if (change.presharedKey !== undefined) checkKey(change.presharedKey, `${field}.presharedKey`);
  const seconds = change.persistentKeepaliveSeconds;
  if (seconds !== undefined && !(Number.isInteger(seconds) && seconds >= 0 && seconds <= 65_535)) {
    throw new Error(`${field}.persistentKeepaliveSeconds: ${seconds} is not a number of seconds from 0 to 65535`);
  }
  return {
    publicKey: change.publicKey,
    remove: change.remove === true,
    updateOnly: change.updateOnly === true,
    presharedKey: change.presharedKey && isZero(change.presharedKey) ? null : change.presharedKey,
    endpoint: change.endpoint && readEndpoint(change.endpoint, `${field}.endpoint`),
    persistentKeepaliveSeconds: seconds,
    replaceAllowedIps: change.replaceAllowedIps === true,
    removeAllowedIps: readPrefixes(change.removeAllowedIps, `${field}.removeAllowedIps`),
    allowedIps: readPrefixes(change.allowedIps, `${field}.allowedIps`),
  };
}

/** The value is never part of the message: it may be a secret. */
export function checkKey(key: Uint8Array, field: string): void {
  if (!(key instanceof Uint8Array)) throw new Error(`${field}: is not a Uint8Array`);
  if (key.length !== KEY_BYTES) throw new Error(`${field}: has ${key.length} bytes, not ${KEY_BYTES}`);
}

export function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

/** The prefix with its host bits cleared; undefined when the text is none. An address alone is a prefix of full length. */
export function parseAllowedIp(text: string): Prefix | undefined {
  const slash = text.indexOf('/');
  const address = slash === -1 ? text : text.slice(0, slash);
  if (literalFamily(address) === undefined) return undefined;
  const bits = familyOf(address) === IPV4 ? 32 : 128;
  const digits = slash === -1 ? String(bits) : text.slice(slash + 1);
  const prefixLength = Number(digits);
  if (!/^\d{1,3}$/.test(digits) || prefixLength > bits) return undefined;
  return { address: clearHostBits(address, prefixLength), prefixLength };
}

function readPrefixes(texts: readonly string[] | undefined, field: string): readonly Prefix[] {
  return (texts ?? []).map((text, index) => {
    const prefix = parseAllowedIp(text);
    if (prefix === undefined) throw new Error(`${field}[${index}]: ${JSON.stringify(text)} is no IP prefix`);
    return prefix;
  });
}

function readEndpoint({ address, port, scopeId }: EndpointText, field: string): Endpoint {
  try {
    return Endpoint.of(address, port, scopeId);
  } catch (error) {
    throw new Error(`${field}: ${(error as Error).message}`);
  }
}

/**
 * Words of nft(8) that every part of our rule set uses. Only numbers and names of ours go through here, and of protocols the names that
 * nft knows by itself (`icmpv6`): others it looks up in files that a machine may not have (`ipv6-icmp` in /etc/protocols).
 */
import { BYPASS_MARK, LAST_UID, NFT_TABLE, SELECTION_FIELD } from './numbers.js';

/** The table with hooks for IPv4 and IPv6; the other two are for ARP and for frames on their way to a device. */
export const INET = `inet ${NFT_TABLE}`;
export const ARP = `arp ${NFT_TABLE}`;
export const NETDEV = `netdev ${NFT_TABLE}`;

export const hex = (value: number): string => `0x${(value >>> 0).toString(16).padStart(8, '0')}`;

/**
 * A user by number. Of digits alone nft makes a user's name first, and there are users who are called so; nobody's name begins with a
 * plus.
 */
export const uid = (value: number): string => `"+${value}"`;
export const uids = (values: Iterable<number>): string => [...values].map(uid).join(', ');
export const uidRange = (first: number, last: number): string => `${uid(first)}-${uid(last)}`;
export const EVERY_UID = uidRange(0, LAST_UID);

/** Masks as the listing prints them: bits that are set afterwards are not cleared before. */
export const setField = (mark: 'meta' | 'ct', value: number): string =>
  `${mark} mark set ${mark} mark & ${hex(0x00ffffff | value)} | ${hex(value)}`;

/** Of a protected socket, an answer to what came in, or allowed outside by the lock. */
export const BYPASSES = `meta mark & ${hex(BYPASS_MARK)} == ${hex(BYPASS_MARK)} accept`;
export const SELECTION = `meta mark & ${hex(SELECTION_FIELD)}`;

/** Questions to name servers, by every transport that has ports. */
export const DNS = 'meta l4proto { tcp, udp, udplite, sctp, dccp } th dport 53';
/** Nobody answers by these, so they are refused and not redirected. */
export const UNSERVED_DNS = 'meta l4proto { udplite, sctp, dccp } th dport 53';

export const addRule = (table: string, chain: string, text: string): string => `add rule ${table} ${chain} ${text}`;
export const addChain = (table: string, chain: string, hook?: string): string =>
  `add chain ${table} ${chain}${hook === undefined ? '' : ` { ${hook}; policy accept; }`}`;

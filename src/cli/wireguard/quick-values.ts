/**
 * The values of a wg-quick file, one function a kind. Strict where wg(8) asks the machine's name services: ports are numbers.
 * A refusal never shows what was given as a key.
 */
import {
  addressBits,
  canonicalAddress,
  clearHostBits,
  familyOf,
  isHostAddress,
  type Prefix,
  prefixContains,
  reservedHosts,
} from '../../model/address.js';
import { MAX_DOMAIN_LENGTH, MIN_MTU } from '../../model/limits.js';
import { EX_CONFIG, type Refuse, shown } from './problem.js';
import type { QuickEndpoint } from './quick-file.js';

const KEY_BYTES = 32;
/** The largest packet that still fits a UDP datagram over IPv4 and IPv6 with all that WireGuard adds. */
export const MAX_TUNNEL_MTU = 65_535 - 80;

/** 44 characters of base64 and nothing else, not even other spare bits, as wg(8) has it. */
export function parseKey(text: string, refuse: Refuse): Uint8Array {
  const fix = 'a key is 44 characters of base64, as `vpnctl wg genkey` prints it';
  if (/^[0-9a-f]{64}$/i.test(text)) refuse(`is in hexadecimal; ${fix}`);
  if (text.length !== 44) refuse(`has ${text.length} characters; ${fix}`);
  const bytes = Buffer.from(text, 'base64');
  if (bytes.length !== KEY_BYTES || bytes.toString('base64') !== text) refuse(`is not base64 of 32 bytes; ${fix}`);
  const key = new Uint8Array(bytes);
  bytes.fill(0);
  if (key.every((byte) => byte === 0)) refuse('is all zeros, which is no key; leave it out, or make one');
  return key;
}

function parseNumber(text: string, minimum: number, maximum: number, refuse: Refuse): number {
  const number = /^(0|[1-9]\d{0,9})$/.test(text) ? Number(text) : -1;
  return number >= minimum && number <= maximum
    ? number
    : refuse(`is ${shown(text)}, not a number in ${minimum}..${maximum}`);
}

export function parsePort(text: string, refuse: Refuse): number {
  return parseNumber(text, 0, 65_535, refuse);
}

export function parseMtu(text: string, refuse: Refuse): number {
  return parseNumber(text, MIN_MTU, MAX_TUNNEL_MTU, refuse);
}

/** In seconds; `off` is 0. */
export function parseKeepalive(text: string, refuse: Refuse): number {
  if (text.toLowerCase() === 'off') return 0;
  return parseNumber(text, 0, 65_535, (reason) => refuse(`${reason}, nor off`));
}

/** An address of the vNIC. Without a length it is of the whole address, as ip(8) has it. */
export function parseAddress(text: string, refuse: Refuse): Prefix {
  const prefix = parsePrefix(text, 1, '10.0.0.2/24 or fd00::2/64', refuse);
  if (!isHostAddress(prefix.address)) refuse(`is ${shown(text)}, which no host can have; give it one of your own`);
  if (reservedHosts(prefix).includes(prefix.address)) {
    const reason = `is ${shown(text)}, the network or broadcast address of its prefix`;
    refuse(`${reason}; give a host's address, or write ${prefix.address}/32`);
  }
  return prefix;
}

/** Host bits are cleared, as the kernel does. */
export function parseAllowedIp(text: string, refuse: Refuse): Prefix {
  const { address, prefixLength } = parsePrefix(text, 0, '10.0.0.0/8 or ::/0', refuse);
  return { address: clearHostBits(address, prefixLength), prefixLength };
}

/**
 * wg(8) wants commas, and takes no notice of blanks: `10.0.0.0 / 8`. Blanks between prefixes are taken for commas all the same.
 *
 * @example splitAllowedIps('10.0.0.0 / 8, ::1 ::2') // ['10.0.0.0/8', '::1', '::2']
 */
export function splitAllowedIps(text: string): string[] {
  return text.split(',').flatMap((element) => {
    const parts = element.split(/\s+/).filter((part) => part !== '');
    const whole = parts.join('');
    return !parts.every(isPrefix) && isPrefix(whole) ? [whole] : parts;
  });
}

function isPrefix(text: string): boolean {
  const [literal = '', length = '0'] = text.split('/');
  return canonicalAddress(literal) !== undefined && /^\d{1,3}$/.test(length);
}

function parsePrefix(text: string, minimum: number, example: string, refuse: Refuse): Prefix {
  const [literal = '', length, ...rest] = text.split('/');
  const address = canonicalAddress(literal);
  if (address === undefined || rest.length > 0) return refuse(`is ${shown(text)}, not an IP prefix such as ${example}`);
  const bits = addressBits(familyOf(address));
  if (length === undefined) return { address, prefixLength: bits };
  const prefixLength = /^\d{1,3}$/.test(length) ? Number(length) : -1;
  if (prefixLength >= minimum && prefixLength <= bits) return { address, prefixLength };
  return refuse(`is ${shown(text)}; the length of its prefix is not in ${minimum}..${bits}`);
}

/** wg-quick takes what has only digits and dots, or a colon, for a server, and everything else for a search domain. */
export function parseDns(text: string, refuse: Refuse): { server: string } | { domain: string } {
  if (!/^[0-9.]+$|:/.test(text)) {
    if (!isDomainName(text)) refuse(`is ${shown(text)}, neither an IP address nor a search domain`);
    return { domain: text.toLowerCase().replace(/\.$/, '') };
  }
  const server = canonicalAddress(text);
  if (server === undefined) return refuse(`is ${shown(text)}, not an IP address`);
  if (!isHostAddress(server)) {
    refuse(`is ${server}, which cannot be reached through a VPN; leave it out`, EX_CONFIG);
  }
  return { server };
}

const LINK_LOCAL: Prefix = { address: 'fe80::', prefixLength: 10 };

/** @example parseEndpoint('[2001:db8::1]:51820', refuse) // { host: '2001:db8::1', port: 51820, zone: undefined } */
export function parseEndpoint(text: string, refuse: Refuse): QuickEndpoint {
  const form = 'vpn.example.org:51820, 192.0.2.1:51820 or [2001:db8::1]:51820';
  const [, bracketed, plain, digits = ''] = /^(?:\[([^\]]*)\]|([^[\]]*?)):([^:]*)$/.exec(text) ?? [];
  if (bracketed === undefined && plain === undefined) return refuse(`is ${shown(text)}, not of the form ${form}`);
  if (plain?.includes(':')) refuse(`is ${shown(text)}; put its IPv6 address in [ ], as in ${form}`);
  const port = parseNumber(digits, 1, 65_535, (reason) => refuse(`has a port that ${reason}`));
  const [literal = '', zone, ...rest] = (bracketed ?? plain ?? '').split('%');
  const address = canonicalAddress(literal);
  if (address !== undefined && (familyOf(address) === 2) === (bracketed !== undefined) && rest.length === 0) {
    checkZone(address, zone, refuse);
    if (!isPeerAddress(address)) refuse(`is ${shown(text)}, which is no host's address; give the peer's own`);
    return { host: address, port, zone };
  }
  // A name that ends with a number would be an address to some (URL standard, "ends in a number").
  const isName =
    bracketed === undefined && zone === undefined && isDomainName(literal) && !/(^|\.)\d+\.?$/.test(literal);
  if (!isName) refuse(`is ${shown(text)}, neither an address nor a host name; write ${form}`);
  return { host: literal, port, zone: undefined };
}

function checkZone(address: string, zone: string | undefined, refuse: Refuse): void {
  const isLinkLocal = prefixContains(LINK_LOCAL, address);
  if (isLinkLocal && zone === undefined) refuse(`is link-local; add its interface, as in [${address}%eth0]:51820`);
  if (zone === undefined) return;
  if (!isLinkLocal) refuse('has an interface, which only a link-local address (fe80::) can have; remove it');
  if (!/^[\w.@:-]{1,15}$/.test(zone) || /^\.+$/.test(zone)) refuse('has a zone that is no name of an interface');
}

/** Where a peer can be. Loopback is fine: a program there may wrap the datagrams in another protocol. */
export function isPeerAddress(canonical: string): boolean {
  return isHostAddress(canonical) || canonical === '::1' || canonical.startsWith('127.');
}

/** RFC 1035 section 2.3.4 for the lengths; underscores because service names have them. */
function isDomainName(text: string): boolean {
  return text.length < MAX_DOMAIN_LENGTH && /^[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?$/.test(text);
}

/** `off` is 0. */
export function parseFwMark(text: string, refuse: Refuse): number {
  if (text.toLowerCase() === 'off') return 0;
  const mark = /^(\d{1,10}|0x[0-9a-f]{1,8})$/i.test(text) ? Number(text) : Number.NaN;
  return mark <= 0xffffffff ? mark : refuse(`is ${shown(text)}, neither off nor a number in 0..0xffffffff`);
}

export function parseTable(text: string, refuse: Refuse): 'auto' | 'off' {
  const lower = text.toLowerCase();
  if (lower === 'auto' || lower === 'off') return lower;
  return refuse('is neither auto nor off; routing tables belong to vpnd, so write one of these', EX_CONFIG);
}

export function parseBoolean(text: string, refuse: Refuse): boolean {
  const lower = text.toLowerCase();
  if (lower === 'true' || lower === 'false') return lower === 'true';
  return refuse(`is ${shown(text)}, neither true nor false`);
}

/**
 * The cross-platform userspace interface of WireGuard, by which wg(8) asks and configures an implementation
 * (https://www.wireguard.com/xplatform/). Text both ways: requests and answers are lines of key=value that an empty line ends.
 *
 *   get=1          set=1                      errno=0
 *                  private_key=HEX
 *                  public_key=HEX
 *                  allowed_ip=10.0.0.0/8
 *
 * Pure: bytes to requests, requests to a DeviceChange, a device to text. A request is taken as a whole or not at all: whatever is
 * wrong with one of its lines is a UapiError with the errno that the answer carries. Not here: another fwmark than the socket has,
 * which belongs to the service.
 */
import { constants } from 'node:os';
import { literalFamily } from '../../model/address.js';
import { IPV4 } from '../../model/vpn-types.js';
import {
  type DeviceChange,
  type EndpointText,
  KEY_BYTES,
  type PeerChange,
  type PeerStatus,
  parseAllowedIp,
} from './device-config.js';

const NEWLINE = 0x0a;
/** The longest line that means anything, a peer's endpoint with a zone, has some 110. */
export const MAX_UAPI_LINE_BYTES = 256;
/** A set of some 20,000 allowed IPs. */
export const MAX_UAPI_REQUEST_BYTES = 1 << 20;

type ErrnoName = 'EINVAL' | 'EPROTO' | 'EMSGSIZE' | 'EOPNOTSUPP' | 'EADDRINUSE' | 'EACCES' | 'EIO';

/** What is wrong with a request, as the number that the answer says. Its message never repeats a value: it may be a key. */
export class UapiError extends Error {
  override readonly name = 'UapiError';
  readonly errno: number;

  constructor(errnoName: ErrnoName, message: string) {
    super(message);
    this.errno = constants.errno[errnoName];
  }
}

export type UapiRequest = { operation: 'get' } | { operation: 'set'; change: DeviceChange; listenPort?: number };

/** What a get tells: the status, and the keys that the status does not have. */
export interface UapiDevice {
  privateKey: Uint8Array | undefined;
  listenPort: number;
  /** Of the socket; 0: none. */
  fwmark: number;
  peers: readonly (PeerStatus & { presharedKey?: Uint8Array | undefined })[];
}

/** The number of an interface by its name, for link-local endpoints; undefined: there is none of that name. */
export type InterfaceIndex = (name: string) => number | undefined;

/** Cuts a stream into requests. It keeps at most one request's bytes, and wipes what it has given away. */
export class UapiReader {
  /** The request so far, in a buffer that grows by doubling: one that comes in many pieces costs no more. */
  #buffer = Buffer.alloc(0);
  #length = 0;
  #lineBytes = 0;

  /** The requests that are complete, each without its empty line. Throws UapiError; the stream is then dead. */
  push(data: Uint8Array): string[] {
    const requests: string[] = [];
    let start = 0;
    for (const [at, byte] of data.entries()) {
      if (byte !== NEWLINE) {
        if (++this.#lineBytes > MAX_UAPI_LINE_BYTES) throw new UapiError('EMSGSIZE', 'a line is too long');
        continue;
      }
      if (this.#lineBytes === 0) {
        this.#keep(data.subarray(start, at));
        start = at + 1;
        requests.push(this.#buffer.toString('latin1', 0, this.#length));
        this.wipe();
      }
      this.#lineBytes = 0;
    }
    this.#keep(data.subarray(start));
    return requests;
  }

  /** Forgets an unfinished request, keys and all. */
  wipe(): void {
    this.#buffer.fill(0);
    this.#length = 0;
  }

  #keep(bytes: Uint8Array): void {
    const length = this.#length + bytes.length;
    if (length > MAX_UAPI_REQUEST_BYTES) throw new UapiError('EMSGSIZE', 'a request is too long');
    if (length > this.#buffer.length) {
      const larger = Buffer.alloc(Math.max(length, 2 * this.#buffer.length));
      larger.set(this.#buffer.subarray(0, this.#length));
      this.#buffer.fill(0);
      this.#buffer = larger;
    }
    this.#buffer.set(bytes, this.#length);
    this.#length = length;
  }
}

/** From the text of one request. Throws UapiError, and nothing else. `fwmark`: what the socket has. */
export function parseUapiRequest(
  text: string,
  interfaceIndex: InterfaceIndex = () => undefined,
  fwmark = 0,
): UapiRequest {
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  const [operation, ...rest] = lines;
  if (operation === 'get=1' && rest.length === 0) return { operation: 'get' };
  if (operation !== 'set=1') throw new UapiError('EPROTO', 'a request begins with get=1 or set=1');
  const set = new SetRequest(interfaceIndex, fwmark);
  for (const line of rest) set.take(line);
  return { operation: 'set', change: set.change, ...(set.listenPort !== undefined && { listenPort: set.listenPort }) };
}

/** Lines in their order: those before the first public_key are the device's, the others belong to the peer above them. */
class SetRequest {
  readonly change: DeviceChange = {};
  listenPort: number | undefined;
  #peer: PeerChange | undefined;
  readonly #interfaceIndex: InterfaceIndex;
  readonly #fwmark: number;

  constructor(interfaceIndex: InterfaceIndex, fwmark: number) {
    this.#interfaceIndex = interfaceIndex;
    this.#fwmark = fwmark;
  }

  take(line: string): void {
    const equals = line.indexOf('=');
    if (equals < 0) throw new UapiError('EPROTO', 'a line without =');
    const [key, value] = [line.slice(0, equals), line.slice(equals + 1)];
    if (key === 'public_key') {
      this.#peer = { publicKey: keyOf(value) };
      this.change.peers ??= [];
      this.change.peers.push(this.#peer);
    } else if (this.#peer === undefined) {
      this.#device(key, value);
    } else {
      this.#peerLine(this.#peer, key, value);
    }
  }

  #device(key: string, value: string): void {
    switch (key) {
      case 'private_key':
        this.change.privateKey = keyOf(value);
        return;
      case 'listen_port':
        this.listenPort = numberOf(value, 0xffff);
        return;
      case 'fwmark':
        // wg(8) sends one with every configuration that it sets as a whole: none, or what it was shown.
        if ([0, this.#fwmark].includes(numberOf(value === '' ? '0' : value, 0xffffffff))) return;
        throw new UapiError('EOPNOTSUPP', 'marks are set by the service');
      case 'replace_peers':
        this.change.replacePeers = isTrue(value);
        return;
      default:
        throw new UapiError('EINVAL', 'unknown key of the device');
    }
  }

  #peerLine(peer: PeerChange, key: string, value: string): void {
    switch (key) {
      case 'remove':
        peer.remove = isTrue(value);
        return;
      case 'update_only':
        peer.updateOnly = isTrue(value);
        return;
      case 'preshared_key':
        peer.presharedKey = keyOf(value);
        return;
      case 'endpoint':
        peer.endpoint = endpointOf(value, this.#interfaceIndex);
        return;
      case 'persistent_keepalive_interval':
        peer.persistentKeepaliveSeconds = numberOf(value, 0xffff);
        return;
      case 'replace_allowed_ips':
        peer.replaceAllowedIps = isTrue(value);
        // It also takes back the ones above it, as for an implementation that works line by line.
        peer.allowedIps = [];
        return;
      case 'allowed_ip':
        allowedIp(peer, value);
        return;
      case 'protocol_version':
        if (value !== '1') throw new UapiError('EINVAL', 'only protocol version 1 is known');
        return;
      default:
        throw new UapiError('EINVAL', 'unknown key of a peer');
    }
  }
}

function keyOf(value: string): Uint8Array {
  if (!/^[0-9a-fA-F]{64}$/.test(value))
    throw new UapiError('EINVAL', `a key is not ${2 * KEY_BYTES} hexadecimal digits`);
  return new Uint8Array(Buffer.from(value, 'hex'));
}

function numberOf(value: string, maximum: number): number {
  const number = /^\d{1,10}$/.test(value) ? Number(value) : Number.NaN;
  if (!(number <= maximum)) throw new UapiError('EINVAL', `a number is not 0..${maximum}`);
  return number;
}

function isTrue(value: string): true {
  if (value !== 'true') throw new UapiError('EINVAL', 'a flag is not true');
  return true;
}

/** `192.0.2.1:51820`, `[2001:db8::1]:51820`, `[fe80::1%eth0]:51820`. */
function endpointOf(value: string, interfaceIndex: InterfaceIndex): EndpointText {
  const match = /^(?:(?<ipv4>[\d.]+)|\[(?<ipv6>[0-9a-fA-F:.]+)(?:%(?<zone>[^\]]+))?\]):(?<port>\d{1,5})$/.exec(value);
  const { ipv4, ipv6, zone, port = '' } = match?.groups ?? {};
  const address = ipv4 ?? ipv6 ?? '';
  if (literalFamily(address) === undefined || (literalFamily(address) === IPV4) !== (ipv4 !== undefined)) {
    throw new UapiError('EINVAL', 'an endpoint is no address and port');
  }
  const endpoint = { address, port: numberOf(port, 0xffff) };
  if (endpoint.port === 0) throw new UapiError('EINVAL', 'an endpoint has port 0');
  if (zone === undefined) return endpoint;
  const scopeId = /^\d+$/.test(zone) ? numberOf(zone, 0xffffffff) : interfaceIndex(zone);
  if (scopeId === undefined) throw new UapiError('EINVAL', "an endpoint's zone is no interface");
  return { ...endpoint, scopeId };
}

/** `10.0.0.0/8` gives, `-10.0.0.0/8` takes away; of both, the line that comes later counts. */
function allowedIp(peer: PeerChange, value: string): void {
  const isRemoval = value.startsWith('-');
  const text = isRemoval ? value.slice(1) : value;
  const parsed = text.includes('/') ? parseAllowedIp(text) : undefined;
  if (parsed === undefined) throw new UapiError('EINVAL', 'an allowed IP is no address/length');
  const prefix = `${parsed.address}/${parsed.prefixLength}`;
  if (!isRemoval) {
    peer.allowedIps ??= [];
    peer.allowedIps.push(prefix);
    return;
  }
  // A device takes away before it gives.
  if (peer.allowedIps) peer.allowedIps = peer.allowedIps.filter((each) => each !== prefix);
  peer.removeAllowedIps ??= [];
  peer.removeAllowedIps.push(prefix);
}

/** The answer to get=1, its empty line included. */
export function printUapiDevice({ privateKey, listenPort, fwmark, peers }: UapiDevice): string {
  const lines: string[] = [];
  if (privateKey) lines.push(`private_key=${hex(privateKey)}`);
  lines.push(`listen_port=${listenPort}`);
  if (fwmark !== 0) lines.push(`fwmark=${fwmark}`);
  for (const peer of peers) {
    lines.push(`public_key=${hex(peer.publicKey)}`);
    if (peer.presharedKey) lines.push(`preshared_key=${hex(peer.presharedKey)}`);
    lines.push('protocol_version=1');
    if (peer.endpoint) lines.push(`endpoint=${endpointText(peer.endpoint)}`);
    lines.push(`last_handshake_time_sec=${Math.floor(peer.lastHandshakeMs / 1000)}`);
    lines.push(`last_handshake_time_nsec=${Math.floor(peer.lastHandshakeMs % 1000) * 1_000_000}`);
    lines.push(`tx_bytes=${peer.sentBytes}`, `rx_bytes=${peer.receivedBytes}`);
    lines.push(`persistent_keepalive_interval=${peer.persistentKeepaliveSeconds}`);
    lines.push(...peer.allowedIps.map((prefix) => `allowed_ip=${prefix}`));
  }
  return `${lines.map((line) => `${line}\n`).join('')}${printUapiErrno(0)}`;
}

/**
 * The answer to a set, or to what was wrong with a request. The number is negative, which the standard does not say: so it is sent
 * by wireguard-go and read by wg(8), which would not know a positive one.
 */
export function printUapiErrno(errno: number): string {
  return `errno=${errno === 0 ? 0 : -errno}\n\n`;
}

/** @example endpointText({ address: 'fe80::1', port: 51820, scopeId: 2 }) // '[fe80::1%2]:51820' */
export function endpointText({ address, port, scopeId }: EndpointText): string {
  const zone = scopeId ? `%${scopeId}` : '';
  return address.includes(':') ? `[${address}${zone}]:${port}` : `${address}:${port}`;
}

function hex(key: Uint8Array): string {
  return Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString('hex');
}

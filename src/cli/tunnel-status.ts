/** What a tunnel's process tells about itself, and what `vpnctl status` prints of it. It has no private or preshared key in it. */
import { hasControlCharacter, quote } from '../model/quote.js';
import { endpointText } from '../tunnel/wireguard/uapi.js';
import type { WireGuardStatus } from '../tunnel/wireguard-tunnel.js';
import { namedPeers } from './endpoint-search.js';
import type { QuickPeer } from './wireguard/quick-file.js';
import { endpointText as hostText } from './wireguard/quick-print.js';

export interface TunnelStatus {
  /** The file's name without .conf. */
  name: string;
  file: string;
  link: string;
  pid: number;
  /** ISO 8601. */
  since: string;
  /** UDP. */
  listenPort: number;
  /** WireGuard's own socket; wg(8) finds it when it is in /run/wireguard. */
  socket: string;
  /** Base64; absent when the tunnel has no private key. */
  publicKey?: string;
  cipher: string;
  /** What the kernel does for the tunnel, as its driver found out. */
  offload: Record<string, unknown>;
  /** What happened to datagrams and packets, and how many system calls carried how many. */
  counters: Record<string, number>;
  traffic: Record<string, number>;
  peers: TunnelPeer[];
}

export interface TunnelPeer {
  /** Base64. */
  publicKey: string;
  hasPresharedKey: boolean;
  /** 192.0.2.1:51820, [2001:db8::1]:51820. */
  endpoint?: string;
  /** The name and port in the file, when it has a name. */
  host?: string;
  /** ISO 8601; absent: never. */
  lastHandshake?: string;
  receivedBytes: number;
  sentBytes: number;
  /** 0: off. */
  persistentKeepaliveSeconds: number;
  allowedIps: string[];
  /** Why there is no handshake, when the peer has been sent to in vain for a while. */
  problem?: string;
}

/** The process's side. `problemOf`: by public key. */
export function describeTunnel(
  own: Pick<TunnelStatus, 'name' | 'file' | 'link' | 'pid' | 'since' | 'listenPort' | 'socket'>,
  { publicKey, cipher, offload, counters, traffic, peers }: WireGuardStatus,
  filePeers: readonly QuickPeer[],
  problemOf: (publicKey: Uint8Array) => string | undefined = () => undefined,
): TunnelStatus {
  const text = (key: Uint8Array) => Buffer.from(key).toString('base64');
  const named = namedPeers(filePeers);
  return {
    ...own,
    ...(publicKey && { publicKey: text(publicKey) }),
    cipher,
    offload: { ...offload },
    counters: { ...counters },
    traffic: { ...traffic },
    peers: peers.map(({ publicKey: key, endpoint, lastHandshakeMs, ...rest }) => {
      const host = named.get(text(key));
      const problem = problemOf(key);
      return {
        ...rest,
        publicKey: text(key),
        ...(endpoint && { endpoint: endpointText(endpoint) }),
        ...(host && { host: hostText(host.value) }),
        ...(problem !== undefined && { problem }),
        ...(lastHandshakeMs > 0 && { lastHandshake: new Date(lastHandshakeMs).toISOString() }),
      };
    }),
  };
}

/** The names of peers that are searched for, because `vpnctl up` could not find them yet. */
export function waitingFor({ peers }: Pick<TunnelStatus, 'peers'>): string[] {
  return peers.flatMap(({ endpoint, host }) => (endpoint === undefined && host !== undefined ? [host] : []));
}

/** More than that are counted. */
const SHOWN_PREFIXES = 8;

/** Lines for below the VPN's own; `nowMs` is the wall clock. What comes from the other process may be anything. */
export function tunnelLines(status: TunnelStatus, nowMs: number): string[] {
  const { name, file, listenPort, publicKey, cipher, offload, socket, peers } = status;
  const gains = Object.entries(offload).flatMap(([key, value]) =>
    value === false || value === 0 ? [] : [gain(key, value)],
  );
  const own = [
    `wireguard ${quote(name)} of ${quote(file)}`,
    `port ${Number(listenPort)}`,
    publicKey === undefined ? 'no private key' : `public key ${word(publicKey)}`,
    `cipher ${word(cipher)}`,
    `offload ${gains.join(' ') || 'none'}`,
  ];
  return [
    `  ${own.join('  ')}`,
    ...peers.flatMap((peer) => [
      `  ${peerLine(peer, nowMs)}`,
      ...(peer.problem === undefined ? [] : [`  no handshake: ${sentence(peer.problem)}`]),
    ]),
    `  socket ${quote(socket)}${socket.startsWith('/run/wireguard/') ? '' : ', which wg(8) does not look for'}`,
  ];
}

function gain(key: string, value: unknown): string {
  return value === true ? word(key) : `${word(key)}=${word(String(value))}`;
}

function peerLine(peer: TunnelPeer, nowMs: number): string {
  const { allowedIps, persistentKeepaliveSeconds: keepalive } = peer;
  const more = allowedIps.length > SHOWN_PREFIXES ? ` and ${allowedIps.length - SHOWN_PREFIXES} more` : '';
  const parts = [
    `peer ${word(peer.publicKey)}`,
    peer.endpoint === undefined ? 'no endpoint yet' : `endpoint ${word(peer.endpoint)}`,
    ...(peer.host === undefined ? [] : [`(${word(peer.host)})`]),
    peer.lastHandshake === undefined
      ? 'no handshake yet'
      : `handshake ${ago(nowMs - Date.parse(peer.lastHandshake))} ago`,
    `received ${bytes(peer.receivedBytes)}`,
    `sent ${bytes(peer.sentBytes)}`,
    `allowed ${allowedIps.slice(0, SHOWN_PREFIXES).map(word).join(' ') || 'none'}${more}`,
    ...(keepalive > 0 ? [`keepalive ${Number(keepalive)} s`] : []),
    ...(peer.hasPresharedKey ? ['preshared key'] : []),
  ];
  return parts.join('  ');
}

/** Ours, when it is what it seems to be. */
function sentence(text: string): string {
  return hasControlCharacter(text) || text.length > 400 ? quote(text) : text;
}

/** As it stands when nothing in it can mislead a reader. */
function word(text: string): string {
  return /^[\w.:/@+=%[\]-]{1,120}$/.test(text) ? text : quote(text);
}

/** @example ago(125_000) // '2 min 5 s' */
export function ago(durationMs: number): string {
  const seconds = Math.max(0, Math.round(durationMs / 1000));
  const units: [name: string, size: number][] = [
    ['d', 86_400],
    ['h', 3600],
    ['min', 60],
    ['s', 1],
  ];
  const first = units.findIndex(([, size]) => seconds >= size);
  const shown = first < 0 ? units.slice(-1) : units.slice(first, first + 2);
  let left = seconds;
  const parts = shown.map(([name, size]) => {
    const count = Math.floor(left / size);
    left -= count * size;
    return { count, name };
  });
  const words = parts
    .filter(({ count }, index) => count > 0 || index === 0)
    .map(({ count, name }) => `${count} ${name}`);
  return words.join(' ');
}

/** @example bytes(1_500_000) // '1.4 MiB' */
export function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = Number(count);
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/**
 * Real wireguard-go in hosts of the lab, and wg(8) to configure and ask it. Each host has its own /run, and so its own
 * /var/run/wireguard: names have to differ within a host only. What asks (`wg`, `showWireGuard`) works with every implementation
 * that has the cross-platform userspace socket there.
 */
import { randomBytes } from 'node:crypto';
import { createConnection } from 'node:net';
import { generatePrivateKey, publicKeyOf } from '../../../src/tunnel/wireguard/x25519.js';
import type { LabHost } from './host.js';
import type { LabProcess } from './process.js';
import { PROGRAMS, peerEnvironment } from './unpacked-peers.js';
import { eventually } from './vpn-lab.js';

/** Keys are base64, as in wg's files. */
export interface WireGuardKeys {
  privateKey: string;
  publicKey: string;
}

export interface WireGuardPeer {
  publicKey: string;
  presharedKey?: string;
  /** 192.0.2.1:51820, [2001:db8::1]:51820 */
  endpoint?: string;
  allowedIps: readonly string[];
  persistentKeepalive?: number;
}

export interface WireGuardGoOptions {
  /** Default: new ones. */
  keys?: WireGuardKeys;
  /** Default: one that is free. */
  listenPort?: number;
  mtu?: number;
  /** With prefix lengths. */
  addresses?: readonly string[];
  peers?: readonly WireGuardPeer[];
  /** Default true: what peers are allowed is routed into the interface. */
  routes?: boolean;
  /** Default 'error'. */
  log?: 'verbose' | 'error' | 'silent';
}

export interface WireGuardGo extends WireGuardKeys {
  readonly host: LabHost;
  readonly name: string;
  readonly process: LabProcess;
  readonly listenPort: number;
  /** `wg set NAME WORDS`. */
  set(...words: string[]): Promise<void>;
  /** As `wg addconf` and `wg setconf` understand it, with its routes. */
  addPeers(...peers: WireGuardPeer[]): Promise<void>;
  show(): Promise<WireGuardDump>;
  stop(): Promise<void>;
}

export interface WireGuardDump {
  privateKey: string | undefined;
  publicKey: string | undefined;
  listenPort: number;
  fwmark: number;
  peers: WireGuardPeerDump[];
}

export interface WireGuardPeerDump {
  publicKey: string;
  presharedKey: string | undefined;
  endpoint: string | undefined;
  allowedIps: string[];
  /** Seconds since 1970; 0: never. */
  latestHandshake: number;
  receivedBytes: number;
  sentBytes: number;
  /** Seconds; 0: off. */
  persistentKeepalive: number;
}

export function wireGuardKeys(): WireGuardKeys {
  const privateKey = generatePrivateKey();
  const base64 = (key: Uint8Array) => Buffer.from(key).toString('base64');
  return { privateKey: base64(privateKey), publicKey: base64(publicKeyOf(privateKey)) };
}

export function wireGuardPresharedKey(): string {
  return randomBytes(32).toString('base64');
}

/** Returns when its socket answers and the interface is up with its addresses and routes. */
export async function startWireGuardGo(
  host: LabHost,
  name: string,
  options: WireGuardGoOptions = {},
): Promise<WireGuardGo> {
  const { keys = wireGuardKeys(), mtu, addresses = [], peers = [], routes = true, log = 'error' } = options;
  const env = { ...peerEnvironment(), LOG_LEVEL: log };
  const process = host.spawn(PROGRAMS.wireguardGo, ['-f', name], { env });
  await eventually(`wireguard-go ${name} answers`, async () => {
    if (!process.running) throw new Error(`wireguard-go has ended:\n${process.stdout}${process.stderr}`);
    return (await isListening(`/proc/${host.pid}/root/run/wireguard/${name}.sock`)) || undefined;
  });
  const listen = options.listenPort === undefined ? [] : [`ListenPort = ${options.listenPort}`];
  await configuration(host, 'setconf', name, [
    '[Interface]',
    `PrivateKey = ${keys.privateKey}`,
    ...listen,
    ...peers.flatMap(peerLines),
  ]);
  if (mtu !== undefined) await host.ip(`link set ${name} mtu ${mtu}`);
  await host.configure(name, addresses);
  const route = async (added: readonly WireGuardPeer[]) => {
    const allowed = added.flatMap(({ allowedIps }) => allowedIps);
    if (routes && allowed.length > 0) await host.ip(...allowed.map((each) => `route replace ${each} dev ${name}`));
  };
  await route(peers);
  const { listenPort } = await showWireGuard(host, name);
  return {
    ...keys,
    host,
    name,
    process,
    listenPort,
    set: async (...words) => {
      await wg(host, ['set', name, ...words]);
    },
    addPeers: async (...added) => {
      await configuration(host, 'addconf', name, added.flatMap(peerLines));
      await route(added);
    },
    show: () => showWireGuard(host, name),
    stop: async () => {
      await process.kill();
    },
  };
}

/** Not asked with wg(8), which removes a socket that is bound and does not listen yet. */
function isListening(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

/** What wg(8) prints. */
export async function wg(host: LabHost, args: readonly string[], input = ''): Promise<string> {
  const { stdout } = await host.run(PROGRAMS.wg, args, { env: peerEnvironment(), input });
  return stdout;
}

/** `wg show NAME dump`; see wg(8). */
export async function showWireGuard(host: LabHost, name: string): Promise<WireGuardDump> {
  const [first = '', ...rest] = (await wg(host, ['show', name, 'dump'])).trimEnd().split('\n');
  const [privateKey, publicKey, listenPort, fwmark] = first.split('\t');
  return {
    privateKey: orNone(privateKey),
    publicKey: orNone(publicKey),
    listenPort: Number(listenPort),
    fwmark: fwmark === 'off' ? 0 : Number(fwmark),
    peers: rest.map(parsePeer),
  };
}

function parsePeer(line: string): WireGuardPeerDump {
  const [publicKey = '', presharedKey, endpoint, allowedIps, handshake, received, sent, keepalive] = line.split('\t');
  return {
    publicKey,
    presharedKey: orNone(presharedKey),
    endpoint: orNone(endpoint),
    allowedIps: orNone(allowedIps)?.split(',') ?? [],
    latestHandshake: Number(handshake),
    receivedBytes: Number(received),
    sentBytes: Number(sent),
    persistentKeepalive: keepalive === 'off' ? 0 : Number(keepalive),
  };
}

function orNone(word: string | undefined): string | undefined {
  return word === '(none)' ? undefined : word;
}

function peerLines(peer: WireGuardPeer): string[] {
  const { publicKey, presharedKey, endpoint, allowedIps, persistentKeepalive } = peer;
  return [
    '[Peer]',
    `PublicKey = ${publicKey}`,
    ...(presharedKey === undefined ? [] : [`PresharedKey = ${presharedKey}`]),
    ...(endpoint === undefined ? [] : [`Endpoint = ${endpoint}`]),
    ...(allowedIps.length === 0 ? [] : [`AllowedIPs = ${allowedIps.join(', ')}`]),
    ...(persistentKeepalive === undefined ? [] : [`PersistentKeepalive = ${persistentKeepalive}`]),
  ];
}

/** Through a pipe of the shell's: wg opens its file by name, and what node gives as standard input is a socket, which cannot be. */
async function configuration(host: LabHost, how: 'setconf' | 'addconf', name: string, lines: string[]): Promise<void> {
  const script = 'cat | "$0" "$1" "$2" /dev/stdin';
  const input = `${lines.join('\n')}\n`;
  await host.run('sh', ['-c', script, PROGRAMS.wg, how, name], { env: peerEnvironment(), input });
}

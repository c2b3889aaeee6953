/**
 * The standard lab with a WireGuard server, and vpnctl as the users of `app` run it:
 *
 *   app                                     router        server
 *   uid 2001: vpnctl up office.conf                       eth0 198.51.100.2, 2001:db8:2::2
 *   vpn-tun0 10.7.0.2/24, fd07::2/64 ═══ UDP 51820 ═══ wg0 10.7.0.1/24, fd07::1/64: wireguard-go, and DNS of the name `inside`
 *
 * The server answers as `server` wherever it is asked; what it sees as the client's address tells the path.
 */
import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { TunnelStatus } from '../../../src/cli/tunnel-status.js';
import { startPeer } from './peers.js';
import type { LabProcess, Result } from './process.js';
import { ADDRESSES } from './standard-lab.js';
import { requirePeers } from './unpacked-peers.js';
import { type VpnLab, type VpnLabOptions, vpnLab } from './vpn-lab.js';
import {
  startWireGuardGo,
  type WireGuardGo,
  type WireGuardKeys,
  wireGuardKeys,
  wireGuardPresharedKey,
} from './wireguard-go.js';

export const VPNCTL = 'dist/src/cli/vpnctl.js';
export const WG_PORT = 51820;
/** Inside the tunnel. */
export const INSIDE = {
  client: { ipv4: '10.7.0.2', ipv6: 'fd07::2' },
  server: { ipv4: '10.7.0.1', ipv6: 'fd07::1' },
} as const;

export interface VpnctlLab extends VpnLab {
  wireguard: WireGuardGo;
  /** The client's. */
  keys: WireGuardKeys;
  presharedKey: string;
}

export interface User {
  readonly uid: number;
  /** Of the user's own, mode 0700: files and, in `runtime`, sockets. */
  readonly home: string;
  readonly runtime: string;
  /** Writes a file of mode 0600 in the user's home, and returns its path. */
  write(name: string, text: string): string;
  vpnctl(...words: string[]): Promise<Result>;
  spawnVpnctl(...words: string[]): LabProcess;
  /** What `vpnctl status --json` says of the user's only VPN. */
  status(): Promise<TunnelStatus | undefined>;
}

/** Undefined when no lab can be built here; the test is skipped then. */
export async function vpnctlLab(t: TestContext, options: VpnLabOptions = {}): Promise<VpnctlLab | undefined> {
  if (!requirePeers(t)) return undefined;
  const lab = await vpnLab(t, { networks: [], ...options });
  if (!lab) return undefined;
  const [keys, presharedKey] = [wireGuardKeys(), wireGuardPresharedKey()];
  const wireguard = await startWireGuardGo(lab.server, 'wg0', {
    listenPort: WG_PORT,
    addresses: [`${INSIDE.server.ipv4}/24`, `${INSIDE.server.ipv6}/64`],
    peers: [
      {
        publicKey: keys.publicKey,
        presharedKey,
        allowedIps: [`${INSIDE.client.ipv4}/32`, `${INSIDE.client.ipv6}/128`],
      },
    ],
  });
  const inside = Object.values(INSIDE.server);
  await startPeer(
    lab.server,
    ...inside.map((address) => ({ kind: 'dns' as const, name: 'inside', a: '192.0.2.98', address })),
  );
  return { ...lab, wireguard, keys, presharedKey };
}

/** A user of `app`, with a home and a session of its own. */
export function userOf({ lab, app, vpnd }: VpnLab, uid: number): User {
  const home = join(lab.directory, `home-${uid}`);
  const runtime = join(lab.directory, `run-${uid}`);
  for (const folder of [home, runtime]) {
    mkdirSync(folder, { mode: 0o700 });
    chownSync(folder, uid, uid);
  }
  const options = { uid, env: { VPND_SOCKET: vpnd.socket, XDG_RUNTIME_DIR: runtime, HOME: home } };
  const vpnctl = (...words: string[]) => app.node(VPNCTL, words, { ...options, check: false, timeoutMs: 60_000 });
  return {
    uid,
    home,
    runtime,
    write: (name, text) => {
      const path = join(home, name);
      writeFileSync(path, text);
      chmodSync(path, 0o600);
      chownSync(path, uid, uid);
      return path;
    },
    vpnctl,
    spawnVpnctl: (...words) => app.spawnNode(VPNCTL, words, options),
    status: async () => {
      const { stdout } = await vpnctl('status', '--json');
      const { vpns } = JSON.parse(stdout) as { vpns: { tunnel?: TunnelStatus }[] };
      return vpns[0]?.tunnel;
    },
  };
}

/** A file with everything through the tunnel, IPv4 and IPv6, DNS too. `more`: further lines of [Interface] and of [Peer]. */
export function officeConf(
  lab: VpnctlLab,
  more: { interface?: string[]; peer?: string[]; endpoint?: string } = {},
): string {
  const { keys, presharedKey, wireguard } = lab;
  return [
    '[Interface]',
    `PrivateKey = ${keys.privateKey}`,
    `Address = ${INSIDE.client.ipv4}/24, ${INSIDE.client.ipv6}/64`,
    `DNS = ${INSIDE.server.ipv4}, ${INSIDE.server.ipv6}, office.test`,
    ...(more.interface ?? []),
    '[Peer]',
    `PublicKey = ${wireguard.publicKey}`,
    `PresharedKey = ${presharedKey}`,
    `Endpoint = ${more.endpoint ?? `${ADDRESSES.server.ipv4}:${WG_PORT}`}`,
    'AllowedIPs = 0.0.0.0/0, ::/0',
    ...(more.peer ?? []),
    '',
  ].join('\n');
}

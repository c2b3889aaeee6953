/**
 * OpenVPN between two hosts of the lab, point to point: TLS with keys that know each other by fingerprint (no CA), data in
 * ChaCha20-Poly1305 through user space (no DCO), with buffers as large as the others have.
 */
import { chmodSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { LabHost } from './host.js';
import { execute, type LabProcess } from './process.js';
import { PROGRAMS, peerEnvironment } from './unpacked-peers.js';

export interface OpenVpnEnd {
  host: LabHost;
  /** The link's. */
  name: string;
  /** Inside the tunnel. */
  ipv4: string;
  ipv6: string;
}

export interface OpenVpnServer extends OpenVpnEnd {
  /** Where the client finds it. */
  outside: string;
  port: number;
}

interface Key {
  certificate: string;
  key: string;
  fingerprint: string;
}

const MTU = 1420;
const SOCKET_BUFFER_BYTES = 4 << 20;

/** Returns server and client when both say that they are connected. */
export async function startOpenVpn(
  server: OpenVpnServer,
  client: OpenVpnEnd,
): Promise<{ server: LabProcess; client: LabProcess }> {
  const directory = join(server.host.directory, `openvpn-${server.name}`);
  mkdirSync(directory);
  chmodSync(directory, 0o700);
  const [serverKey, clientKey] = [await makeKey(directory, 'server'), await makeKey(directory, 'client')];
  const ofServer = ['--tls-server', '--dh', 'none', '--lport', String(server.port)];
  const ofClient = ['--tls-client', '--remote', server.outside, String(server.port), 'udp', '--nobind'];
  const processes = {
    server: spawn(server, client, [...ofServer, ...identity(serverKey, clientKey)]),
    client: spawn(client, server, [...ofClient, ...identity(clientKey, serverKey)]),
  };
  await processes.server.waitFor(/Initialization Sequence Completed/, 30_000);
  await processes.client.waitFor(/Initialization Sequence Completed/, 30_000);
  return processes;
}

function spawn(end: OpenVpnEnd, far: OpenVpnEnd, more: readonly string[]): LabProcess {
  const buffer = String(SOCKET_BUFFER_BYTES);
  const device = ['--dev', end.name, '--dev-type', 'tun', '--tun-mtu', String(MTU), '--disable-dco'];
  const inside = ['--ifconfig', end.ipv4, far.ipv4, '--ifconfig-ipv6', `${end.ipv6}/64`, far.ipv6];
  const data = ['--data-ciphers', 'CHACHA20-POLY1305', '--sndbuf', buffer, '--rcvbuf', buffer];
  // Its own packets are never larger than the link's, so the TCP inside needs no advice.
  const args = [...device, ...inside, ...data, '--proto', 'udp', '--mssfix', '0', '--verb', '3', ...more];
  return end.host.spawn(PROGRAMS.openvpn, args, { env: peerEnvironment() });
}

function identity(own: Key, peer: Key): string[] {
  return ['--cert', own.certificate, '--key', own.key, '--peer-fingerprint', peer.fingerprint];
}

async function makeKey(directory: string, name: string): Promise<Key> {
  const [certificate, key] = [join(directory, `${name}.crt`), join(directory, `${name}.key`)];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '3'];
  await execute('openssl', ['req', '-x509', ...kind, '-subj', `/CN=${name}`, '-keyout', key, '-out', certificate]);
  const { stdout } = await execute('openssl', ['x509', '-in', certificate, '-noout', '-fingerprint', '-sha256']);
  return { certificate, key, fingerprint: stdout.trim().replace(/^.*=/, '') };
}

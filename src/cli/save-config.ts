/**
 * SaveConfig of a wg-quick file: on the way down the file is written anew with the keys, the port and the peers as they are then.
 * Addresses, DNS, MTU and commands stay as they were; comments go.
 */
import { closeSync, fsyncSync, openSync, realpathSync, renameSync, unlinkSync, writeFileSync } from 'node:fs';
import { parseAllowedIp } from '../tunnel/wireguard/device-config.js';
import type { UapiDevice } from '../tunnel/wireguard/uapi.js';
import { namedPeers } from './endpoint-search.js';
import type { At, QuickEndpoint, QuickFile, QuickPeer } from './wireguard/quick-file.js';
import { printQuickFile } from './wireguard/quick-print.js';

/** The file with the device's state. A peer that the file calls by name keeps it. Throws when there is no private key to save. */
export function withDevice(file: QuickFile, { privateKey, listenPort, peers }: UapiDevice): QuickFile {
  if (privateKey === undefined) throw new Error('the tunnel has no private key');
  const at = <T>(value: T): At<T> => ({ value, line: 0 });
  const named = namedPeers(file.peers);
  const saved = peers.map((peer): QuickPeer => {
    const { publicKey, presharedKey, endpoint, allowedIps, persistentKeepaliveSeconds } = peer;
    const literal: QuickEndpoint | undefined = endpoint && {
      host: endpoint.address,
      port: endpoint.port,
      zone: endpoint.scopeId ? String(endpoint.scopeId) : undefined,
    };
    return {
      line: 0,
      publicKey: at(publicKey),
      presharedKey: presharedKey && at(presharedKey),
      allowedIps: allowedIps.flatMap((text) => parseAllowedIp(text) ?? []).map(at),
      endpoint: named.get(Buffer.from(publicKey).toString('base64')) ?? (literal && at(literal)),
      persistentKeepaliveSeconds,
    };
  });
  const own = { ...file.interface, privateKey: at(privateKey), listenPort: at(listenPort) };
  return { ...file, interface: own, peers: saved };
}

/** All of it or nothing: written beside the file, and put in its place when it is on the disk. */
export function saveConfig(path: string, file: QuickFile): void {
  const target = realpathSync(path);
  const beside = `${target}.${process.pid}.tmp`;
  const fd = openSync(beside, 'wx', 0o600);
  try {
    const bytes = Buffer.from(printQuickFile(file));
    // All of it, or an error: write(2) alone may stop at a limit, or where the disk is full.
    writeFileSync(fd, bytes);
    bytes.fill(0);
    fsyncSync(fd);
    renameSync(beside, target);
  } catch (error) {
    unlinkSync(beside);
    throw error;
  } finally {
    closeSync(fd);
  }
}

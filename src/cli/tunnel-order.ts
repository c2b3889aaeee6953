/** What `vpnctl up` has found out about a tunnel and hands to the process that runs it: over a pipe, because it has keys in it. */
import { deserialize, serialize } from 'node:v8';
import type { VpnConfig } from '../model/vpn-types.js';
import type { DeviceChange } from '../tunnel/wireguard/device-config.js';
import type { QuickFile } from './wireguard/quick-file.js';

export interface TunnelOrder {
  /** The file's name without .conf. */
  name: string;
  /** The file, absolute. */
  path: string;
  file: QuickFile;
  config: VpnConfig;
  /** Of the vNIC. */
  mtu: number;
  /** Its keys are those of `file`. */
  change: DeviceChange;
  /** Where the process writes its lines; absent in the foreground. */
  log?: string;
  /** By host name, all addresses it had. */
  addresses: ReadonlyMap<string, readonly string[]>;
  /** Names, or routes to peers, that were not to be had yet. */
  waitingFor: readonly string[];
}

/** Both ends are of one program, so the form is node's own (the structured clone algorithm); bytes stay bytes, for zeroing. */
export function encodeOrder(order: TunnelOrder): Buffer {
  return serialize(order);
}

/** The keys in the order are copies: `bytes` can be zeroed. */
export function decodeOrder(bytes: Buffer): TunnelOrder {
  return structuredClone(deserialize(bytes) as TunnelOrder);
}

/** Zeroes the secrets in it; for an order, those of its file are the same. */
export function wipeKeys({ privateKey, peers = [] }: DeviceChange): void {
  privateKey?.fill(0);
  for (const { presharedKey } of peers) presharedKey?.fill(0);
}

/** What our-tunnel.ts and tunnel-end.ts say to each other: JSON in which bytes are { base64 }. */
import type { DeviceChange } from '../../../src/tunnel/wireguard/device-config.js';

export type TunnelEndRequest =
  | { command: 'open'; name: string; port: number; offload: boolean }
  | { command: 'start'; mtu: number; change: DeviceChange }
  | { command: 'configure'; change: DeviceChange }
  | { command: 'move'; port: number }
  | { command: 'status' }
  | { command: 'close' };

export function encodeBytes(value: unknown): string {
  // A Buffer has its own toJSON(), which comes first: so the value is looked up where it stands.
  return JSON.stringify(value, function (this: Record<string, unknown>, key: string, each: unknown) {
    const bytes = this[key];
    return bytes instanceof Uint8Array ? { base64: Buffer.from(bytes).toString('base64') } : each;
  });
}

export function decodeBytes(text: string): unknown {
  return JSON.parse(text, (_, each: unknown) => {
    const { base64 } = (each ?? {}) as { base64?: unknown };
    return typeof base64 === 'string' ? new Uint8Array(Buffer.from(base64, 'base64')) : each;
  });
}

/**
 * What a wg-quick file says (wg-quick(8), wg(8)), as plain values. Everything that can turn out wrong later keeps its line.
 * Addresses are canonical; nothing here depends on the machine.
 */
import type { Prefix } from '../../model/address.js';

export interface At<T> {
  readonly value: T;
  /** From 1. */
  readonly line: number;
}

export interface QuickFile {
  /** As the user named it, for problems. */
  readonly path: string;
  readonly interface: QuickInterface;
  /** In the file's order; may be none, `wg set` can add some. */
  readonly peers: readonly QuickPeer[];
}

export interface QuickInterface {
  /** Of the first [Interface]. */
  readonly line: number;
  /** Undefined only with a PostUp, which may set one. */
  readonly privateKey: At<Uint8Array> | undefined;
  /** 0: any. */
  readonly listenPort: At<number> | undefined;
  /** Not used: the service marks the socket. */
  readonly fwMark: At<number> | undefined;
  /** At least one; hosts' addresses, with their host bits. */
  readonly addresses: readonly At<Prefix>[];
  readonly dnsServers: readonly At<string>[];
  readonly searchDomains: readonly At<string>[];
  readonly mtu: At<number> | undefined;
  readonly table: 'auto' | 'off';
  /** Empty unless hooks are allowed. */
  readonly hooks: Readonly<Record<Hook, readonly At<string>[]>>;
  /** False unless hooks are allowed. */
  readonly saveConfig: boolean;
}

/** Commands for a shell, in the order of the file; `%i` stands for the interface, and whoever runs them replaces it. */
export type Hook = 'preUp' | 'postUp' | 'preDown' | 'postDown';

export interface QuickPeer {
  /** Of its [Peer]. */
  readonly line: number;
  readonly publicKey: At<Uint8Array>;
  readonly presharedKey: At<Uint8Array> | undefined;
  /** Host bits are clear, no prefix twice. */
  readonly allowedIps: readonly At<Prefix>[];
  readonly endpoint: At<QuickEndpoint> | undefined;
  /** 0: off. */
  readonly persistentKeepaliveSeconds: number;
}

export interface QuickEndpoint {
  /** An IP literal or a host name. */
  readonly host: string;
  readonly port: number;
  /** The interface of a link-local address. */
  readonly zone: string | undefined;
}

/** @example prefixText({ address: '10.0.0.0', prefixLength: 8 }) // '10.0.0.0/8' */
export function prefixText({ address, prefixLength }: Prefix): string {
  return `${address}/${prefixLength}`;
}

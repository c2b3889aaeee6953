/** The value types of `@ohos.net.socket`, as far as they exist here. Only IP literals; no host names, no zones. */
export type { NetAddress } from '../model/vpn-types.js';

import type { NetAddress } from '../model/vpn-types.js';

/** `timeout` in milliseconds; absent or 0 leaves it to the kernel, which gives up after about two minutes. */
export interface TCPConnectOptions {
  address: NetAddress;
  timeout?: number;
}

/** What both protocols send: text, UTF-8 unless TCP's `encoding` says otherwise, or bytes. */
export type SocketData = string | ArrayBuffer | Uint8Array;

export interface TCPSendOptions {
  data: SocketData;
  encoding?: string;
}

export interface UDPSendOptions {
  data: SocketData;
  address: NetAddress;
}

/** Who sent a message, and how many bytes. An IPv4 peer of a dual-stack socket is shown as IPv4. */
export interface SocketRemoteInfo {
  address: string;
  family: 'IPv4' | 'IPv6';
  port: number;
  size: number;
}

export interface SocketMessageInfo {
  message: ArrayBuffer;
  remoteInfo: SocketRemoteInfo;
}

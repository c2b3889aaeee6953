/** What a tunnel's owner and its thread say to each other. */
import type { TunnelCounters } from './counters.js';

export interface TunnelInput {
  /** Duplicates that the owner closes when the thread has ended. */
  tunFd: number;
  socketFd: number;
  /** An eventfd: written after every message, since the thread waits in poll(2) and not for messages. */
  wakeFd: number;
  mtu: number;
  /** URL of the module that exports createProtocol. */
  protocol: string;
  options: unknown;
  /** stop[0]: 1 when the thread is to end, also when no message can be sent any more. */
  stop: Int32Array;
}

export type TunnelRequest = { id: number } & (
  | { kind: 'call'; request: unknown }
  | { kind: 'status' }
  | { kind: 'socket'; fd: number }
);

export interface TunnelReply {
  id: number;
  result?: unknown;
  /** A message: errors of the thread's own making have no secrets. */
  error?: string;
}

/** Whether the offloads are on: `tun`: names of TUN_F_* (tuntap.rst); `socket`: UDP_SEGMENT. */
export interface TunnelStatus {
  counters: TunnelCounters;
  offload: { vnetHeader: boolean; tcp: boolean; udp: boolean; socket: boolean };
}

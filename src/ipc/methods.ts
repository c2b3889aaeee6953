/** The one table of what can be asked over the service's socket, with the shapes of parameters and results. */
import type { LeakException } from '../model/leak-exception.js';
import type { VpnConfig } from '../model/vpn-types.js';

export const PROTOCOL_VERSION = 1;

/** JSON-RPC 2.0's own codes, for what is wrong with a request as such. The API's codes are positive. */
export const RPC = { parseError: -32700, invalidRequest: -32600, methodNotFound: -32601 } as const;

/** One VPN as `status` shows it. */
export interface VpnStatus {
  uid: number;
  /** The process that set it up. */
  pid: number;
  program: string;
  link: string;
  /** ISO 8601. */
  since: string;
  addresses: string[];
  routes: number;
  dnsAddresses: string[];
  searchDomains: string[];
  mtu: number;
  isIPv4Accepted: boolean;
  isIPv6Accepted: boolean;
  isBlocking: boolean;
  /** Whether the TUN has IFF_VNET_HDR. */
  offload: boolean;
  isLegacy: boolean;
  isMetered: boolean;
  vpnId?: string;
  trustedApplications: string[];
  blockedApplications: string[];
  /** What of it does not work on this machine, and what helps. */
  warnings?: string[];
}

export interface ServiceStatus {
  version: string;
  pid: number;
  vpns: VpnStatus[];
  /** The policy's `lockdown`, as far as it is the caller's; for root all of it. 0 stands for everyone. */
  lockdown: number[];
}

/** What `subscribe` streams. Sequence numbers rise by one an event; one who sees a gap has no right to what is missing. */
export type ServiceEvent = { sequence: number; time: string } & (
  | { type: 'up'; uid: number; pid: number; link: string }
  | { type: 'down'; uid: number; link: string; reason: DownReason }
  | { type: 'policy' }
  /** Somebody takes away what is the service's, again and again; objects in words. */
  | { type: 'contested'; what: string[] }
);

export type DownReason = 'destroyed' | 'process ended' | 'disabled by policy' | 'service ends';

export interface Methods {
  /**
   * First on every connection. `isSystem`: whether the policy counts the caller as a system application; if not, `reason` says why and
   * what to do.
   */
  hello: {
    params: { protocol: number };
    result: { protocol: number; version: string; isSystem: boolean; reason?: string };
  };
  /**
   * fds: 1, a unix stream socket through which one byte with the TUN descriptor comes before the reply. `offload`: a TUN with
   * IFF_VNET_HDR; default false.
   */
  setUp: { params: { config: VpnConfig; offload?: boolean }; result: { link: string } };
  /** fds: 1, the socket. */
  protect: { params: Record<string, never>; result: Record<string, never> };
  destroy: { params: Record<string, never>; result: Record<string, never> };
  /**
   * Puts the calling process, and what it starts from then on, into a new cgroup that shows the application's id; `cgroup` is its
   * path. Once a connection.
   */
  enter: { params: { app: string }; result: { cgroup: string } };
  /** The caller's own VPN; for root, all. */
  status: { params: Record<string, never>; result: ServiceStatus };
  /**
   * Has the policy file read again, as SIGHUP does; root only. `file`: the policy's. `problem`: why the policy of before stays, or is
   * not in force as a whole.
   */
  reload: { params: Record<string, never>; result: { file: string; problem?: string } };
  /** What may leave outside the tunnel of the caller's own VPN, and under lockdown; for root, of all. */
  leaks: { params: Record<string, never>; result: { exceptions: LeakException[] } };
  /** Events of the caller's own VPN, for root of all, as notifications named `event`. */
  subscribe: { params: Record<string, never>; result: { sequence: number } };
}

export type Method = keyof Methods;

/** How many descriptors each request carries. */
export const METHOD_FDS: Readonly<Record<Method, number>> = {
  hello: 0,
  setUp: 1,
  protect: 1,
  destroy: 0,
  enter: 0,
  status: 0,
  leaks: 0,
  reload: 0,
  subscribe: 0,
};

export function isMethod(name: unknown): name is Method {
  return typeof name === 'string' && Object.hasOwn(METHOD_FDS, name);
}

export const DEFAULT_SOCKET = '/run/vpnd/vpnd.sock';

/** Where the service listens. `VPND_SOCKET` overrides it on both sides. */
export function socketPath(): string {
  return process.env.VPND_SOCKET || DEFAULT_SOCKET;
}

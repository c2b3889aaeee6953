/** What the administrator's policy says of the host's networks; service/policy.ts reads it. */
import type { LanPolicy } from './lan.js';

export interface HostPolicy {
  /** Local networks that covered traffic may reach directly. */
  readonly lan: LanPolicy;
  /** UDP ports of wildcard-bound servers whose answers leave as without a VPN. */
  readonly udpServices: readonly number[];
  /** What becomes of traffic that a link forwards while root's VPN is up; others' goes through it. */
  readonly forwarding: ReadonlyMap<string, 'direct' | 'block'>;
  /** Users who reach nothing without a VPN; 0 stands for everyone. */
  readonly lockdown: ReadonlySet<number>;
}

export const DEFAULT_HOST_POLICY: HostPolicy = {
  lan: 'private',
  udpServices: [],
  forwarding: new Map(),
  lockdown: new Set(),
};

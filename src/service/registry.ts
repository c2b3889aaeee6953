/**
 * Which user has which VPN. A user's calls are worked in order of arrival; different users do not wait for each other
 * here. It owns the slots: a slot is free again when its VPN has been taken down, not before.
 */

import { SLOTS } from '../host/numbers.js';
import type { RaisedVpn, VpnHost, VpnRequest } from '../host/vpn-host.js';
import type { DownReason } from '../ipc/methods.js';
import { Lane } from '../kernel/lane.js';
import { BusinessError } from '../model/errors.js';
import type { VpnSpec } from '../model/vpn-spec.js';

/** A VPN that is up. */
export interface LiveVpn {
  owner: number;
  raised: RaisedVpn;
  spec: VpnSpec;
  pid: number;
  program: string;
  since: Date;
}

export class Registry {
  readonly #host: VpnHost;
  readonly #onDown: (vpn: LiveVpn, reason: DownReason) => void;
  readonly #live = new Map<number, LiveVpn>();
  readonly #slots = new Set<number>();
  readonly #lanes = new Map<number, { lane: Lane; users: number }>();

  constructor(host: VpnHost, onDown: (vpn: LiveVpn, reason: DownReason) => void) {
    this.#host = host;
    this.#onDown = onDown;
  }

  /** Runs a user's call behind the calls of the same user that came before it. */
  async inOrder<T>(uid: number, work: () => Promise<T>): Promise<T> {
    const entry = this.#lanes.get(uid) ?? { lane: new Lane(), users: 0 };
    this.#lanes.set(uid, entry);
    entry.users++;
    try {
      return await entry.lane.run(work);
    } finally {
      if (--entry.users === 0) this.#lanes.delete(uid);
    }
  }

  /** True when nothing of this user's is under way. */
  isIdle(uid: number): boolean {
    return !this.#lanes.has(uid);
  }

  get(uid: number): LiveVpn | undefined {
    return this.#live.get(uid);
  }

  all(): LiveVpn[] {
    return [...this.#live.values()];
  }

  /** Every user with a VPN, or with calls under way that may yet make one. */
  users(): number[] {
    return [...new Set([...this.#live.keys(), ...this.#lanes.keys()])];
  }

  /** The name the next VPN's vNIC will have: routes may name it. */
  reserveSlot(): number {
    let slot = 0;
    while (this.#slots.has(slot)) slot++;
    if (slot >= SLOTS)
      throw new BusinessError(2200003, undefined, `there are ${SLOTS} VPNs already, which is the limit`);
    this.#slots.add(slot);
    return slot;
  }

  releaseSlot(slot: number): void {
    this.#slots.delete(slot);
  }

  /** Within `inOrder`, after checking that there is none. */
  async raise(request: VpnRequest, caller: { pid: number; program: string }): Promise<LiveVpn> {
    const raised = await this.#host.raise(request);
    const vpn = { owner: request.owner, raised, spec: request.spec, ...caller, since: new Date() };
    this.#live.set(request.owner, vpn);
    return vpn;
  }

  /** Within `inOrder`. Does nothing when the user has no VPN, or by now another one than `expected`. */
  async lower(uid: number, reason: DownReason, expected?: LiveVpn): Promise<void> {
    const vpn = this.#live.get(uid);
    if (!vpn || (expected && vpn !== expected)) return;
    try {
      await this.#host.lower(vpn.raised);
    } finally {
      this.#live.delete(uid);
      this.releaseSlot(vpn.raised.plan.slot);
      this.#onDown(vpn, reason);
    }
  }
}

/**
 * What a plan is made of: operations on kernel objects with the vNIC still by name, since it has no index before it exists.
 * Each knows its request and what undoes it; what hangs on the vNIC (addresses, device routes) goes with it.
 */
import type { NetlinkRequest } from '../kernel/netlink-socket.js';
import {
  type AddressSettings,
  addAddress,
  addRoute,
  addRule,
  deleteRoute,
  deleteRule,
  type RouteSettings,
  type RuleSettings,
  replaceRoute,
} from '../kernel/rtnetlink.js';

export type Operation =
  | ({ kind: 'address' } & Omit<AddressSettings, 'ifindex'>)
  | ({ kind: 'route' } & RouteSettings)
  | ({ kind: 'rule' } & RuleSettings);

/** The request that makes the object. `ifindex` is the vNIC's. */
export function addition(operation: Operation, ifindex: number): NetlinkRequest {
  if (operation.kind === 'address') return addAddress({ ...operation, ifindex });
  if (operation.kind === 'rule') return addRule(operation);
  return addRoute(operation, operation.dev === undefined ? undefined : ifindex);
}

/** Made one by one as they are sent: there may be 10,000. */
export function* additions(operations: readonly Operation[], ifindex: number): Generator<NetlinkRequest> {
  for (const operation of operations) yield addition(operation, ifindex);
}

/**
 * The request that makes it what it was, whether it is gone or somebody changed it. Of routes the kernel itself changes some:
 * those of IPv6 lose their source when the address goes.
 */
export function* restorations(operations: readonly Operation[], ifindex: number): Generator<NetlinkRequest> {
  for (const operation of operations) {
    if (operation.kind !== 'route') yield addition(operation, ifindex);
    else yield replaceRoute(operation, operation.dev === undefined ? undefined : ifindex);
  }
}

/** The request that removes it; undefined for what goes with the vNIC. */
export function removal(operation: Operation): NetlinkRequest | undefined {
  if (operation.kind === 'rule') return deleteRule(operation);
  if (operation.kind === 'route' && operation.dev === undefined) return deleteRoute(operation);
  return undefined;
}

/** Removals in reverse order, so that what leads to an object goes before the object. */
export function* removals(operations: readonly Operation[]): Generator<NetlinkRequest> {
  for (let index = operations.length - 1; index >= 0; index--) {
    const operation = operations[index];
    const request = operation && removal(operation);
    if (request) yield request;
  }
}

/**
 * Which addresses are the host's own, on links that are no VPN's. A vNIC with such an address would take what is sent from
 * it, root's sockets and the kernel's answers above all, into its own VPN. An address that appears on the host later is not
 * seen here, nor is one on a link that is down.
 */
import { networkInterfaces } from 'node:os';
import { InetSocket } from '../kernel/inet-socket.js';
import { SOCK_DGRAM } from '../kernel/socket-options.js';
import { KernelError } from '../model/errors.js';

const OURS = /^vpn-tun[0-9]+$/;

/** The index of the first of these literals that is the host's own, or -1. */
export function findHostAddress(literals: readonly string[]): number {
  if (!literals.some(mayBeBound)) return -1;
  const own = new Set<string>();
  for (const [link, addresses] of Object.entries(networkInterfaces())) {
    if (!OURS.test(link)) for (const { address } of addresses ?? []) own.add(address);
  }
  return literals.findIndex((literal) => own.has(literal));
}

/** False for almost every address, and much cheaper than a list of a thousand links. */
function mayBeBound(address: string): boolean {
  const socket = new InetSocket(SOCK_DGRAM);
  try {
    socket.bind({ address, port: 0 });
    return true;
  } catch (error) {
    return !(error instanceof KernelError && error.errnoName === 'EADDRNOTAVAIL');
  } finally {
    socket.close();
  }
}

/**
 * protect(): a socket's packets leave by the physical network from now on, by a mark on the socket itself. It works in any
 * state of the socket, with or without a VPN, and outlives both. A connection already made through the vNIC keeps its source
 * address: marked, yet of no use.
 */
import { isInetSocket, netnsCookie, setSocketMark, socketMark } from '../kernel/socket-options.js';
import { BusinessError } from '../model/errors.js';
import { BYPASS_MARK, MARK_FIELD } from './numbers.js';

/** Throws BusinessError 2203004 for what is no IP socket, 2200003 for a socket of another network namespace. */
export function protectSocket(fd: number, ownNetnsCookie: bigint): Record<string, never> {
  if (!isInetSocket(fd)) throw new BusinessError(2203004, 'socketFd', 'is not an AF_INET or AF_INET6 socket');
  if (netnsCookie(fd) !== ownNetnsCookie) {
    throw new BusinessError(2200003, 'socketFd', "belongs to another network namespace than the service's");
  }
  const marked = ((socketMark(fd) & ~MARK_FIELD) | BYPASS_MARK) >>> 0;
  setSocketMark(fd, marked);
  // Success is what the kernel says, not what was asked for.
  if (socketMark(fd) !== marked) throw new BusinessError(2200003, 'socketFd', 'the kernel did not keep the mark');
  return {};
}

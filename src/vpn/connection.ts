/**
 * VpnConnection: the API's object. It holds nothing: a VPN belongs to its user, the connection to the service to the process.
 * Codes and their order are those of docs/api.md.
 */
import type { Methods } from '../ipc/methods.js';
import { libc } from '../kernel/ffi.js';
import { isInetSocket } from '../kernel/socket-options.js';
import { receiveWithFds, unixPair } from '../kernel/unix-socket.js';
import { BusinessError } from '../model/errors.js';
import { isWithOffload } from '../model/offload.js';
import { parseVpnConfig } from '../model/vpn-config.js';
import type { VpnConfig } from '../model/vpn-types.js';
import { checkArguments } from './arguments.js';
import type { AsyncCallback } from './callbacks.js';
import { holdWhileUp, serviceConnection } from './client.js';
import { settle } from './settle.js';

const F_DUPFD_CLOEXEC = 1030;

export class VpnConnection {
  /** Only objects that createVpnConnection made have it; nothing enumerable, so that JSON shows `{}`. */
  readonly #made = true;

  /**
   * Sets up a VPN and gives the descriptor of its vNIC: a TUN, one IP packet a read and write, or with a config of withOffload
   * (`vpn-manager/tunnel`) one of that form. The number is the caller's to close. Throws 401; later 201, 202, 2200001, 2200002,
   * 2200003, 2203001, 2203002.
   *
   * @example const fd = await connection.setUp({ addresses: [{ address: { address: '10.0.0.5' }, prefixLength: 24 }] });
   */
  setUp(config: VpnConfig, callback: AsyncCallback<number>): void;
  setUp(config: VpnConfig): Promise<number>;
  setUp(...args: unknown[]): Promise<number> | undefined {
    VpnConnection.#check(this);
    const callback = checkArguments<number>(args, ['config']);
    const [given] = args;
    const params = { config: parseVpnConfig(given), ...(isWithOffload(given as VpnConfig) && { offload: true }) };
    return settle(callback, () => setUp(params), vpnError);
  }

  /**
   * Lets a socket's packets leave by the physical network instead of the VPN. Works in any state of the socket, before,
   * during and without a VPN. Throws 401; later 201, 202, 2200001, 2200002, 2200003, 2203004.
   *
   * @example await connection.protect(await udp.getSocketFd());
   */
  protect(socketFd: number, callback: AsyncCallback<void>): void;
  protect(socketFd: number): Promise<void>;
  protect(...args: unknown[]): Promise<void> | undefined {
    VpnConnection.#check(this);
    const callback = checkArguments<void>(args, ['socketFd']);
    const [socketFd] = args;
    if (typeof socketFd !== 'number') throw new BusinessError(401, 'socketFd', 'is not a number');
    return settle(callback, () => protect(socketFd), vpnError);
  }

  /**
   * Ends this user's VPN; success when there is none. Throws 401; later 201, 202, 2200002, 2200003.
   *
   * @example await connection.destroy();
   */
  destroy(callback: AsyncCallback<void>): void;
  destroy(): Promise<void>;
  destroy(...args: unknown[]): Promise<void> | undefined {
    VpnConnection.#check(this);
    const callback = checkArguments<void>(args, []);
    return settle(callback, destroy, vpnError);
  }

  static #check(self: unknown): void {
    if (typeof self !== 'object' || self === null || !(#made in self)) {
      throw new BusinessError(401, 'this', 'is not a VpnConnection; call the method on the object');
    }
  }
}

async function setUp(params: Methods['setUp']['params']): Promise<number> {
  const service = serviceConnection();
  // The descriptor comes back through this pair, so only over the connection that carries its other end.
  const [mine, theirs] = unixPair();
  try {
    const { link } = await service.call('setUp', params, [theirs], () => void libc.close(theirs));
    const received = receiveWithFds(mine);
    const [fd, ...surplus] = typeof received === 'string' ? [] : received.fds;
    for (const other of surplus) libc.close(other);
    if (fd === undefined) throw new BusinessError(2200003, undefined, 'the service sent no descriptor');
    holdWhileUp(service, link);
    return fd;
  } catch (error) {
    // Not answered in time does not mean not done: the end of the connection takes back whatever was done.
    if (error instanceof BusinessError && error.code === 2200002 && !service.isHeld) service.shutdown();
    throw error;
  } finally {
    libc.close(mine);
  }
}

async function protect(socketFd: number): Promise<void> {
  if (!Number.isInteger(socketFd) || socketFd < -(2 ** 31) || socketFd > 2 ** 31 - 1) {
    throw new BusinessError(2200001, 'socketFd', `${socketFd} is not a 32-bit integer`);
  }
  if (socketFd <= 0) throw new BusinessError(2203004, 'socketFd', `${socketFd} is not a positive number`);
  if (!isInetSocket(socketFd)) {
    throw new BusinessError(2203004, 'socketFd', `${socketFd} is not an open AF_INET or AF_INET6 socket`);
  }
  const service = serviceConnection();
  // A copy, because the app may close its number before the request has left.
  const copy = libc.fcntl(socketFd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) throw new BusinessError(2200003, 'socketFd', 'this process has no descriptor left');
  await service.call('protect', {}, [copy], () => void libc.close(copy));
}

async function destroy(): Promise<void> {
  const service = serviceConnection();
  await service.call('destroy', {});
  service.hold(false);
}

/** Whatever is none of the API's errors, such as no descriptor left in this process, is its 2200003. */
function vpnError(error: unknown): BusinessError {
  if (error instanceof BusinessError) return error;
  return new BusinessError(2200003, undefined, error instanceof Error ? error.message : String(error));
}

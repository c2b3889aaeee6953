/**
 * `socket` of `@kit.NetworkKit`, as far as the VPN examples use it: TCP and UDP socket objects whose number exists from
 * construction, so that it can be given to `VpnConnection.protect` at any time.
 *
 * @example
 * const udp = socket.constructUDPSocketInstance();
 * await udp.bind({ address: '0.0.0.0' });
 * await connection.protect(await udp.getSocketFd());
 */
import { TCPSocket } from './socket-tcp.js';
import { UDPSocket } from './socket-udp.js';

export type { SocketError } from './socket-error.js';
export type {
  NetAddress,
  SocketData,
  SocketMessageInfo,
  SocketRemoteInfo,
  TCPConnectOptions,
  TCPSendOptions,
  UDPSendOptions,
} from './socket-types.js';
export type { TCPSocket, UDPSocket };

/** Throws SocketError (2301000 + errno) when the kernel gives no socket. */
export function constructTCPSocketInstance(): TCPSocket {
  return new TCPSocket();
}

/** Throws SocketError (2301000 + errno) when the kernel gives no socket. */
export function constructUDPSocketInstance(): UDPSocket {
  return new UDPSocket();
}

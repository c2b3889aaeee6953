/** What app.ts does when it is told to, in the process and under the uid that the test wants it to have. */
import { closeSync, constants, openSync, read, writeSync } from 'node:fs';
import { createConnection } from 'node:net';
import type { Method } from '../../../../src/ipc/methods.js';
import { errnoName } from '../../../../src/kernel/errno.js';
import { errno, libc } from '../../../../src/kernel/ffi.js';
import { setSocketMark } from '../../../../src/kernel/socket-options.js';
import type { KernelError } from '../../../../src/model/errors.js';
import type { Family, VpnConfig } from '../../../../src/model/vpn-types.js';
import { packets, withOffload } from '../../../../src/tunnel/index.js';
import { serviceConnection } from '../../../../src/vpn/client.js';
import * as kit from '../../../../src/vpn/socket.js';
import { createVpnConnection } from '../../../../src/vpn/vpn.js';
import { parsePacket } from '../pcap.js';
import { NativeSocket, type Transport } from './native-socket.js';
import { offloadOperations } from './offload.js';
import { ask, askOn, type Question } from './question.js';

/** A packet that the app read from its TUN. */
export interface TunnelPacket {
  family: Family | undefined;
  protocol: string;
  source: string;
  destination: string;
  destinationPort?: number;
}

/** ioctl(2) with a number in place of a pointer: not what libc.ioctl is declared with. */
const SYS_IOCTL = process.arch === 'arm64' ? 29 : 16;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;
const TUNSETIFF = 0x400454ca;
const TUNSETPERSIST = 0x400454cb;
const TUNSETOWNER = 0x400454cc;

const sockets = new Map<number, NativeSocket>();
const kitSockets = new Map<number, kit.TCPSocket | kit.UDPSocket>();
const recorded: TunnelPacket[] = [];
let flooding = false;
let connection: ReturnType<typeof createVpnConnection> | undefined;

function vpn() {
  connection ??= createVpnConnection({});
  return connection;
}

function opened(fd: number): NativeSocket {
  const found = sockets.get(fd);
  if (!found) throw new Error(`fd ${fd} was not opened here`);
  return found;
}

export const operations = {
  ...offloadOperations,

  setUp: (config: VpnConfig, offload = false): Promise<number> => vpn().setUp(offload ? withOffload(config) : config),
  protect: (fd: number): Promise<void> => vpn().protect(fd),
  destroy: (): Promise<void> => vpn().destroy(),

  /** Past the API: any request of the protocol, with descriptors. */
  request: (method: Method, params: object, fds: number[] = []): Promise<unknown> =>
    serviceConnection().call(method, params as never, fds),

  /** That many connections to a unix socket, each silent. */
  crowd: async (path: string, count: number): Promise<void> => {
    for (let made = 0; made < count; made++) createConnection(path).on('error', () => {});
  },

  /** Ends the connection to the service; the process lives on. */
  disconnect: async (): Promise<void> => serviceConnection().shutdown(),

  /** The far end of the VPN: datagrams of a protected UDP socket. Returns the socket's number. */
  forward: async (fd: number, address: string, port: number): Promise<number> => {
    const tunnel = kit.constructUDPSocketInstance();
    await tunnel.bind({ address: '0.0.0.0' });
    await vpn().protect(await tunnel.getSocketFd());
    const stream = packets(fd);
    tunnel.on('message', ({ message }) => void stream.write(new Uint8Array(message)));
    void (async () => {
      for await (const packet of stream) tunnel.send({ address: { address, port }, data: packet }).catch(() => {});
    })();
    return tunnel.getSocketFd();
  },

  /** One packet, in hexadecimal, as if a server of the VPN had sent it. The kernel has taken it in when this resolves. */
  inject: async (fd: number, packet: string): Promise<void> => {
    writeSync(fd, Buffer.from(packet, 'hex'));
  },

  /** A VPN that leads nowhere: everything it is sent is kept for `recorded`. */
  record: async (fd: number): Promise<void> => {
    void (async () => {
      for await (const packet of packets(fd)) {
        const { family, protocol, source, destination, destinationPort } = parsePacket(packet);
        recorded.push({
          family,
          protocol,
          source,
          destination,
          ...(destinationPort !== undefined && { destinationPort }),
        });
      }
    })();
  },
  recorded: async (): Promise<TunnelPacket[]> => recorded,

  /** One read(2) in another thread: the number of bytes, or the errno's name. */
  read: (fd: number): Promise<number | string> =>
    new Promise((resolve) => {
      read(fd, Buffer.alloc(65536), 0, 65536, null, (error, bytes) =>
        resolve(
          error ? (error.code?.startsWith('Unknown') ? errnoName(-(error.errno ?? 0)) : (error.code ?? '')) : bytes,
        ),
      );
    }),

  /** What a holder of a TUN can do without any right, so that the device outlives its descriptor. `ok` or the errno's name. */
  keepDevice: async (fd: number): Promise<string[]> =>
    [
      [TUNSETPERSIST, 1],
      [TUNSETOWNER, process.getuid?.() ?? 0],
    ].map(([request = 0, argument = 0]) =>
      libc.syscall(SYS_IOCTL, fd, request, argument) < 0 ? errnoName(errno()) : 'ok',
    ),

  /** Opens /dev/net/tun and attaches to the device of this name, as its owner may. `ok` or the errno's name. */
  attach: async (name: string): Promise<string> => {
    let fd: number;
    try {
      fd = openSync('/dev/net/tun', constants.O_RDWR | constants.O_NONBLOCK);
    } catch (error) {
      return String((error as NodeJS.ErrnoException).code);
    }
    const request = Buffer.alloc(40);
    request.write(name, 0, 'latin1');
    request.writeUInt16LE(IFF_TUN | IFF_NO_PI, 16);
    const result = libc.ioctl(fd, TUNSETIFF, request) < 0 ? errnoName(errno()) : 'ok';
    closeSync(fd);
    return result;
  },

  /**
   * Sends four numbered datagrams a millisecond until told to stop (port 0). Tells the last number that the kernel refused,
   * 0 when there was none.
   */
  flood: async (address: string, port: number): Promise<{ sent: number; refused: { count: number; last: number } }> => {
    flooding = port !== 0;
    const refused = { count: 0, last: 0 };
    const data = Buffer.alloc(4);
    let number = 0;
    const socket = flooding ? new NativeSocket(address.includes(':') ? 2 : 1, 'udp') : undefined;
    while (flooding && socket) {
      for (let burst = 0; burst < 4; burst++) {
        data.writeUInt32BE(++number);
        try {
          socket.send(data, { address, port });
        } catch (error) {
          // A full queue says EAGAIN or ENOBUFS: that is no refusal.
          if (!/UNREACH$/.test((error as KernelError).errnoName)) continue;
          refused.count++;
          refused.last = number;
        }
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    socket?.close();
    return { sent: number, refused };
  },

  /** A socket object of the kit; the same operations as for others, under its number. */
  openKit: async (transport: Transport): Promise<number> => {
    const made = transport === 'tcp' ? kit.constructTCPSocketInstance() : kit.constructUDPSocketInstance();
    const fd = await made.getSocketFd();
    kitSockets.set(fd, made);
    return fd;
  },
  bindKit: async (fd: number): Promise<void> => kitSockets.get(fd)?.bind({ address: '::' }),
  /** Connects or sends, and tells what came back first, as `ask` does. */
  askKit: (fd: number, address: string, port = 7): Promise<string> =>
    new Promise((resolve, reject) => {
      const made = kitSockets.get(fd);
      if (!made) throw new Error(`fd ${fd} was not opened here`);
      const target = { address: { address, port } };
      const told = ({ message }: { message: ArrayBuffer }) =>
        resolve(Buffer.from(message).toString().split(' ').slice(0, 2).join(' '));
      if ('connect' in made) {
        made.on('message', told);
        made.connect(target).catch(reject);
      } else {
        made.on('message', told);
        made.send({ ...target, data: '?' }).catch(reject);
      }
    }),

  open: async (family: Family, transport: Transport): Promise<number> => {
    const made = new NativeSocket(family, transport);
    sockets.set(made.fd, made);
    return made.fd;
  },
  bind: async (fd: number, address: string, port = 0): Promise<void> => opened(fd).bind(address, port),
  connect: (fd: number, address: string, port: number): Promise<void> => opened(fd).connect(address, port),
  setMark: async (fd: number, mark: number): Promise<void> => setSocketMark(fd, mark),
  state: async (fd: number): Promise<{ cookie: string; mark: string }> => opened(fd).state,
  askOn: (fd: number, question: Question & { isConnected?: boolean }): Promise<string> => askOn(opened(fd), question),
  ask: (...questions: Question[]): Promise<string[]> => Promise.all(questions.map(ask)),

  close: async (fd: number): Promise<void> => {
    sockets.delete(fd);
    closeSync(fd);
  },
};

export type Operations = typeof operations;

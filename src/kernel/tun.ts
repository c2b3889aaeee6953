/**
 * TUN devices (kernel: Documentation/networking/tuntap.rst): one IP packet per read and write, no packet information, and on
 * request the header for segmentation offload before it (tun-offload.ts). The device lives as long as a descriptor of it or an
 * explicit delete; a holder could make it persistent without any right, so the end of a VPN is always RTM_DELLINK, never just
 * a close.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { KernelError } from '../model/errors.js';
import { attempt } from './absence.js';
import { lastError } from './errno.js';
import { libc } from './ffi.js';
import { ifindexOf } from './ifindex.js';

const TUNSETIFF = 0x400454ca;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
/** Fails when the name is taken, instead of attaching to somebody's persistent device. */
const IFF_TUN_EXCL = 0x8000;
const IFNAMSIZ = 16;
const F_GETFL = 3;
const F_SETFL = 4;

export interface Tun {
  fd: number;
  name: string;
  ifindex: number;
}

/**
 * Creates the device `name`, close-on-exec and non-blocking. `vnetHeader`: reads and writes begin with a virtio_net_hdr, which
 * cannot be changed later. Throws KernelError; EBUSY when the name is taken.
 */
export function openTun(name: string, { vnetHeader = false }: { vnetHeader?: boolean } = {}): Tun {
  const path = '/dev/net/tun';
  const fd = attempt('open', path, () => openSync(path, constants.O_RDWR | constants.O_NONBLOCK));
  const request = Buffer.alloc(40);
  request.write(name, 0, IFNAMSIZ - 1, 'latin1');
  request.writeUInt16LE(IFF_TUN | IFF_NO_PI | IFF_TUN_EXCL | (vnetHeader ? IFF_VNET_HDR : 0), IFNAMSIZ);
  try {
    if (libc.ioctl(fd, TUNSETIFF, request) < 0) throw lastError('TUNSETIFF', name);
    const ifindex = ifindexOf(name);
    if (ifindex === undefined) throw new KernelError('SIOCGIFINDEX', name, 'ENODEV');
    return { fd, name, ifindex };
  } catch (error) {
    // Nobody else has the descriptor yet: the device goes with it.
    closeSync(fd);
    throw error;
  }
}

/** Sets or clears O_NONBLOCK of the open file, for every holder of it. */
export function setBlocking(fd: number, blocking: boolean): void {
  const flags = libc.fcntl(fd, F_GETFL, 0);
  if (flags < 0) throw lastError('F_GETFL', `fd ${fd}`);
  const wanted = blocking ? flags & ~constants.O_NONBLOCK : flags | constants.O_NONBLOCK;
  if (libc.fcntl(fd, F_SETFL, wanted) < 0) throw lastError('F_SETFL', `fd ${fd}`);
}

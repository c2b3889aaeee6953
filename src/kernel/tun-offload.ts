/**
 * Segmentation offload of a TUN made with IFF_VNET_HDR (kernel: Documentation/networking/tuntap.rst; virtio 1.2 section
 * 5.1.6.2). Every read and write then begins with a struct virtio_net_hdr, and one of them may carry a super-packet of up to
 * 64 KiB that stands for many segments. What the kernel may send that way is the holder's choice (TUNSETOFFLOAD, no right
 * needed); what it takes does not depend on that. Nothing of segmenting and coalescing is here.
 *
 *   0       1          2         4          6            8             10
 *   | flags | gso_type | hdr_len | gso_size | csum_start | csum_offset | IP packet …      u8 u8 u16 u16 u16 u16, host order
 */
import { KernelError } from '../model/errors.js';
import { errnoName, lastError } from './errno.js';
import { errno, libc } from './ffi.js';

/** sizeof(struct virtio_net_hdr). */
export const VNET_HEADER_BYTES = 10;

/** flags: the checksum field holds the sum of the pseudo-header; the rest, from csum_start on, is to be added. */
export const VIRTIO_NET_HDR_F_NEEDS_CSUM = 1;
/** flags: the kernel knows the checksum to be right. */
export const VIRTIO_NET_HDR_F_DATA_VALID = 2;
export const VIRTIO_NET_HDR_GSO_NONE = 0;
export const VIRTIO_NET_HDR_GSO_TCPV4 = 1;
export const VIRTIO_NET_HDR_GSO_TCPV6 = 4;
/** From Linux 6.2 on. */
export const VIRTIO_NET_HDR_GSO_UDP_L4 = 5;
/** A bit beside the type: the first segment alone has CWR. */
export const VIRTIO_NET_HDR_GSO_ECN = 0x80;

/** What the kernel may send: unfinished checksums, which all others need, */
export const TUN_F_CSUM = 0x01;
/** TCP super-packets, */
export const TUN_F_TSO4 = 0x02;
export const TUN_F_TSO6 = 0x04;
/** also such with CWR, */
export const TUN_F_TSO_ECN = 0x08;
/** and UDP super-packets (Linux 6.2, only both together). */
export const TUN_F_USO4 = 0x20;
export const TUN_F_USO6 = 0x40;

const IFF_VNET_HDR = 0x4000;
const IFNAMSIZ = 16;
const TUNGETIFF = 0x800454d2;
const TUNSETOFFLOAD = 0x400454d0;
const TUNGETVNETHDRSZ = 0x800454d7;
const TUNSETVNETHDRSZ = 0x400454d8;
/** TUNSETOFFLOAD takes a number where libc.ioctl is declared with a pointer. */
const SYS_IOCTL = process.arch === 'x64' ? 16 : 29;

/** Whether reads and writes of this descriptor begin with a virtio_net_hdr. False, too, for what is no TUN, or one no more. */
export function vnetHeaderOf(fd: number): boolean {
  const request = Buffer.alloc(40);
  return libc.ioctl(fd, TUNGETIFF, request) >= 0 && (request.readUInt16LE(IFNAMSIZ) & IFF_VNET_HDR) !== 0;
}

/** TUNGETVNETHDRSZ. Throws KernelError. */
export function vnetHeaderBytes(fd: number): number {
  const size = Buffer.alloc(4);
  if (libc.ioctl(fd, TUNGETVNETHDRSZ, size) < 0) throw lastError('TUNGETVNETHDRSZ', `fd ${fd}`);
  return size.readInt32LE();
}

/** Back to VNET_HEADER_BYTES, whatever a holder before made of it. Throws KernelError. */
export function setVnetHeaderBytes(fd: number): void {
  const size = Buffer.alloc(4);
  size.writeInt32LE(VNET_HEADER_BYTES);
  if (libc.ioctl(fd, TUNSETVNETHDRSZ, size) < 0) throw lastError('TUNSETVNETHDRSZ', `fd ${fd}`);
}

/**
 * What the kernel may send from now on: an OR of TUN_F_*, 0 for whole packets with whole checksums. False when it does not
 * know one of them, and all is as before. For a descriptor with the header only: without it unfinished packets look finished.
 * Throws KernelError for any other refusal.
 */
export function setOffload(fd: number, flags: number): boolean {
  if (libc.syscall(SYS_IOCTL, fd, TUNSETOFFLOAD, flags) >= 0) return true;
  const name = errnoName(errno());
  if (name === 'EINVAL') return false;
  throw new KernelError('TUNSETOFFLOAD', `fd ${fd}`, name);
}

const TCP = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
const STEPS: readonly number[] = [TCP | TUN_F_USO4 | TUN_F_USO6, TCP, TUN_F_CSUM, 0];

/**
 * Turns on the most that the kernel has, and makes the header VNET_HEADER_BYTES long. Returns the TUN_F_* that are on: 0 for a
 * descriptor without the header, which is left alone. Never TUN_F_TSO_ECN: whoever segments then has to mind CWR.
 *
 * @example const canUdp = (probeOffload(fd) & TUN_F_USO4) !== 0;
 */
export function probeOffload(fd: number): number {
  if (!vnetHeaderOf(fd)) return 0;
  setVnetHeaderBytes(fd);
  return STEPS.find((flags) => setOffload(fd, flags)) ?? 0;
}

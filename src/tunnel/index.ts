/** `vpn-manager/tunnel`: packet I/O for any TUN file descriptor. Plain form: one IP packet a read and a write. */

export { withOffload } from '../model/offload.js';
export { type PacketCounters, type PacketStream, packets } from './packets.js';

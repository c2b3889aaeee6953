/** IP packets with a number in them, to be told apart at the other end. */
import { addressBytes } from '../../../../../src/model/address.js';

const IPV4_HEADER = 20;
const IPV6_HEADER = 40;

/** `length` is the packet's own; both addresses are of one family. The payload repeats `id`. */
export function ipPacket(source: string, destination: string, id: number, length = 60): Uint8Array {
  const packet = new Uint8Array(length);
  const view = new DataView(packet.buffer);
  const isIpv6 = source.includes(':');
  if (isIpv6) {
    packet[0] = 0x60;
    view.setUint16(4, length - IPV6_HEADER);
    packet.set(addressBytes(source), 8);
    packet.set(addressBytes(destination), 24);
  } else {
    packet[0] = 0x45;
    view.setUint16(2, length);
    packet.set(addressBytes(source), 12);
    packet.set(addressBytes(destination), 16);
  }
  for (let at = isIpv6 ? IPV6_HEADER : IPV4_HEADER; at + 4 <= length; at += 4) view.setUint32(at, id);
  return packet;
}

/** The number in it; NaN when the payload is not that of ipPacket(). */
export function idOf(packet: Uint8Array): number {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  const start = packet[0] === 0x60 ? IPV6_HEADER : IPV4_HEADER;
  const id = view.getUint32(start);
  for (let at = start; at + 4 <= packet.length; at += 4) if (view.getUint32(at) !== id) return Number.NaN;
  return id;
}

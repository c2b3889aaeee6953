/**
 * Netlink framing (RFC 3549, linux/netlink.h): messages, attributes, acknowledgements. Pure: bytes in, bytes out.
 *
 *   0               4       6       8               12              16
 *   | length        | type  | flags | sequence      | port id       | payload, attributes …
 *
 *   attribute:  | length 2 | type 2 | value, padded to 4 |     host byte order throughout
 */
import { writeAddress } from '../model/address.js';
import { KernelError } from '../model/errors.js';
import { errnoName } from './errno.js';

export const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_DUMP = 0x300;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;

const HEADER = 16;
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
const NLMSGERR_ATTR_MSG = 1;
const NLMSGERR_ATTR_OFFS = 2;
const EPROTO = 71;

const align = (length: number): number => (length + 3) & ~3;

/** Appends messages to one growing buffer, so that a batch is one send. Whatever is not written, as padding, is zero. */
export class NetlinkWriter {
  #buffer = Buffer.alloc(4096);
  #length = 0;
  #message = 0;

  /** Starts a message; `header` is the family header that follows netlink's own. */
  begin(type: number, flags: number, sequence: number, header: Uint8Array): void {
    this.#message = this.#length;
    this.#reserve(HEADER + align(header.length));
    this.#buffer.writeUInt16LE(type, this.#length + 4);
    this.#buffer.writeUInt16LE(flags, this.#length + 6);
    this.#buffer.writeUInt32LE(sequence, this.#length + 8);
    this.#copy(header, this.#length + HEADER);
    this.#length += HEADER + align(header.length);
  }

  attribute(type: number, value: Uint8Array): void {
    const size = 4 + value.length;
    this.#reserve(align(size));
    this.#buffer.writeUInt16LE(size, this.#length);
    this.#buffer.writeUInt16LE(type, this.#length + 2);
    this.#copy(value, this.#length + 4);
    this.#length += align(size);
  }

  attributeU32(type: number, value: number): void {
    this.#reserve(8);
    this.#buffer.writeUInt16LE(8, this.#length);
    this.#buffer.writeUInt16LE(type, this.#length + 2);
    this.#buffer.writeUInt32LE(value >>> 0, this.#length + 4);
    this.#length += 8;
  }

  /** An IP literal as 4 or 16 bytes. */
  attributeAddress(type: number, literal: string): void {
    this.#reserve(20);
    const size = 4 + writeAddress(literal, this.#buffer, this.#length + 4);
    this.#buffer.writeUInt16LE(size, this.#length);
    this.#buffer.writeUInt16LE(type, this.#length + 2);
    this.#length += size;
  }

  attributeString(type: number, value: string): void {
    this.attribute(type, Buffer.from(`${value}\0`));
  }

  /** An attribute whose value is attributes. */
  nested(type: number, write: () => void): void {
    const start = this.#length;
    this.#reserve(4);
    this.#length += 4;
    write();
    this.#buffer.writeUInt16LE(this.#length - start, start);
    this.#buffer.writeUInt16LE(type, start + 2);
  }

  end(): void {
    this.#buffer.writeUInt32LE(this.#length - this.#message, this.#message);
  }

  get length(): number {
    return this.#length;
  }

  /** What was written; valid until more is. */
  bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  /** By hand: for a few bytes, TypedArray's own copying costs more than it does. */
  #copy(bytes: Uint8Array, offset: number): void {
    for (let index = 0; index < bytes.length; index++) this.#buffer[offset + index] = bytes[index] ?? 0;
  }

  #reserve(size: number): void {
    if (this.#length + size <= this.#buffer.length) return;
    const grown = Buffer.alloc(Math.max(this.#buffer.length * 2, this.#length + size));
    this.#buffer.copy(grown, 0, 0, this.#length);
    this.#buffer = grown;
  }
}

export interface NetlinkMessage {
  type: number;
  flags: number;
  sequence: number;
  payload: Buffer;
}

/** Splits a datagram into messages. A length that does not fit ends the walk: the kernel never sends one. */
export function* readMessages(datagram: Buffer): Generator<NetlinkMessage> {
  let offset = 0;
  while (offset + HEADER <= datagram.length) {
    const length = datagram.readUInt32LE(offset);
    if (length < HEADER || offset + length > datagram.length) return;
    yield {
      type: datagram.readUInt16LE(offset + 4),
      flags: datagram.readUInt16LE(offset + 6),
      sequence: datagram.readUInt32LE(offset + 8),
      payload: datagram.subarray(offset + HEADER, offset + length),
    };
    offset += align(length);
  }
}

/** The attributes behind a family header of `skip` bytes; the last one of a type wins. */
export function readAttributes(payload: Buffer, skip: number): Map<number, Buffer> {
  const attributes = new Map<number, Buffer>();
  let offset = align(skip);
  while (offset + 4 <= payload.length) {
    const length = payload.readUInt16LE(offset);
    if (length < 4 || offset + length > payload.length) break;
    attributes.set(payload.readUInt16LE(offset + 2) & 0x3fff, payload.subarray(offset + 4, offset + length));
    offset += align(length);
  }
  return attributes;
}

export interface Acknowledgement {
  /** 0 for success, else the positive errno. */
  errno: number;
  extendedAck?: { message?: string; offset?: number };
}

/** Decodes NLMSG_ERROR, with the extended ack (NETLINK_EXT_ACK) when the kernel sent one. */
export function readAcknowledgement(message: NetlinkMessage): Acknowledgement {
  const { payload } = message;
  // The error and the header of the request it is about.
  if (payload.length < 4 + HEADER) return { errno: EPROTO };
  const errno = Math.abs(payload.readInt32LE(0));
  if ((message.flags & NLM_F_ACK_TLVS) === 0) return { errno };
  // The request is echoed behind the error, whole unless CAPPED.
  const echoed = message.flags & NLM_F_CAPPED ? HEADER : align(payload.readUInt32LE(4));
  const attributes = readAttributes(payload, 4 + echoed);
  const text = attributes.get(NLMSGERR_ATTR_MSG)?.toString('utf8').replace(/\0.*$/s, '');
  const at = attributes.get(NLMSGERR_ATTR_OFFS);
  const offset = at?.length === 4 ? at.readUInt32LE(0) : undefined;
  if (text === undefined && offset === undefined) return { errno };
  return {
    errno,
    extendedAck: { ...(text !== undefined && { message: text }), ...(offset !== undefined && { offset }) },
  };
}

export function acknowledgementError(call: string, object: string, ack: Acknowledgement): KernelError {
  return new KernelError(call, object, errnoName(ack.errno), ack.extendedAck);
}

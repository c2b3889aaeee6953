/**
 * Layout of the four messages (WireGuard paper, section 5.4). Offsets in bytes, numbers little-endian:
 *
 *   initiation  0 type │ 4 sender │ 8 ephemeral (32) │ 40 static (32+16) │ 88 timestamp (12+16) │ 116 mac1 │ 132 mac2 │ 148
 *   response    0 type │ 4 sender │ 8 receiver │ 12 ephemeral (32) │ 44 nothing (0+16) │ 60 mac1 │ 76 mac2 │ 92
 *   cookie      0 type │ 4 receiver │ 8 nonce (24) │ 32 cookie (16+16) │ 64
 *   transport   0 type │ 4 receiver │ 8 counter (8) │ 16 packet (n+16) │ 32+n
 *
 * The sender index of either handshake message is at the same place, and so is the receiver index of cookie and transport.
 * Nothing here is authentic: who reads a number from a message believes a stranger.
 */
import {
  COOKIE_REPLY_BYTES,
  INITIATION_BYTES,
  MAC_BYTES,
  MESSAGE_COOKIE_REPLY,
  MESSAGE_INITIATION,
  MESSAGE_RESPONSE,
  MESSAGE_TRANSPORT,
  RESPONSE_BYTES,
  TRANSPORT_MIN_BYTES,
} from './constants.js';

/** Of both handshake messages. */
export const SENDER_OFFSET = 4;
/** Of cookie replies and transport messages. */
export const RECEIVER_OFFSET = 4;

export const INITIATION_EPHEMERAL = 8;
export const INITIATION_STATIC = 40;
export const INITIATION_TIMESTAMP = 88;
export const INITIATION_MACS = 116;

export const RESPONSE_RECEIVER = 8;
export const RESPONSE_EPHEMERAL = 12;
export const RESPONSE_NOTHING = 44;
export const RESPONSE_MACS = 60;

export const COOKIE_NONCE = 8;
export const COOKIE_SEALED = 32;

export const TRANSPORT_COUNTER = 8;

export type MessageType =
  | typeof MESSAGE_INITIATION
  | typeof MESSAGE_RESPONSE
  | typeof MESSAGE_COOKIE_REPLY
  | typeof MESSAGE_TRANSPORT;

/**
 * Which message the datagram of `length` bytes at memory[offset] is by its first four bytes and its length; undefined when it is
 * none. Reads nothing beyond `length`.
 */
export function messageType(memory: Uint8Array, offset: number, length: number): MessageType | undefined {
  if (length < TRANSPORT_MIN_BYTES || offset < 0 || offset + length > memory.length) return undefined;
  const type = readU32(memory, offset);
  if (type === MESSAGE_TRANSPORT) return type;
  if (type === MESSAGE_INITIATION) return length === INITIATION_BYTES ? type : undefined;
  if (type === MESSAGE_RESPONSE) return length === RESPONSE_BYTES ? type : undefined;
  if (type === MESSAGE_COOKIE_REPLY) return length === COOKIE_REPLY_BYTES ? type : undefined;
  return undefined;
}

/** The 32 bits at `offset`, 0 to 2^32 - 1. The caller has checked that they are there. */
export function readU32(memory: Uint8Array, offset: number): number {
  // biome-ignore format: one number
  return (
    ((memory[offset] as number) | ((memory[offset + 1] as number) << 8) | ((memory[offset + 2] as number) << 16) | ((memory[offset + 3] as number) << 24)) >>> 0
  );
}

export function writeU32(memory: Uint8Array, offset: number, value: number): void {
  memory[offset] = value;
  memory[offset + 1] = value >>> 8;
  memory[offset + 2] = value >>> 16;
  memory[offset + 3] = value >>> 24;
}

/** The sender index of an initiation or a response, the number that goes into the answer. */
export function senderIndex(message: Uint8Array): number {
  return readU32(message, SENDER_OFFSET);
}

/** The receiver index of a response, cookie reply or transport message: whom of ours it is for. */
export function receiverIndex(message: Uint8Array): number {
  return readU32(message, message[0] === MESSAGE_RESPONSE ? RESPONSE_RECEIVER : RECEIVER_OFFSET);
}

/** Where mac1 begins in an initiation or a response; mac2 follows, and ends the message. */
export function mac1Offset(message: Uint8Array): number {
  return message.length - 2 * MAC_BYTES;
}

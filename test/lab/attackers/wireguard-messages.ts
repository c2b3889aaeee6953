/**
 * What somebody who means no good can send to a WireGuard port: messages that are wrong, old, recorded, or of nobody. Made once
 * and then sent in turn; what is right about them is as right as it is for an implementation's own.
 */
import { randomBytes, randomInt } from 'node:crypto';
import {
  COOKIE_REPLY_BYTES,
  INITIATION_BYTES,
  MESSAGE_COOKIE_REPLY,
  MESSAGE_INITIATION,
  MESSAGE_TRANSPORT,
} from '../../../src/tunnel/wireguard/constants.js';
import { MacSender } from '../../../src/tunnel/wireguard/cookie.js';
import { RECEIVER_OFFSET, TRANSPORT_COUNTER, writeU32 } from '../../../src/tunnel/wireguard/messages.js';
import { createInitiation, identityOf, staticSecretOf } from '../../../src/tunnel/wireguard/noise.js';
import { TimestampSource } from '../../../src/tunnel/wireguard/tai64n.js';
import { generatePrivateKey } from '../../../src/tunnel/wireguard/x25519.js';

/** What is to be sent; `publicKey` is the target's. */
export type Attack =
  /** Initiations in which everything is right, only that nobody knows who they are from. */
  | { kind: 'unknown keys'; publicKey: Uint8Array }
  /** Initiations of a real peer, of whom the attacker has the key, each older than the one before. */
  | { kind: 'old timestamps'; publicKey: Uint8Array; privateKey: Uint8Array }
  | { kind: 'wrong mac1' }
  /** For this index, or for any. */
  | { kind: 'forged cookies'; index: number | undefined }
  /** Data for the right session. */
  | { kind: 'wrong tags'; index: number }
  /** Each once: every type at every length to 2048, and every first byte at a few more. */
  | { kind: 'garbage' }
  /** Each once: cut at every length, with every bit wrong, and with counters at the edges. */
  | { kind: 'spoilt'; messages: readonly Uint8Array[] }
  | { kind: 'recorded'; messages: readonly Uint8Array[] };

/** Different ones; more would only cost more to make. */
const VARIETIES = 256;
const DAY_MS = 86_400_000;
const MAX_DATAGRAM_BYTES = 65_507;

export function messagesOf(attack: Attack): Uint8Array[] {
  switch (attack.kind) {
    case 'unknown keys':
      return several(() => initiation(attack.publicKey, generatePrivateKey(), Date.now()));
    case 'old timestamps':
      return several((index) => initiation(attack.publicKey, attack.privateKey, Date.now() - (index + 1) * DAY_MS));
    case 'wrong mac1':
      return several(() => typed(MESSAGE_INITIATION, INITIATION_BYTES));
    case 'forged cookies':
      return several(() => indexed(MESSAGE_COOKIE_REPLY, COOKIE_REPLY_BYTES, attack.index ?? randomInt(2 ** 32)));
    case 'wrong tags':
      return several((index) => indexed(MESSAGE_TRANSPORT, index % 2 === 0 ? 1452 : 32 + index, attack.index));
    case 'garbage':
      return garbage();
    case 'spoilt':
      return attack.messages.flatMap(spoilt);
    case 'recorded':
      return [...attack.messages];
  }
}

/** @param wallClockMs the time it claims to be sent at. */
export function initiation(publicKey: Uint8Array, privateKey: Uint8Array, wallClockMs: number): Uint8Array {
  const identity = identityOf(privateKey);
  const staticSecret = staticSecretOf(identity, publicKey);
  if (staticSecret === undefined) throw new Error('the target has no key');
  const localIndex = randomInt(2 ** 32);
  const timestamp = new TimestampSource().next(wallClockMs);
  const { message } = createInitiation({ identity, peerPublicKey: publicKey, staticSecret, localIndex, timestamp });
  new MacSender(publicKey).addMacs(message, 0);
  return message;
}

function several(make: (index: number) => Uint8Array): Uint8Array[] {
  return Array.from({ length: VARIETIES }, (_, index) => make(index));
}

function typed(type: number, length: number): Uint8Array {
  const message = new Uint8Array(randomBytes(length));
  message.set([type, 0, 0, 0].slice(0, length));
  return message;
}

function indexed(type: number, length: number, index: number): Uint8Array {
  const message = typed(type, length);
  writeU32(message, RECEIVER_OFFSET, index);
  // A counter that is still to come: no replay window refuses it.
  if (type === MESSAGE_TRANSPORT) message.fill(0, TRANSPORT_COUNTER + 3, TRANSPORT_COUNTER + 8);
  return message;
}

function garbage(): Uint8Array[] {
  const lengths = [...Array(2049).keys(), MAX_DATAGRAM_BYTES];
  const types = [...Array(256).keys()];
  return [
    ...lengths.flatMap((length) => [1, 2, 3, 4].map((type) => typed(type, length))),
    ...lengths.map((length) => new Uint8Array(randomBytes(length))),
    ...types.flatMap((type) => [1, 4, 32, 64, 92, 148, 1452].map((length) => typed(type, length))),
  ];
}

function spoilt(message: Uint8Array): Uint8Array[] {
  const cut = message.subarray(0, 2048);
  const spoil = (change: (copy: Uint8Array) => void) => {
    const copy = message.slice();
    change(copy);
    return copy;
  };
  // With a counter that is still to come, so that it is the tag that refuses them.
  const next = spoil((copy) => {
    if (copy[0] === MESSAGE_TRANSPORT) copy[TRANSPORT_COUNTER + 3] = 1;
  });
  const flipped = [...Array(8 * message.length).keys()].map((bit) => {
    const copy = next.slice();
    copy[bit >> 3] = (copy[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    return copy;
  });
  const longer = [1, 15, 16, 17, 1000, MAX_DATAGRAM_BYTES - message.length].map((more) => {
    const copy = new Uint8Array(message.length + more);
    copy.set(message);
    return copy;
  });
  const counters = [
    2n ** 13n,
    2n ** 32n - 1n,
    2n ** 32n,
    2n ** 53n,
    2n ** 63n,
    2n ** 64n - 2n ** 13n - 1n,
    2n ** 64n - 1n,
  ];
  const counted =
    message[0] === MESSAGE_TRANSPORT
      ? counters.map((counter) =>
          spoil((copy) => new DataView(copy.buffer).setBigUint64(TRANSPORT_COUNTER, counter, true)),
        )
      : [];
  return [...[...Array(cut.length).keys()].map((length) => cut.slice(0, length)), ...flipped, ...longer, ...counted];
}

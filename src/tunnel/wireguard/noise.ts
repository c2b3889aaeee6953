/**
 * The handshake of the WireGuard paper (sections 5.4.2 to 5.4.5), Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s in the words of the Noise
 * protocol framework (revision 34). s and e are static and ephemeral keys, of the initiator and then of the responder:
 *
 *   <- s
 *   -> e, es, s, ss, {timestamp}
 *   <- e, ee, se, psk, {}
 *
 * Pure but for the ephemeral keys: bytes in, bytes out. What is no message of a peer gives undefined, never an exception. mac1
 * and mac2 are not its business (cookie.ts), nor are timestamps that were seen before, timers, or which peers exist.
 */
import type { KeyObject } from 'node:crypto';
import {
  INITIATION_BYTES,
  MESSAGE_INITIATION,
  MESSAGE_RESPONSE,
  RESPONSE_BYTES,
  TIMESTAMP_BYTES,
} from './constants.js';
import {
  INITIATION_EPHEMERAL,
  INITIATION_MACS,
  INITIATION_STATIC,
  INITIATION_TIMESTAMP,
  messageType,
  RESPONSE_EPHEMERAL,
  RESPONSE_MACS,
  RESPONSE_NOTHING,
  RESPONSE_RECEIVER,
  readU32,
  SENDER_OFFSET,
  senderIndex,
  writeU32,
} from './messages.js';
import { SymmetricState } from './symmetric-state.js';
import { generateKeyPair, importPrivateKey, type KeyPair, publicKeyOf, sharedSecret } from './x25519.js';

const NOTHING = new Uint8Array(0);

/** Who we are. Neither array is ever changed while the object is in use: the imported key is kept by the object. */
export interface Identity {
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
}

/** 32 bytes each. */
export interface TransportKeys {
  sending: Uint8Array;
  receiving: Uint8Array;
}

/** Between our initiation and the response to it. */
export interface InitiatorState {
  readonly chainingKey: Uint8Array;
  readonly hash: Uint8Array;
  readonly localIndex: number;
  /** undefined: wiped. */
  ephemeral: KeyObject | undefined;
}

/** Between a peer's initiation and our response to it. */
export interface ResponderState {
  readonly chainingKey: Uint8Array;
  readonly hash: Uint8Array;
  readonly peerPublicKey: Uint8Array;
  readonly peerEphemeral: Uint8Array;
  readonly peerIndex: number;
}

export interface ConsumedInitiation {
  readonly peerPublicKey: Uint8Array;
  readonly senderIndex: number;
  /** To be later than any before from this peer: tai64n.ts, isLater(). Otherwise it is a replay, and `state` to be wiped. */
  readonly timestamp: Uint8Array;
  readonly state: ResponderState;
}

/** @param privateKey kept, not copied. */
export function identityOf(privateKey: Uint8Array): Identity {
  return { privateKey, publicKey: publicKeyOf(privateKey) };
}

/** DH of our static key and a peer's, the same in every handshake; undefined: the peer's key is of low order, no key at all. */
export function staticSecretOf(identity: Identity, peerPublicKey: Uint8Array): Uint8Array | undefined {
  return sharedSecret(staticKey(identity), peerPublicKey);
}

/**
 * @param i.staticSecret staticSecretOf(identity, peerPublicKey).
 * @param i.timestamp 12 bytes, see TimestampSource.
 * @param i.ephemeral for tests; otherwise a fresh pair is made.
 * @returns 148 bytes with both macs zero, and what consumeResponse() needs. Wipe it when an answer was taken or given up on.
 */
export function createInitiation(i: {
  identity: Identity;
  peerPublicKey: Uint8Array;
  staticSecret: Uint8Array;
  localIndex: number;
  timestamp: Uint8Array;
  ephemeral?: KeyPair;
}): { message: Uint8Array; state: InitiatorState } {
  if (i.timestamp.length !== TIMESTAMP_BYTES) throw new RangeError(`a timestamp of ${i.timestamp.length} bytes`);
  const ephemeral = i.ephemeral ?? generateKeyPair();
  const symmetric = SymmetricState.start(i.peerPublicKey);
  const message = new Uint8Array(INITIATION_BYTES);
  writeU32(message, 0, MESSAGE_INITIATION);
  writeU32(message, SENDER_OFFSET, i.localIndex);

  message.set(ephemeral.publicKey, INITIATION_EPHEMERAL);
  symmetric.mixEphemeral(ephemeral.publicKey);
  symmetric.mixKey(required(sharedSecret(ephemeral.privateKey, i.peerPublicKey)));
  message.set(symmetric.seal(i.identity.publicKey), INITIATION_STATIC);
  // A copy, because mixKey() zeroes what it was given; not by slice(), which copies nothing of a Buffer.
  symmetric.mixKey(Uint8Array.from(i.staticSecret));
  message.set(symmetric.seal(i.timestamp), INITIATION_TIMESTAMP);

  const { chainingKey, hash } = symmetric;
  return { message, state: { chainingKey, hash, localIndex: i.localIndex, ephemeral: ephemeral.privateKey } };
}

/**
 * Opens a peer's initiation. Costs one DH for whoever knows our public key; check mac1 before, and the rate.
 *
 * @param staticSecretOfPeer staticSecretOf(identity, key) as kept for the peer with this public key, or undefined for a
 *   stranger, who is then dropped. It is asked before the claim is proved. When absent, it is computed and all are welcome.
 * @returns undefined: not authentic, malformed, or a stranger.
 */
export function consumeInitiation(
  identity: Identity,
  message: Uint8Array,
  staticSecretOfPeer: (peerPublicKey: Uint8Array) => Uint8Array | undefined = (key) => staticSecretOf(identity, key),
): ConsumedInitiation | undefined {
  if (messageType(message, 0, message.length) !== MESSAGE_INITIATION) return undefined;
  const peerEphemeral = Uint8Array.from(message.subarray(INITIATION_EPHEMERAL, INITIATION_STATIC));
  const secret = sharedSecret(staticKey(identity), peerEphemeral);
  if (!secret) return undefined;

  const symmetric = SymmetricState.start(identity.publicKey);
  symmetric.mixEphemeral(peerEphemeral);
  symmetric.mixKey(secret);
  const peerPublicKey = symmetric.open(message.subarray(INITIATION_STATIC, INITIATION_TIMESTAMP));
  const staticSecret = peerPublicKey && staticSecretOfPeer(peerPublicKey);
  if (!peerPublicKey || !staticSecret) return symmetric.wipe();

  symmetric.mixKey(Uint8Array.from(staticSecret));
  const timestamp = symmetric.open(message.subarray(INITIATION_TIMESTAMP, INITIATION_MACS));
  if (!timestamp) return symmetric.wipe();
  const { chainingKey, hash } = symmetric;
  const peerIndex = senderIndex(message);
  return {
    peerPublicKey,
    senderIndex: peerIndex,
    timestamp,
    state: { chainingKey, hash, peerPublicKey, peerEphemeral, peerIndex },
  };
}

/**
 * Answers an initiation, once. `state` is the caller's to wipe.
 *
 * @param presharedKey 32 bytes, zeros when there is none.
 * @returns 92 bytes with both macs zero, and the keys of the session, to be used for sending only once the initiator has.
 */
export function createResponse(
  state: ResponderState,
  presharedKey: Uint8Array,
  localIndex: number,
  ephemeral: KeyPair = generateKeyPair(),
): { message: Uint8Array; keys: TransportKeys } {
  const symmetric = SymmetricState.resume(state);
  const message = new Uint8Array(RESPONSE_BYTES);
  writeU32(message, 0, MESSAGE_RESPONSE);
  writeU32(message, SENDER_OFFSET, localIndex);
  writeU32(message, RESPONSE_RECEIVER, state.peerIndex);

  message.set(ephemeral.publicKey, RESPONSE_EPHEMERAL);
  symmetric.mixEphemeral(ephemeral.publicKey);
  symmetric.mixChainingKey(required(sharedSecret(ephemeral.privateKey, state.peerEphemeral)));
  symmetric.mixChainingKey(required(sharedSecret(ephemeral.privateKey, state.peerPublicKey)));
  symmetric.mixPresharedKey(presharedKey);
  message.set(symmetric.seal(NOTHING), RESPONSE_NOTHING);

  const [receiving, sending] = symmetric.split();
  return { message, keys: { sending, receiving } };
}

/**
 * Takes the response to our initiation. `state` stays as it was, because anybody can send a wrong response before the right
 * one; after the right one the caller wipes it.
 *
 * @param presharedKey 32 bytes, zeros when there is none.
 * @returns undefined: not authentic, malformed, for another handshake, or `state` is wiped.
 */
export function consumeResponse(
  state: InitiatorState,
  identity: Identity,
  presharedKey: Uint8Array,
  message: Uint8Array,
): { keys: TransportKeys; remoteIndex: number } | undefined {
  if (messageType(message, 0, message.length) !== MESSAGE_RESPONSE || !state.ephemeral) return undefined;
  if (readU32(message, RESPONSE_RECEIVER) !== state.localIndex) return undefined;
  const peerEphemeral = message.subarray(RESPONSE_EPHEMERAL, RESPONSE_NOTHING);
  const ephemeralSecret = sharedSecret(state.ephemeral, peerEphemeral);
  const staticSecret = sharedSecret(staticKey(identity), peerEphemeral);
  if (!ephemeralSecret || !staticSecret) return undefined;

  const symmetric = SymmetricState.resume(state);
  symmetric.mixEphemeral(peerEphemeral);
  symmetric.mixChainingKey(ephemeralSecret);
  symmetric.mixChainingKey(staticSecret);
  symmetric.mixPresharedKey(presharedKey);
  if (!symmetric.open(message.subarray(RESPONSE_NOTHING, RESPONSE_MACS))) return symmetric.wipe();

  const [sending, receiving] = symmetric.split();
  return { keys: { sending, receiving }, remoteIndex: senderIndex(message) };
}

/** Zeroes the secrets. Any number of times; what was wiped is not to be used. */
export function wipe(state: InitiatorState | ResponderState | TransportKeys): void {
  if ('sending' in state) {
    state.sending.fill(0);
    state.receiving.fill(0);
    return;
  }
  state.chainingKey.fill(0);
  state.hash.fill(0);
  if ('ephemeral' in state) state.ephemeral = undefined;
}

const staticKeys = new WeakMap<Identity, KeyObject>();

/** Importing costs ten times a DH, and an initiation from anybody costs a DH. */
function staticKey(identity: Identity): KeyObject {
  let key = staticKeys.get(identity);
  if (!key) {
    key = importPrivateKey(identity.privateKey);
    staticKeys.set(identity, key);
  }
  return key;
}

/**
 * Public keys of low order were refused before they get here: the peer's by staticSecretOf(), the initiator's ephemeral
 * one by consumeInitiation(), both of which multiply it by a private key, and zero does not depend on which.
 */
function required(secret: Uint8Array | undefined): Uint8Array {
  if (!secret) throw new Error('a public key of low order, which staticSecretOf() refuses');
  return secret;
}

/**
 * mac1, mac2 and cookies (WireGuard paper, sections 5.3, 5.4.4 and 5.4.7). mac1 proves that the sender knows whom it talks to, and
 * costs a microsecond to check; mac2, wanted under load, proves that it receives at the address it sends from. Who wants mac2
 * and gets none answers with a cookie, sealed with XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), for the next attempt.
 *
 * Whether there is load is not decided here.
 */
import { randomBytes } from 'node:crypto';
import { openX, sealX } from './aead.js';
import {
  COOKIE_LIFETIME_MS,
  COOKIE_NONCE_BYTES,
  COOKIE_REPLY_BYTES,
  INITIATION_BYTES,
  KEY_BYTES,
  MAC_BYTES,
  MESSAGE_COOKIE_REPLY,
  RESPONSE_BYTES,
} from './constants.js';
import { hash } from './hash.js';
import { Mac } from './keyed-blake2s.js';
import {
  COOKIE_NONCE,
  COOKIE_SEALED,
  mac1Offset,
  messageType,
  RECEIVER_OFFSET,
  readU32,
  SENDER_OFFSET,
  writeU32,
} from './messages.js';

const utf8 = new TextEncoder();
const LABEL_MAC1 = utf8.encode('mac1----');
const LABEL_COOKIE = utf8.encode('cookie--');

/** Of a sockaddr_in6: sin6_port at 2, sin6_addr at 8; the flow label in between may change from packet to packet. */
const SOCKADDR_BYTES = 28;
const SOURCE_BYTES = 18;

/** For the handshake messages sent to one peer. */
export class MacSender {
  readonly #mac1: Mac;
  readonly #cookieKey: Uint8Array;
  #lastMac1: Uint8Array | undefined;
  #mac2: Mac | undefined;
  #cookieUntilMs = 0;

  constructor(peerPublicKey: Uint8Array) {
    this.#mac1 = new Mac(hash(LABEL_MAC1, peerPublicKey));
    this.#cookieKey = hash(LABEL_COOKIE, peerPublicKey);
  }

  /** Writes mac1, and mac2 when a cookie came in the last 120 s and zeros otherwise, into an initiation or response. */
  addMacs(message: Uint8Array, nowMs: number): void {
    const mac1At = mac1Offset(message);
    const mac2At = mac1At + MAC_BYTES;
    this.#lastMac1 = this.#mac1.of(message, 0, mac1At);
    message.set(this.#lastMac1, mac1At);
    if (nowMs >= this.#cookieUntilMs) this.#forgetCookie();
    if (this.#mac2) message.set(this.#mac2.of(message, 0, mac2At), mac2At);
    else message.fill(0, mac2At);
  }

  /**
   * Takes the answer to the last message that addMacs() saw, whose index the caller has compared. False: malformed, not for
   * that message, or not of the peer. A message has one answer; a second is refused, so that no replay can keep an old
   * cookie alive. A cookie is no proof of anything else: it changes what is sent next, not when.
   */
  takeCookieReply(reply: Uint8Array, nowMs: number): boolean {
    if (messageType(reply, 0, reply.length) !== MESSAGE_COOKIE_REPLY || !this.#lastMac1) return false;
    const nonce = reply.subarray(COOKIE_NONCE, COOKIE_SEALED);
    const cookie = openX(this.#cookieKey, nonce, reply.subarray(COOKIE_SEALED), this.#lastMac1);
    if (!cookie) return false;
    this.#forgetCookie();
    this.#mac2 = new Mac(cookie);
    this.#cookieUntilMs = nowMs + COOKIE_LIFETIME_MS;
    this.#lastMac1 = undefined;
    cookie.fill(0);
    return true;
  }

  wipe(): void {
    this.#mac1.wipe();
    this.#cookieKey.fill(0);
    this.#lastMac1 = undefined;
    this.#forgetCookie();
  }

  #forgetCookie(): void {
    this.#mac2?.wipe();
    this.#mac2 = undefined;
  }
}

/** For the handshake messages that come in. */
export class MacChecker {
  readonly #random: (bytes: number) => Uint8Array;
  readonly #mac1: Mac;
  readonly #cookieKey: Uint8Array;
  /** Makes cookies; keyed with a random secret, and with another one every 120 s. */
  #cookieMaker: Mac | undefined;
  #cookieMakerUntilMs = 0;

  constructor(publicKey: Uint8Array, random: (bytes: number) => Uint8Array = randomBytes) {
    this.#random = random;
    this.#mac1 = new Mac(hash(LABEL_MAC1, publicKey));
    this.#cookieKey = hash(LABEL_COOKIE, publicKey);
  }

  /** False for everything that has not the length of an initiation or a response. */
  hasMac1(message: Uint8Array): boolean {
    return isHandshake(message) && this.#mac1.matches(message, mac1Offset(message));
  }

  /** @param source sockaddr_in6 that the message came from, 28 bytes. */
  hasMac2(message: Uint8Array, source: Uint8Array, nowMs: number): boolean {
    // Without a secret no cookie can be right: none was given out.
    if (!isHandshake(message) || !this.#cookieMaker || nowMs >= this.#cookieMakerUntilMs) return false;
    // Nobody has a cookie at first: most of a flood costs no more than this.
    if (message.subarray(mac1Offset(message) + MAC_BYTES).every((byte) => byte === 0)) return false;
    const cookie = this.#cookieMaker.of(addressAndPort(source));
    const mac2 = new Mac(cookie);
    const matches = mac2.matches(message, mac1Offset(message) + MAC_BYTES);
    mac2.wipe();
    cookie.fill(0);
    return matches;
  }

  /** @param message an initiation or response for which hasMac1() was true. @returns 64 bytes for where it came from. */
  cookieReply(message: Uint8Array, source: Uint8Array, nowMs: number): Uint8Array {
    const reply = new Uint8Array(COOKIE_REPLY_BYTES);
    const nonce = this.#random(COOKIE_NONCE_BYTES);
    const cookie = this.#freshCookieMaker(nowMs).of(addressAndPort(source));
    const mac1At = mac1Offset(message);
    const mac1 = message.subarray(mac1At, mac1At + MAC_BYTES);
    writeU32(reply, 0, MESSAGE_COOKIE_REPLY);
    writeU32(reply, RECEIVER_OFFSET, readU32(message, SENDER_OFFSET));
    reply.set(nonce, COOKIE_NONCE);
    reply.set(sealX(this.#cookieKey, nonce, cookie, mac1), COOKIE_SEALED);
    cookie.fill(0);
    return reply;
  }

  wipe(): void {
    this.#mac1.wipe();
    this.#cookieKey.fill(0);
    this.#cookieMaker?.wipe();
    this.#cookieMaker = undefined;
  }

  #freshCookieMaker(nowMs: number): Mac {
    if (this.#cookieMaker && nowMs < this.#cookieMakerUntilMs) return this.#cookieMaker;
    this.#cookieMaker?.wipe();
    const secret = this.#random(KEY_BYTES);
    this.#cookieMaker = new Mac(secret);
    this.#cookieMakerUntilMs = nowMs + COOKIE_LIFETIME_MS;
    secret.fill(0);
    return this.#cookieMaker;
  }
}

function isHandshake(message: Uint8Array): boolean {
  return message.length === INITIATION_BYTES || message.length === RESPONSE_BYTES;
}

function addressAndPort(sockaddr: Uint8Array): Uint8Array {
  if (sockaddr.length !== SOCKADDR_BYTES) throw new RangeError(`a sockaddr_in6 of ${sockaddr.length} bytes`);
  const source = new Uint8Array(SOURCE_BYTES);
  source.set(sockaddr.subarray(8, 24));
  source.set(sockaddr.subarray(2, 4), 16);
  return source;
}

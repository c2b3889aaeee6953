/**
 * Numbers of the WireGuard protocol, by the names of its paper (Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel",
 * section 6.1 for the timers, 5.4 for the messages). Milliseconds where the name says MS. What the paper leaves to the
 * implementation has its reason beside it.
 */

/** First byte of a message; the three bytes behind it are zero, so that the four read as one little-endian number. */
export const MESSAGE_INITIATION = 1;
export const MESSAGE_RESPONSE = 2;
export const MESSAGE_COOKIE_REPLY = 3;
export const MESSAGE_TRANSPORT = 4;

export const INITIATION_BYTES = 148;
export const RESPONSE_BYTES = 92;
export const COOKIE_REPLY_BYTES = 64;
/** Type, receiver index and counter, before the sealed packet. */
export const TRANSPORT_HEADER_BYTES = 16;
/** A keepalive: the header and a tag over nothing. */
export const TRANSPORT_MIN_BYTES = 32;
/** Packets are padded with zeros to a multiple of this before they are sealed. */
export const PADDING_BYTES = 16;

export const KEY_BYTES = 32;
export const TAG_BYTES = 16;
export const MAC_BYTES = 16;
export const COOKIE_BYTES = 16;
export const COOKIE_NONCE_BYTES = 24;
export const TIMESTAMP_BYTES = 12;

export const REKEY_AFTER_TIME_MS = 120_000;
export const REJECT_AFTER_TIME_MS = 180_000;
export const REKEY_ATTEMPT_TIME_MS = 90_000;
export const REKEY_TIMEOUT_MS = 5_000;
/** Upper limit of the random time added to REKEY_TIMEOUT_MS, so that two peers do not meet for ever; Linux has a third of a second. */
export const REKEY_TIMEOUT_JITTER_MS = 333;
export const KEEPALIVE_TIMEOUT_MS = 10_000;

export const REKEY_AFTER_MESSAGES = 2 ** 60;
/** 2^64 - 2^13 - 1, which no double can hold: as two halves of 32 bits. A counter at or above it is never used. */
export const REJECT_AFTER_MESSAGES_HIGH = 0xffff_ffff;
export const REJECT_AFTER_MESSAGES_LOW = 0xffff_dfff;

/** How long a cookie may be used by who received it, and how long the secret lives that cookies are made from. */
export const COOKIE_LIFETIME_MS = 120_000;

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { sealX } from '../../../../src/tunnel/wireguard/aead.js';
import { MacChecker, MacSender } from '../../../../src/tunnel/wireguard/cookie.js';
import { hash } from '../../../../src/tunnel/wireguard/hash.js';

const publicKey = new Uint8Array(32).fill(7);

/** Some initiation, by its length and type; its sender index is 0x44332211. */
function initiation(): Uint8Array {
  const message = Uint8Array.from({ length: 148 }, (_, index) => index);
  message.set([1, 0, 0, 0, 0x11, 0x22, 0x33, 0x44]);
  return message;
}

/** A sockaddr_in6 of 2001:db8::`last`. */
function sockaddr(last: number, port: number, flowLabel = 0): Uint8Array {
  const bytes = new Uint8Array(28);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, 10, true);
  view.setUint16(2, port);
  view.setUint32(4, flowLabel);
  view.setUint32(8, 0x2001_0db8);
  bytes[23] = last;
  return bytes;
}

const source = sockaddr(1, 51820);

/** A sender that was given a cookie at `nowMs`, and who gave it. */
function acquainted(nowMs = 0) {
  const sender = new MacSender(publicKey);
  const checker = new MacChecker(publicKey);
  const first = initiation();
  sender.addMacs(first, nowMs);
  const reply = checker.cookieReply(first, source, nowMs);
  assert.equal(sender.takeCookieReply(reply, nowMs), true);
  return { sender, checker, reply, first };
}

function sent(sender: MacSender, nowMs: number): Uint8Array {
  const message = initiation();
  sender.addMacs(message, nowMs);
  return message;
}

const flips = (message: Uint8Array): Uint8Array[] =>
  Array.from({ length: message.length * 8 }, (_, bit) => {
    const copy = message.slice();
    copy[bit >> 3] = (copy[bit >> 3] as number) ^ (1 << (bit & 7));
    return copy;
  });

const mac2 = (message: Uint8Array): Uint8Array => message.subarray(message.length - 16);

test('mac1 is right for its receiver only, in an initiation and in a response', () => {
  for (const length of [148, 92]) {
    const message = new Uint8Array(length).fill(5);
    new MacSender(publicKey).addMacs(message, 0);
    assert.equal(new MacChecker(publicKey).hasMac1(message), true);
    assert.equal(new MacChecker(new Uint8Array(32).fill(8)).hasMac1(message), false);
  }
});

test('hasMac1() and hasMac2() are false for every other length, even with right macs', () => {
  const { sender, checker } = acquainted();
  for (let length = 0; length <= 2 * 148; length++) {
    const message = new Uint8Array(length);
    if (length > 32) sender.addMacs(message, 0);
    const isHandshake = length === 148 || length === 92;
    assert.equal(checker.hasMac1(message), isHandshake, `${length} bytes`);
    assert.equal(checker.hasMac2(message, source, 0), isHandshake, `${length} bytes`);
  }
});

test('without a cookie mac2 is zero, whatever was there before', () => {
  assert.deepEqual(mac2(sent(new MacSender(publicKey), 0)), new Uint8Array(16));
});

test('without a secret no mac2 is right, not even one of zeros', () => {
  const message = sent(new MacSender(publicKey), 0);
  assert.equal(new MacChecker(publicKey).hasMac2(message, source, 0), false);
});

test('a cookie reply carries the sender index of the message as its receiver and gives a mac2 that is right', () => {
  const { sender, checker, reply } = acquainted();
  assert.equal(reply.length, 64);
  assert.deepEqual([...reply.subarray(0, 8)], [3, 0, 0, 0, 0x11, 0x22, 0x33, 0x44]);
  const message = sent(sender, 1);
  assert.equal(checker.hasMac1(message), true);
  assert.equal(checker.hasMac2(message, source, 1), true);
  assert.equal(checker.hasMac2(sent(new MacSender(publicKey), 1), source, 1), false);
});

test('mac2 covers everything before it, mac1 as well', () => {
  const { sender, checker } = acquainted();
  for (const flipped of flips(sent(sender, 1))) assert.equal(checker.hasMac2(flipped, source, 1), false);
});

test('mac2 is right from the address and port of the cookie only, whatever the flow label', () => {
  const { sender, checker } = acquainted();
  const message = sent(sender, 1);
  assert.equal(checker.hasMac2(message, sockaddr(1, 51820, 0x12345), 1), true);
  assert.equal(checker.hasMac2(message, sockaddr(2, 51820), 1), false);
  assert.equal(checker.hasMac2(message, sockaddr(1, 51821), 1), false);
});

test('a sockaddr that is none is a mistake of the caller', () => {
  const { checker, first } = acquainted();
  assert.throws(() => checker.cookieReply(first, new Uint8Array(16), 0), RangeError);
});

test('the sender uses a cookie for 120 s and then does without', () => {
  const { sender } = acquainted(1000);
  assert.notDeepEqual(mac2(sent(sender, 120_999)), new Uint8Array(16));
  assert.deepEqual(mac2(sent(sender, 121_000)), new Uint8Array(16));
  assert.deepEqual(mac2(sent(sender, 121_001)), new Uint8Array(16));
});

test('the receiver has a new secret after 120 s, which older cookies do not fit', () => {
  const { sender, checker, first } = acquainted(1000);
  const old = sent(sender, 2000);
  assert.equal(checker.hasMac2(old, source, 120_999), true);
  assert.equal(checker.hasMac2(old, source, 121_000), false);
  checker.cookieReply(first, source, 121_000);
  assert.equal(checker.hasMac2(old, source, 121_000), false);
});

test('no two replies are the same, and the next leaves the cookies of those before right', () => {
  const { sender, checker, reply, first } = acquainted(0);
  assert.notDeepEqual(checker.cookieReply(first, source, 119_999), reply);
  assert.equal(checker.hasMac2(sent(sender, 119_999), source, 119_999), true);
});

test('a cookie reply is taken once, for the last message sent', () => {
  const { sender, reply } = acquainted();
  assert.equal(sender.takeCookieReply(reply, 1), false);

  const checker = new MacChecker(publicKey);
  const other = new MacSender(publicKey);
  assert.equal(other.takeCookieReply(reply, 0), false, 'nothing sent yet');
  const first = sent(other, 0);
  const late = checker.cookieReply(first, source, 0);
  const second = initiation().fill(9, 8, 116);
  other.addMacs(second, 0);
  assert.equal(other.takeCookieReply(late, 0), false, 'for an earlier message');
  assert.equal(other.takeCookieReply(checker.cookieReply(second, source, 0), 0), true);
});

test('a newer cookie takes the place of one that is still in use', () => {
  const { sender, checker, first } = acquainted(0);
  sender.addMacs(first, 60_000);
  assert.equal(sender.takeCookieReply(checker.cookieReply(first, source, 60_000), 60_000), true);
  const next = sent(sender, 121_000);
  assert.notDeepEqual(mac2(next), new Uint8Array(16));
  const reply = checker.cookieReply(next, source, 121_000);
  assert.equal(checker.hasMac2(next, source, 121_000), false);
  assert.equal(sender.takeCookieReply(reply, 121_000), true);
  assert.equal(checker.hasMac2(sent(sender, 121_000), source, 121_000), true);
});

test('a cookie reply of another peer is refused', () => {
  const sender = new MacSender(publicKey);
  const message = sent(sender, 0);
  const reply = new MacChecker(new Uint8Array(32).fill(8)).cookieReply(message, source, 0);
  assert.equal(sender.takeCookieReply(reply, 0), false);
});

test('a cookie reply for no message at all is refused: its key is public', () => {
  const sender = new MacSender(publicKey);
  const reply = new Uint8Array(64);
  reply[0] = 3;
  const key = hash(new TextEncoder().encode('cookie--'), publicKey);
  reply.set(sealX(key, reply.subarray(8, 32), new Uint8Array(16), new Uint8Array(0)), 32);
  assert.equal(sender.takeCookieReply(reply, 0), false);
});

test('every flipped bit of a cookie reply is refused, but for the receiver index, which the caller compares', () => {
  const sender = new MacSender(publicKey);
  const reply = new MacChecker(publicKey).cookieReply(sent(sender, 0), source, 0);
  for (const [bit, flipped] of flips(reply).entries()) {
    if (bit >= 4 * 8 && bit < 8 * 8) continue;
    assert.equal(sender.takeCookieReply(flipped, 0), false, `bit ${bit}`);
  }
  assert.deepEqual(mac2(sent(sender, 0)), new Uint8Array(16));
});

test('a cookie reply of any other length up to twice its own, or garbage, is refused without an exception', () => {
  const sender = new MacSender(publicKey);
  const reply = new MacChecker(publicKey).cookieReply(sent(sender, 0), source, 0);
  for (let size = 0; size <= 128; size++) {
    if (size === 64) continue;
    const resized = new Uint8Array(size);
    resized.set(reply.subarray(0, size));
    assert.equal(sender.takeCookieReply(resized, 0), false, `${size} bytes`);
  }
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 64, maxLength: 64 }), (garbage) => {
      garbage.set([3, 0, 0, 0]);
      assert.equal(sender.takeCookieReply(garbage, 0), false);
    }),
  );
  const shifted = new Uint8Array(67);
  shifted.set(reply, 3);
  assert.equal(sender.takeCookieReply(shifted.subarray(3), 0), true, 'an address that is no multiple of four');
});

test('garbage has no mac, and asks for no exception', () => {
  const { checker } = acquainted();
  const message = fc.constantFrom(148, 92).chain((length) => fc.uint8Array({ minLength: length, maxLength: length }));
  fc.assert(
    fc.property(message, (garbage) => {
      assert.equal(checker.hasMac1(garbage), false);
      assert.equal(checker.hasMac2(garbage, source, 0), false);
    }),
  );
});

test('wipe() ends both sides: macs are wrong and cookies not taken', () => {
  const { sender, checker, first } = acquainted();
  const message = sent(sender, 1);
  const reply = checker.cookieReply(first, source, 1);
  sender.wipe();
  assert.equal(sender.takeCookieReply(reply, 1), false);
  assert.equal(checker.hasMac1(sent(sender, 1)), false);
  assert.deepEqual(mac2(sent(sender, 1)), new Uint8Array(16));
  checker.wipe();
  assert.equal(checker.hasMac1(message), false);
  assert.equal(checker.hasMac2(message, source, 1), false);
});

test('MacChecker zeroes the random secret once it is in use', () => {
  const handedOut: Uint8Array[] = [];
  const checker = new MacChecker(publicKey, (bytes) => {
    const random = new Uint8Array(bytes).fill(3);
    handedOut.push(random);
    return random;
  });
  checker.cookieReply(sent(new MacSender(publicKey), 0), source, 0);
  assert.deepEqual(
    handedOut.filter(({ length }) => length === 32),
    [new Uint8Array(32)],
  );
});

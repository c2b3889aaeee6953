import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../../../src/kernel/arena.js';
import { BootClock } from '../../../src/kernel/boot-clock.js';
import { addressOf, libc, libcAt } from '../../../src/kernel/ffi.js';

test('every piece begins at a multiple of 64 and none overlaps another', () => {
  const arena = new Arena(4096);
  let end = 0;
  for (const bytes of [1, 63, 64, 65, 0, 128, 7]) {
    const at = arena.reserve(bytes);
    assert.equal(at % 64, 0);
    assert.ok(at >= end);
    end = at + bytes;
    arena.bytes(at, bytes).fill(0xff);
  }
  assert.deepEqual([arena.memory.length, arena.view.byteLength], [4096, 4096]);
});

test('what does not fit is refused, to the last byte; what does fit still is not', () => {
  const arena = new Arena(256);
  assert.equal(arena.reserve(64), 0);
  assert.throws(() => arena.reserve(193), RangeError);
  assert.equal(arena.reserve(192), 64);
  assert.throws(() => arena.reserve(1), /arena: 320 of 256 bytes/);
  assert.equal(arena.reserve(0), 256);
});

test('native code finds at the address what is in the memory, and the other way round', () => {
  const arena = new Arena(4096);
  const [from, to] = [arena.reserve(100), arena.reserve(100)];
  const eventFd = libc.eventfd(0, 0);
  try {
    arena.view.setBigUint64(from, 0x0102030405060708n, true);
    assert.equal(libcAt.write(eventFd, arena.address + from, 8), 8);
    assert.equal(libcAt.read(eventFd, arena.address + to, 8), 8);
    assert.equal(arena.view.getBigUint64(to, true), 0x0102030405060708n);
  } finally {
    libc.close(eventFd);
  }
});

test('memory of somebody else may be an arena, such as that of WebAssembly', () => {
  const buffer = new ArrayBuffer(1024);
  const arena = new Arena(buffer);
  assert.equal(arena.memory.buffer, buffer);
  assert.equal(arena.address, Number(addressOf(new Uint8Array(buffer))));
});

test("an arena's memory outlives whoever has forgotten it", () => {
  // Not proof, but a freed block of this size would go back to the system, and the read would be a crash.
  const addresses = Array.from({ length: 4 }, () => {
    const arena = new Arena(1 << 22);
    arena.memory.fill(0x77);
    return arena.address;
  });
  for (let round = 0; round < 50; round++) new Uint8Array(1 << 20).fill(round);
  const arena = new Arena(64);
  const eventFd = libc.eventfd(0, 0);
  try {
    for (const address of addresses) {
      assert.equal(libcAt.write(eventFd, address, 8), 8);
      assert.equal(libcAt.read(eventFd, arena.address, 8), 8);
      assert.equal(arena.view.getBigUint64(0), 0x7777777777777777n);
    }
  } finally {
    libc.close(eventFd);
  }
});

test('BootClock goes on as the clock of the process does', async () => {
  const clock = new BootClock(new Arena(64));
  /** Its reading, between two of the other. */
  const reading = () => ({ before: performance.now(), boot: clock.now(), behind: performance.now() });
  const first = reading();
  await new Promise((resolve) => setTimeout(resolve, 50));
  const second = reading();
  const passed = second.boot - first.boot;
  const [least, most] = [second.before - first.behind, second.behind - first.before];
  // It tells whole milliseconds at worst.
  assert.ok(passed >= least - 1 && passed <= most + 1, `${passed} ms, of ${least} to ${most}`);
});

/** src/kernel/tun.ts, as far as it takes no device; test/lab/tun-descriptor.test.ts has the rest. */
import assert from 'node:assert/strict';
import { closeSync, constants, openSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setBlocking } from '../../../src/kernel/tun.js';

function isNonBlocking(fd: number): boolean {
  const flags = /^flags:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? '';
  return (Number.parseInt(flags, 8) & constants.O_NONBLOCK) !== 0;
}

test('setBlocking() changes O_NONBLOCK and no other flag', () => {
  const fd = openSync('/dev/null', constants.O_RDWR | constants.O_APPEND);
  try {
    const before = readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1');
    assert.equal(isNonBlocking(fd), false);
    setBlocking(fd, false);
    assert.equal(isNonBlocking(fd), true);
    setBlocking(fd, true);
    assert.equal(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'), before);
  } finally {
    closeSync(fd);
  }
});

test('setBlocking() of no descriptor is EBADF', () => {
  assert.throws(() => setBlocking(1 << 20, true), { errnoName: 'EBADF' });
});

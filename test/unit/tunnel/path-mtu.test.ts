/** The MTU of routes that every host has. Real paths: test/lab/path-mtu.test.ts. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { isInetSocket } from '../../../src/kernel/socket-options.js';
import { routeMtu } from '../../../src/tunnel/path-mtu.js';

const fds = (): number => readdirSync('/proc/self/fd').length;
/** The kernel takes IPv4 routes for 65535 at most, which is what an IPv4 packet can have. */
const LOOPBACK = Math.min(Number(readFileSync('/sys/class/net/lo/mtu', 'utf8')), 65_535);

test('the route to loopback has the MTU of lo, in both families, and no descriptor stays', async () => {
  const before = fds();
  assert.equal(await routeMtu('127.0.0.1'), LOOPBACK);
  assert.ok((await routeMtu('::1')) >= LOOPBACK);
  assert.equal(fds(), before);
});

test('the socket is shown before it asks, and what is thrown then goes on', async () => {
  const before = fds();
  const shown: boolean[] = [];
  await routeMtu('127.0.0.1', { protect: async (fd) => void shown.push(isInetSocket(fd)) });
  assert.deepEqual(shown, [true]);
  const refused = routeMtu('127.0.0.1', { protect: () => Promise.reject(new Error('202')) });
  await assert.rejects(refused, { message: '202' });
  assert.equal(fds(), before);
});

test('an address to which nothing can lead is a KernelError', async () => {
  const before = fds();
  await assert.rejects(routeMtu('255.255.255.255'), { name: 'KernelError', errnoName: 'EACCES' });
  await assert.rejects(routeMtu('fe80::1'), { name: 'KernelError' });
  await assert.rejects(routeMtu('fe80::1', { scopeId: 0x7fff_ffff }), { name: 'KernelError' });
  assert.equal(fds(), before);
});

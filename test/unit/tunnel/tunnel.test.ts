/**
 * openTunnel() as its owner sees it, without any right: two of them on the loopback, with a pair of sockets that keep message
 * boundaries in place of each TUN. The real thing is in test/lab/data-path*.test.ts.
 */
import assert from 'node:assert/strict';
import { closeSync, openSync, readdirSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { libc } from '../../../src/kernel/ffi.js';
import { openTunnel, type Tunnel, type TunnelOptions } from '../../../src/tunnel/tunnel.js';
import { openTunnelSocket } from '../../../src/tunnel/tunnel-socket.js';
import type { PlainCounts, PlainOptions, PlainRequest } from '../../lab/lib/plain-protocol.js';
import { packetOf, payloadOf } from './lib/packets.js';

const PROTOCOL = new URL('../../lab/lib/plain-protocol.js', import.meta.url);
const [AF_UNIX, SOCK_SEQPACKET, SOCK_NONBLOCK, SOCK_CLOEXEC] = [1, 5, 0o4000, 0o2000000];

interface End {
  options: TunnelOptions;
  port: number;
  /** What the kernel would send into the TUN, or has got from it. */
  kernel: number;
}

function descriptors(): { tunFd: number; kernel: number; socketFd: number; port: number } {
  const pair = Buffer.alloc(128);
  assert.equal(libc.socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
  const { fd, port } = openTunnelSocket();
  return { tunFd: pair.readInt32LE(0), kernel: pair.readInt32LE(4), socketFd: fd, port };
}

/** Closed after the test, those that are still open. */
function endOf(t: TestContext, given: PlainOptions = {}): End {
  const { tunFd, kernel, socketFd, port } = descriptors();
  t.after(() => {
    for (const fd of [tunFd, kernel, socketFd]) libc.close(fd);
  });
  return { options: { tunFd, socketFd, mtu: 1420, protocol: PROTOCOL, options: given }, port, kernel };
}

async function open(t: TestContext, end: End): Promise<Tunnel> {
  const tunnel = await openTunnel(end.options);
  t.after(() => tunnel.close());
  return tunnel;
}

const call = <T = PlainCounts>(tunnel: Tunnel, request: PlainRequest) => tunnel.call(request) as Promise<T>;
const send = (end: End, packet: Uint8Array) =>
  assert.equal(libc.write(end.kernel, packet, packet.length), packet.length);

async function until<T>(what: string, find: () => T | undefined | Promise<T | undefined>): Promise<T> {
  for (let tries = 0; tries < 6000; tries++) {
    const found = await find();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`${what}: not within 30 s`);
}

async function received(end: End): Promise<Buffer> {
  const buffer = Buffer.alloc(70_000);
  return until('a packet', () => {
    const length = libc.read(end.kernel, buffer, buffer.length);
    return length > 0 ? buffer.subarray(0, length) : undefined;
  });
}

interface Resources {
  fds: number;
  threads: number;
}

/** Descriptors and threads of this process. */
const now = (): Resources => ({
  fds: readdirSync('/proc/self/fd').length,
  threads: readdirSync('/proc/self/task').length,
});

/** When they change no more: they go a moment after the promise. */
async function resources(): Promise<Resources> {
  for (let last = now(), same = 0; ; ) {
    await new Promise((resolve) => setTimeout(resolve, 15));
    const next = now();
    same = next.fds === last.fds && next.threads === last.threads ? same + 1 : 0;
    if (same === 2) return next;
    last = next;
  }
}

/** However long a thread takes to go; not more than before, as one may have been late then. */
async function assertBack(before: Resources): Promise<void> {
  for (let tries = 0; tries < 1000 && (now().fds > before.fds || now().threads > before.threads); tries++) {
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
  const { fds, threads } = now();
  assert.ok(fds <= before.fds && threads <= before.threads, JSON.stringify({ before, fds, threads }));
}

/** `work` leaves neither descriptor nor thread behind. */
async function assertNothingLeft(t: TestContext, work: (end: End) => Promise<void>): Promise<void> {
  const end = endOf(t);
  // Node starts its own threads with the first worker.
  await (await openTunnel(end.options)).close();
  const before = await resources();
  await work(end);
  await assertBack(before);
}

for (const family of ['IPv4', 'IPv6'] as const) {
  test(`packets go through over ${family}, whole and in order, both ways, and are counted`, async (t) => {
    const address = family === 'IPv4' ? '127.0.0.1' : '::1';
    const there = endOf(t);
    const here = endOf(t, { peer: { address, port: there.port } });
    const [one, other] = [await open(t, here), await open(t, there)];
    const packets = [0, 1, 100, 1380, 1379, 9000, 60_000].map((bytes) =>
      packetOf({ payload: payloadOf(bytes, bytes) }),
    );
    for (const [from, to] of [
      [here, there],
      [there, here],
    ] as const) {
      for (const packet of packets) send(from, packet);
      for (const packet of packets) assert.deepEqual(await received(to), packet);
    }
    const bytes = packets.reduce((sum, each) => sum + each.length, 0);
    for (const tunnel of [one, other]) {
      const { counters, offload } = await tunnel.status();
      const { packetsOut, bytesOut, packetsIn, bytesIn, datagramsOut, datagramsIn, tunReads, tunWrites } = counters;
      assert.deepEqual([packetsOut, packetsIn, datagramsOut, datagramsIn, tunReads, tunWrites], new Array(6).fill(7));
      assert.deepEqual([bytesOut, bytesIn], [bytes, bytes]);
      assert.deepEqual([counters.unroutable, counters.unsent, counters.undelivered, counters.waits], [0, 0, 0, 0]);
      assert.deepEqual([offload.vnetHeader, offload.tcp, offload.udp], [false, false, false]);
    }
  });
}

test('a packet that no datagram can hold is counted and dropped, and so is one that nobody knows where to send', async (t) => {
  const there = endOf(t);
  const here = endOf(t, { peer: { address: '127.0.0.1', port: there.port } });
  const [one, other] = [await open(t, here), await open(t, there)];
  send(here, packetOf({ payload: payloadOf(65_480) }));
  send(there, packetOf({}));
  for (const tunnel of [one, other]) {
    await until('it is counted', async () => ((await tunnel.status()).counters.unsent === 1 ? true : undefined));
  }
  const last = packetOf({ payload: payloadOf(10) });
  send(here, last);
  assert.deepEqual(await received(there), last);
});

test("datagrams that are none of the protocol's, empty ones and errors from the network pass without a trace", async (t) => {
  // Nobody is there: what is sent comes back as an ICMP error.
  const { port } = endOf(t);
  const there = endOf(t);
  const gone = openTunnelSocket();
  libc.close(gone.fd);
  const here = endOf(t, { peer: { address: '127.0.0.1', port: gone.port } });
  const tunnel = await open(t, here);
  for (let count = 0; count < 5; count++) send(here, packetOf({}));
  const stranger = await open(t, {
    ...there,
    options: { ...there.options, options: { peer: { address: '::1', port: here.port } } },
  });
  assert.notEqual(port, here.port);
  const socket = openTunnelSocket();
  t.after(() => closeSync(socket.fd));
  const address = Buffer.alloc(28);
  address.writeUInt16LE(10, 0);
  address.writeUInt16BE(here.port, 2);
  address[23] = 1;
  for (const bytes of [0, 1, 16, 17, 1400]) {
    assert.equal(libc.sendto(socket.fd, Buffer.alloc(2000), bytes, 0, address, 28), bytes);
  }
  await until('they are counted', async () =>
    (await call(tunnel, { ask: 'counts' })).foreign === 4 ? true : undefined,
  );
  send(there, packetOf({ payload: payloadOf(50) }));
  assert.equal((await received(here)).length, 90);
  assert.equal((await stranger.status()).counters.datagramsOut, 1);
});

test('call() brings what structuredClone takes, both ways, and the error that the protocol throws', async (t) => {
  const tunnel = await open(t, endOf(t));
  const value = { bytes: Uint8Array.from([1, 2]), map: new Map([[1n, undefined]]), nothing: null };
  assert.deepEqual(await call(tunnel, { ask: 'echo', value }), value);
  await assert.rejects(call(tunnel, { ask: 'throw' }), { message: 'asked to throw' });
  await assert.rejects(call(tunnel, { ask: 'echo', value: () => 0 }), { name: 'DataCloneError' });
  const several = await Promise.all([1, 2, 3].map((each) => call(tunnel, { ask: 'echo', value: each })));
  assert.deepEqual(several, [1, 2, 3]);
});

test('an answer that cannot be copied is an error of that call alone', async (t) => {
  const tunnel = await open(t, endOf(t));
  await assert.rejects(call(tunnel, { ask: 'function' }), /could not be cloned/);
  assert.equal(await call(tunnel, { ask: 'echo', value: 1 }), 1);
});

test('openTunnel() rejects with what is wrong, and leaves nothing', async (t) => {
  await assertNothingLeft(t, async ({ options }) => {
    await assert.rejects(openTunnel({ ...options, options: { refuse: 'key: is none' } }), { message: 'key: is none' });
    await assert.rejects(openTunnel({ ...options, protocol: new URL('./nowhere.js', PROTOCOL) }), {
      code: 'ERR_MODULE_NOT_FOUND',
    });
    await assert.rejects(openTunnel({ ...options, options: { refuse: () => 0 } }), { name: 'DataCloneError' });
    await assert.rejects(openTunnel({ ...options, tunFd: 9999 }), /F_DUPFD_CLOEXEC fd 9999: EBADF/);
    await assert.rejects(openTunnel({ ...options, socketFd: 9999 }), /F_DUPFD_CLOEXEC fd 9999: EBADF/);
  });
});

test('openTunnel() and replaceSocket() refuse what is no UDP socket of IPv6: to poll(2) it would be readable for ever', async (t) => {
  const [AF_INET, SOCK_STREAM, SOCK_DGRAM] = [2, 1, 2];
  const wrong = [openSync('/dev/null', 'r+'), libc.socket(AF_INET, SOCK_DGRAM, 0), libc.socket(10, SOCK_STREAM, 0)];
  t.after(() => {
    for (const fd of wrong) libc.close(fd);
  });
  await assertNothingLeft(t, async ({ options }) => {
    for (const socketFd of [...wrong, options.tunFd]) {
      const message = `fd ${socketFd} is no UDP socket of IPv6`;
      await assert.rejects(openTunnel({ ...options, socketFd }), { message });
      const tunnel = await openTunnel(options);
      await assert.rejects(tunnel.replaceSocket(socketFd), { message });
      await tunnel.close();
    }
  });
});

for (const [where, options] of [
  ['seal()', { fault: { in: 'seal', what: 'throw', every: 2 } }],
  ['open()', { fault: { in: 'open', what: 'throw', every: 2 } }],
  ['tick()', { failAfterMs: 100 }],
] as const) {
  test(`a protocol that throws in ${where} ends the tunnel with that error, and nothing is left`, async (t) => {
    await assertNothingLeft(t, async (end) => {
      const tunnel = await openTunnel({
        ...end.options,
        options: { peer: { address: '::1', port: end.port }, ...options } satisfies PlainOptions,
      });
      // To itself.
      for (let count = 0; count < 3; count++) send(end, packetOf({}));
      assert.match((await tunnel.ended)?.message ?? '', new RegExp(`${where.slice(0, -2)} fails`));
      await assert.rejects(tunnel.status(), { message: 'the tunnel has ended' });
      await tunnel.close();
    });
  });
}

test('the tunnel ends without an error when the TUN is gone', async (t) => {
  const end = endOf(t);
  const tunnel = await open(t, end);
  libc.shutdown(end.kernel, 2);
  assert.equal(await tunnel.ended, undefined);
});

test('close() ends it without an error, as often as it is called, and what is asked then is refused', async (t) => {
  await assertNothingLeft(t, async ({ options }) => {
    const tunnel = await openTunnel(options);
    const asked = Promise.allSettled([tunnel.status(), call(tunnel, { ask: 'counts' })]);
    await Promise.all([tunnel.close(), tunnel.close()]);
    await asked;
    assert.equal(await tunnel.ended, undefined);
    await tunnel.close();
    await assert.rejects(tunnel.status(), { message: 'the tunnel has ended' });
    await assert.rejects(call(tunnel, { ask: 'counts' }), { message: 'the tunnel has ended' });
    await assert.rejects(tunnel.replaceSocket(options.socketFd), { message: 'the tunnel has ended' });
  });
});

test("the owner's descriptors stay open, and may be closed while the tunnel runs", async (t) => {
  const there = endOf(t);
  const here = endOf(t, { peer: { address: '127.0.0.1', port: there.port } });
  const [tunnel] = [await open(t, here), await open(t, there)];
  const { tunFd, socketFd } = here.options;
  for (const fd of [tunFd, socketFd]) assert.equal(libc.fcntl(fd, 1, 0), 1, 'open, and closed on exec');
  // Their numbers are free for others now.
  for (const fd of [tunFd, socketFd]) libc.close(fd);
  const others = [openSync('/dev/zero', 'r'), openSync('/dev/zero', 'r')];
  t.after(() => {
    for (const fd of others) libc.close(fd);
  });
  const packet = packetOf({ payload: payloadOf(20) });
  send(here, packet);
  assert.deepEqual(await received(there), packet);
  await tunnel.close();
});

test('replaceSocket() goes on with the other socket, and both are their owner’s to close', async (t) => {
  const there = endOf(t);
  const here = endOf(t, { peer: { address: '127.0.0.1', port: there.port } });
  const [tunnel] = [await open(t, here), await open(t, there)];
  const packet = packetOf({ payload: payloadOf(20) });
  const before = await resources();
  for (let count = 0; count < 5; count++) {
    const socket = openTunnelSocket();
    await tunnel.replaceSocket(socket.fd);
    libc.close(socket.fd);
    send(here, packet);
    assert.deepEqual(await received(there), packet);
    // To where it came from.
    send(there, packet);
    assert.deepEqual(await received(here), packet);
  }
  await assertBack(before);
  await assert.rejects(tunnel.replaceSocket(9999), /EBADF/);
  assert.equal((await tunnel.status()).counters.packetsOut, 5);
});

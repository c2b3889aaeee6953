/**
 * What the TUN does not take in one piece. Another socket is the TUN here, which like one keeps the bounds of what is written: a UDP
 * socket refuses what is larger than a datagram (EMSGSIZE), and a unix socket whose other end is closed everything. Packets
 * come by UDP over loopback, in a protocol that does nothing.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { Arena } from '../../../src/kernel/arena.js';
import { BootClock } from '../../../src/kernel/boot-clock.js';
import { libc } from '../../../src/kernel/ffi.js';
import { TunnelCounters } from '../../../src/tunnel/counters.js';
import { DataPath } from '../../../src/tunnel/data-path.js';
import type { TunnelProtocol } from '../../../src/tunnel/protocol.js';
import { Sender } from '../../../src/tunnel/socket-io.js';
import { canSegment, openTunnelSocket } from '../../../src/tunnel/tunnel-socket.js';
import { Endpoint } from '../../../src/tunnel/wireguard/endpoint.js';
import { parsePacket, payloadOf, segmentsOf } from './lib/packets.js';

const [AF_UNIX, SOCK_DGRAM, SOCK_NONBLOCK] = [1, 2, 0o4000];
const VNET_BYTES = 10;
const SEGMENT_BYTES = 1212;
const COUNT = 20;
/** With the vnet header no datagram any more. */
const LARGEST_RUN = 65_530;

type Pair = [one: number, far: number];

function unixPair(t: TestContext): Pair {
  const pair = Buffer.alloc(8);
  assert.equal(libc.socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair), 0);
  const fds: Pair = [pair.readInt32LE(0), pair.readInt32LE(4)];
  t.after(() => {
    for (const fd of fds) libc.close(fd);
  });
  return fds;
}

/** What is written to the first is read from the second. */
function udpPair(t: TestContext): Pair {
  const [one, far] = [openTunnelSocket(), openTunnelSocket()];
  t.after(() => {
    for (const { fd } of [one, far]) libc.close(fd);
  });
  const { sockaddr } = Endpoint.of('127.0.0.1', far.port);
  assert.equal(libc.connect(one.fd, sockaddr, sockaddr.length), 0);
  return [one.fd, far.fd];
}

/** The data path takes what is on its socket, and ends. Returns what was written to the TUN. */
function deliver(t: TestContext, packets: readonly Uint8Array[], [tun, far]: Pair) {
  const arena = new Arena(1 << 20);
  const counters = new TunnelCounters();
  const [wake, waker] = unixPair(t);
  const [here, there] = [openTunnelSocket(), openTunnelSocket()];
  t.after(() => {
    for (const { fd } of [here, there]) libc.close(fd);
  });
  const protocol: TunnelProtocol = {
    outbox: [],
    nextDeadlineMs: Number.POSITIVE_INFINITY,
    route: () => undefined,
    seal: () => 0,
    open: (from, length, to) => {
      arena.memory.copyWithin(to, from, from + length);
      return length;
    },
    tick: () => {},
    call: () => undefined,
    close: () => {},
  };
  const offload = { vnetHeader: true, udp: true };
  const clock = new BootClock(arena);
  const path = new DataPath({ arena, clock, tunFd: tun, socketFd: here.fd, wakeFd: wake, offload, counters }, protocol);
  const at = arena.reserve(1 << 17);
  const sender = new Sender(arena, there.fd, canSegment(there.fd), new TunnelCounters());
  for (let first = 0; first < packets.length; first += COUNT) {
    const some = Buffer.concat(packets.slice(first, first + COUNT));
    arena.memory.set(some, at);
    sender.send(Endpoint.of('127.0.0.1', here.port), at, some.length, packets[0]?.length ?? 0);
  }
  // The wake-up and the datagrams are found in the same turn.
  libc.write(waker, Buffer.from([1]), 1);
  path.run(() => path.end());
  const written: Buffer[] = [];
  const buffer = Buffer.alloc(1 << 17);
  for (let length = libc.read(far, buffer, buffer.length); length > 0; ) {
    written.push(Buffer.from(buffer.subarray(0, length)));
    length = libc.read(far, buffer, buffer.length);
  }
  return { written, counters };
}

for (const version of [4, 6] as const) {
  for (const protocol of ['tcp', 'udp'] as const) {
    const headerBytes = (version === 4 ? 20 : 40) + (protocol === 'tcp' ? 20 : 8);
    const segments = (bytes: number) => segmentsOf({ version, protocol, payload: payloadOf(bytes) }, SEGMENT_BYTES);
    const many = segments(LARGEST_RUN - headerBytes);

    test(`IPv${version} ${protocol}: what the TUN takes in one piece is written once`, (t) => {
      const { written, counters } = deliver(t, segments(COUNT * SEGMENT_BYTES), udpPair(t));
      assert.deepEqual([written.length, counters.tunWrites, counters.undelivered], [1, 1, 0]);
    });

    test(`IPv${version} ${protocol}: what it refuses in one piece it gets packet by packet`, (t) => {
      const { written, counters } = deliver(t, many, udpPair(t));
      assert.deepEqual([counters.tunWrites, counters.undelivered], [1 + many.length, 0]);
      const packets = written.map((each) => each.subarray(VNET_BYTES));
      assert.deepEqual(packets.map(parsePacket), many.map(parsePacket));
      for (const each of written) assert.deepEqual([...each.subarray(0, VNET_BYTES)], new Array(VNET_BYTES).fill(0));
    });

    test(`IPv${version} ${protocol}: what it takes in no form is counted, every packet of it`, (t) => {
      const gone = unixPair(t);
      libc.close(gone[1]);
      gone[1] = -1;
      assert.equal(deliver(t, many, [gone[0], -1]).counters.undelivered, many.length);
    });
  }
}

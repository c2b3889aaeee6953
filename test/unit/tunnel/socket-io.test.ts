/** A tunnel's UDP socket in batches, from one socket of the loopback to another. Paths that take less: test/lab/data-path-path-mtu.test.ts. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { Arena } from '../../../src/kernel/arena.js';
import { libc } from '../../../src/kernel/ffi.js';
import { TunnelCounters } from '../../../src/tunnel/counters.js';
import { MAX_DATAGRAM_BYTES, Receiver, Sender } from '../../../src/tunnel/socket-io.js';
import { canSegment, openTunnelSocket } from '../../../src/tunnel/tunnel-socket.js';
import { Endpoint, LOCAL_OFFSET } from '../../../src/tunnel/wireguard/endpoint.js';
import { payloadOf } from './lib/packets.js';

interface Pair {
  arena: Arena;
  counters: TunnelCounters;
  sender: Sender;
  receiver: Receiver;
  /** Of the receiving socket, and of the sending one. */
  port: number;
  from: number;
  fd: number;
  /** Where what is to be sent is. */
  at: number;
}

function pairOf(t: TestContext, isSegmenting = true): Pair {
  const arena = new Arena(1 << 18);
  const counters = new TunnelCounters();
  const [one, other] = [openTunnelSocket(), openTunnelSocket()];
  t.after(() => {
    for (const { fd } of [one, other]) libc.close(fd);
  });
  const sender = new Sender(arena, one.fd, isSegmenting && canSegment(one.fd), counters);
  const at = arena.reserve(70_000);
  arena.memory.set(payloadOf(70_000), at);
  return {
    arena,
    counters,
    sender,
    receiver: new Receiver(arena, other.fd),
    port: other.port,
    from: one.port,
    fd: one.fd,
    at,
  };
}

interface Received {
  /** Sizes of what came in one piece. */
  sizes: number[];
  bytes: Buffer;
  source: Endpoint;
}

/** All that is there. */
function take({ arena, receiver }: Pair): Received[] {
  const all: Received[] = [];
  for (let length = receiver.receive(); length >= 0; length = receiver.receive()) {
    const { segmentBytes, source } = receiver;
    const sizes: number[] = [];
    for (let left = length; left > 0; left -= segmentBytes) sizes.push(Math.min(left, segmentBytes));
    const bytes = Buffer.from(arena.memory.slice(receiver.at, receiver.at + length));
    all.push({ sizes, bytes, source: Endpoint.withLocalAt(arena.memory, source) });
  }
  return all;
}

const LOOPBACK = { IPv4: '127.0.0.1', IPv6: '::1' } as const;

for (const family of ['IPv4', 'IPv6'] as const) {
  test(`datagrams of a size and a shorter last one arrive with their bounds over ${family}`, (t) => {
    for (const isSegmenting of [true, false]) {
      const pair = pairOf(t, isSegmenting);
      const endpoint = Endpoint.of(LOOPBACK[family], pair.port);
      for (const [length, segmentBytes] of [
        [1, 1],
        [1400, 1400],
        [2800, 1400],
        [3000, 1400],
        [1401, 1400],
        [65_000, 1300],
        [64, 1],
        [65_507, 65_507],
      ] as const) {
        const count = Math.ceil(length / segmentBytes);
        if (isSegmenting || count === 1)
          assert.equal(pair.sender.send(endpoint, pair.at, length, segmentBytes), 'sent');
        else assert.equal(pair.sender.capacity(endpoint, segmentBytes), 1);
        if (!isSegmenting && count > 1) continue;
        const received = take(pair);
        const sizes = received.flatMap((each) => each.sizes);
        assert.deepEqual(sizes, [...new Array(count - 1).fill(segmentBytes), length - (count - 1) * segmentBytes]);
        const sent = Buffer.from(pair.arena.memory.slice(pair.at, pair.at + length));
        assert.ok(Buffer.concat(received.map(({ bytes }) => bytes)).equals(sent));
        for (const { source } of received) {
          assert.deepEqual([source.address, source.port], [LOOPBACK[family], pair.from]);
        }
      }
      assert.equal(pair.counters.unsent, 0);
    }
  });
}

test('a batch has as many datagrams as one send takes', (t) => {
  const pair = pairOf(t);
  const endpoint = Endpoint.of('::1', pair.port);
  for (const bytes of [1, 100, 1023, 1024, 1452, 32_753, 32_754, 65_507]) {
    const capacity = pair.sender.capacity(endpoint, bytes);
    assert.ok(capacity >= 1 && capacity <= 64 && capacity * bytes <= MAX_DATAGRAM_BYTES, `${capacity} of ${bytes}`);
    assert.ok(capacity === 64 || (capacity + 1) * bytes > MAX_DATAGRAM_BYTES, 'not one less than it could');
    assert.equal(pair.sender.send(endpoint, pair.at, capacity * bytes, bytes), 'sent');
    assert.equal(pair.counters.unsent, 0, `${capacity} of ${bytes}`);
    assert.equal(take(pair).flatMap(({ sizes }) => sizes).length, capacity);
  }
  const { datagramsOut, socketWrites } = pair.counters;
  assert.equal(socketWrites, 8);
  assert.ok(datagramsOut > 200);
});

test('what no datagram can hold, and a place that no route leads to, is counted as unsent; the next is sent', (t) => {
  const pair = pairOf(t);
  const endpoint = Endpoint.of('127.0.0.1', pair.port);
  assert.equal(pair.sender.send(endpoint, pair.at, 65_508, 65_508), 'sent');
  assert.equal(
    pair.sender.send(Endpoint.of('255.255.255.255', 9), pair.at, 3000, 1000),
    'sent',
    'not without SO_BROADCAST',
  );
  assert.equal(pair.counters.unsent, 4);
  assert.equal(pair.sender.send(endpoint, pair.at, 10, 10), 'sent');
  assert.deepEqual(
    take(pair).map(({ sizes }) => sizes),
    [[10]],
  );
});

test('a receiver with nothing to receive says so, an empty datagram is one of no bytes', (t) => {
  const pair = pairOf(t);
  assert.equal(pair.receiver.receive(), -1);
  pair.sender.send(Endpoint.of('::1', pair.port), pair.at, 0, 1);
  assert.equal(pair.receiver.receive(), 0);
  assert.equal(pair.receiver.receive(), -1);
});

test('datagrams leave from the address of ours that the endpoint names, whatever was sent in between', (t) => {
  const pair = pairOf(t);
  const { arena, sender, at } = pair;
  const ours = (last: number): Endpoint => {
    // As the kernel writes it behind the source of a datagram: 28 bytes, 4 of padding, struct in6_pktinfo.
    const place = arena.reserve(64);
    arena.memory.fill(0, place, place + 64).set(Endpoint.of('127.0.0.1', pair.port).sockaddr, place);
    arena.memory.set([0xff, 0xff, 127, 0, 0, last], place + LOCAL_OFFSET + 10);
    return Endpoint.withLocalAt(arena.memory, place);
  };
  const sources = () => take(pair).map(({ source }) => source.address);
  const [second, third, any] = [ours(2), ours(3), Endpoint.of('127.0.0.1', pair.port)];
  for (const endpoint of [second, third, any, second, second, any]) sender.send(endpoint, at, 2500, 1000);
  const joined = sources();
  assert.deepEqual([...new Set(joined)], ['127.0.0.2', '127.0.0.3', '127.0.0.1']);
  assert.equal(joined.at(-1), '127.0.0.1');

  // What fails for another reason takes no address from anybody.
  for (const [length, segmentBytes] of [
    [65_508, 65_508],
    [66_000, 1000],
  ] as const) {
    const before = pair.counters.unsent;
    sender.send(second, at, length, segmentBytes);
    if (length === segmentBytes) assert.equal(pair.counters.unsent, before + 1);
    take(pair);
    sender.send(second, at, 10, 10);
    assert.deepEqual(sources(), ['127.0.0.2'], `after ${length} bytes in datagrams of ${segmentBytes}`);
  }
});

test('an address of ours that is none any more: the kernel chooses another, and nothing is lost', (t) => {
  const pair = pairOf(t);
  const { arena, sender, at } = pair;
  const place = arena.reserve(64);
  arena.memory.set(Endpoint.of('127.0.0.1', pair.port).sockaddr, place);
  arena.memory.set([0xff, 0xff, 203, 0, 113, 1], place + LOCAL_OFFSET + 10);
  const endpoint = Endpoint.withLocalAt(arena.memory, place);
  const [nobody, counters] = [openTunnelSocket(), pair.counters];
  t.after(() => libc.close(nobody.fd));
  for (let count = 0; count < 3; count++) {
    sender.send(endpoint, at, 2500, 1000);
    sender.send(Endpoint.of('::1', nobody.port), at, 10, 10);
  }
  const received = take(pair);
  assert.deepEqual(
    received.flatMap(({ sizes }) => sizes),
    [1000, 1000, 500, 1000, 1000, 500, 1000, 1000, 500],
  );
  assert.deepEqual([...new Set(received.map(({ source }) => source.address))], ['127.0.0.1']);
  assert.deepEqual([counters.unsent, counters.socketWrites], [0, 7], 'tried once');
});

test('on another socket the receiver goes on, and says nothing of our address where the kernel does not', (t) => {
  const pair = pairOf(t);
  const { receiver, sender, at } = pair;
  const local = () => take(pair).map(({ source }) => source.local !== undefined);
  sender.send(Endpoint.of('127.0.0.1', pair.port), at, 10, 10);
  assert.deepEqual(local(), [true]);
  const other = openTunnelSocket();
  t.after(() => libc.close(other.fd));
  const [IPPROTO_IPV6, IPV6_RECVPKTINFO] = [41, 49];
  assert.equal(libc.setsockopt(other.fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, Buffer.alloc(4), 4), 0);
  receiver.replace(other.fd);
  sender.send(Endpoint.of('127.0.0.1', other.port), at, 10, 10);
  assert.deepEqual(local(), [false]);
});

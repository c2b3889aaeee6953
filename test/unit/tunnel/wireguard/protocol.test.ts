import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../../../../src/kernel/arena.js';
import type { DeviceStatus } from '../../../../src/tunnel/wireguard/device-config.js';
import { SOCKADDR_BYTES } from '../../../../src/tunnel/wireguard/endpoint.js';
import { createProtocol } from '../../../../src/tunnel/wireguard/protocol.js';
import { generatePrivateKey } from '../../../../src/tunnel/wireguard/x25519.js';

const DATAGRAM_BYTES = 65_536;

test('a datagram that is no message is counted and not copied, however long it is', () => {
  const arena = new Arena(4 * DATAGRAM_BYTES);
  const protocol = createProtocol({ arena, mtu: 1420, nowMs: 0 }, { privateKey: generatePrivateKey() });
  const [from, to, source] = [arena.reserve(DATAGRAM_BYTES), arena.reserve(DATAGRAM_BYTES), arena.reserve(64)];
  let longest = 0;
  const slice = arena.memory.slice.bind(arena.memory);
  arena.memory.slice = (start = 0, end = arena.memory.length) => {
    longest = Math.max(longest, end - start);
    return slice(start, end);
  };
  let count = 0;
  for (const type of [0, 1, 2, 3, 5, 255]) {
    for (const length of [0, 1, 3, 4, 31, 32, 63, 65, 91, 93, 147, 149, 1452, 65_507]) {
      arena.memory[from] = type;
      assert.equal(protocol.open(from, length, to, source, 1), 0);
      count++;
    }
    // The right length and the first byte of an initiation, but none by the three behind it.
    arena.memory.set([type, 0, 1, 0], from);
    assert.equal(protocol.open(from, 148, to, source, 1), 0);
    arena.memory[from + 2] = 0;
    count++;
  }
  assert.ok(longest <= SOCKADDR_BYTES, `${longest} bytes were copied`);
  const { counters } = protocol.call({ question: 'status' }, 1) as DeviceStatus;
  assert.equal(counters.malformed, count);
  assert.deepEqual(protocol.outbox, []);
});

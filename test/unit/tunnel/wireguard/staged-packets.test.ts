import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StagedPackets, StagingRoom } from '../../../../src/tunnel/wireguard/staged-packets.js';

const memory = new Uint8Array(70_000);

function all(staged: StagedPackets, nowMs = 0): (number | undefined)[] {
  const first: (number | undefined)[] = [];
  for (let packet = staged.take(nowMs); packet; packet = staged.take(nowMs)) first.push(packet[0]);
  return first;
}

test('packets come back as they were, in their order', () => {
  const staged = new StagedPackets(new StagingRoom());
  for (let id = 1; id <= 3; id++) {
    memory[10] = id;
    assert.equal(staged.push(memory, 10, 100 * id, 0), 0);
  }
  memory[10] = 99;
  assert.equal(staged.length, 3);
  assert.equal(staged.take(0)?.length, 100);
  assert.deepEqual(all(staged), [2, 3]);
});

test('of more than 128 packets the oldest are dropped', () => {
  const staged = new StagedPackets(new StagingRoom());
  let dropped = 0;
  for (let id = 0; id < 200; id++) {
    memory[0] = id;
    dropped += staged.push(memory, 0, 20, 0);
  }
  assert.equal(dropped, 72);
  assert.deepEqual(
    all(staged),
    Array.from({ length: 128 }, (_, index) => 72 + index),
  );
});

test('of more than 256 KiB the oldest are dropped, as many as it takes', () => {
  const staged = new StagedPackets(new StagingRoom());
  for (let count = 0; count < 100; count++) staged.push(memory, 0, 2600, 0);
  assert.equal(staged.length, 100);
  assert.equal(staged.push(memory, 0, 65_000, 0), 25);
  assert.equal(staged.length, 76);
});

test('all peers together have one room, of which each gives up only its own', () => {
  const room = new StagingRoom(1000);
  const [alice, bob] = [new StagedPackets(room), new StagedPackets(room)];
  assert.equal(alice.push(memory, 0, 900, 0), 0);
  assert.equal(bob.push(memory, 0, 200, 0), 1);
  assert.equal(bob.length, 0);
  assert.equal(bob.push(memory, 0, 100, 0), 0);
  assert.equal(alice.push(memory, 0, 900, 0), 1);
  assert.equal(room.bytes, 1000);
  assert.equal(alice.clear() + bob.clear(), 2);
  assert.equal(room.bytes, 0);
});

test('what has waited for 90 seconds does not wait any more', () => {
  const room = new StagingRoom();
  const staged = new StagedPackets(room);
  memory[0] = 1;
  staged.push(memory, 0, 20, 0);
  memory[0] = 2;
  staged.push(memory, 0, 20, 1);
  assert.deepEqual(all(staged, 90_000), [2]);
  assert.equal(room.bytes, 0);
});

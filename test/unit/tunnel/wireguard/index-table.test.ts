import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCipherSuite } from '../../../../src/tunnel/wireguard/cipher-suite.js';
import { IndexTable } from '../../../../src/tunnel/wireguard/index-table.js';
import { Session } from '../../../../src/tunnel/wireguard/session.js';

const ciphers = nodeCipherSuite(new Uint8Array(0));

function session(localIndex: number): Session<string> {
  const keys = { sending: new Uint8Array(32), receiving: new Uint8Array(32) };
  return new Session('peer', ciphers, keys, 'initiator', localIndex, 7, 0);
}

test('an index that is taken, by a handshake or a session, is not given out again', () => {
  const draws = [1, 1, 2, 1, 2, 0xffff_ffff, 0xffff_ffff, 3];
  const table = new IndexTable<string>((bytes) => {
    const drawn = Buffer.alloc(bytes);
    drawn.writeUInt32LE(draws.shift() ?? 0);
    return drawn;
  });
  table.addInitiation(table.fresh(), 'alice');
  assert.equal(table.initiatorAt(1), 'alice');
  table.addSession(session(table.fresh()));
  assert.equal(table.fresh(), -1, 'a signed number');
  table.addSession(session(0xffff_ffff));
  assert.equal(table.fresh(), 3);
  assert.equal(table.size, 3);
});

test("a handshake's index becomes its session's, and a session that is gone is not found", () => {
  const table = new IndexTable<string>(() => new Uint8Array(4));
  const [first, second] = [session(5), session(6)];
  table.addInitiation(5, 'alice');
  table.addSession(first);
  table.addSession(second);
  assert.equal(table.initiatorAt(5), undefined);
  assert.equal(table.sessionAt(5), first);
  assert.equal(table.sessionAt(6), second);
  assert.equal(table.sessionAt(5), first);
  table.removeSession(first);
  assert.equal(table.sessionAt(5), undefined);
  assert.equal(table.sessionAt(6), second);
  assert.equal(table.size, 1);
});
